"""What several test files share."""

from pathlib import Path

import numpy as np

from configs.load import load_config
from configs.schema import TrainConfig
from data.samples import sample_picture
from tests.kill_and_resume import differences
from training.tracking import read_metrics


def config(overrides: list[str], *more: str, cfg: str = "rave_quickstart.yaml") -> TrainConfig:
    return load_config(TrainConfig, cfg, [*overrides, *more])


def arguments(overrides: list[str], cfg: str = "rave_quickstart.yaml") -> list[str]:
    return ["--cfg", cfg, *(f"--set={o}" for o in overrides)]


def metrics(run: Path) -> list[dict]:
    return read_metrics(run / "metrics.jsonl")


def small_sample(name: str) -> np.ndarray:
    """A photo of scikit-image's, every sixth pixel: (h,w,3) float32 in [0, 1]."""
    return np.ascontiguousarray(sample_picture(name)[::6, ::6]).astype(np.float32) / 255


def assert_same_run(whole: Path, resumed: Path) -> None:
    """Two run folders whose states and logs agree bit for bit, times apart."""
    assert differences(whole, resumed) == []
