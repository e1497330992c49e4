"""What several test files share."""

import json
from pathlib import Path

import torch

from configs.load import load_config
from configs.schema import TrainConfig


def config(overrides: list[str], *more: str, cfg: str = "rave_quickstart.yaml") -> TrainConfig:
    return load_config(TrainConfig, cfg, [*overrides, *more])


def arguments(overrides: list[str], cfg: str = "rave_quickstart.yaml") -> list[str]:
    return ["--cfg", cfg, *(f"--set={o}" for o in overrides)]


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_time(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def assert_same_run(whole: Path, resumed: Path) -> None:
    """Two run folders whose states and logs agree bit for bit, times apart."""
    states = [torch.load(run / "checkpoints/last.pt", weights_only=True) for run in (whole, resumed)]
    for state in states:
        del state["seconds"]
    assert_equal(*states)
    assert without_time(metrics(whole)) == without_time(metrics(resumed))


def assert_equal(a: object, b: object, where: str = "state") -> None:
    """Nested dicts, lists and tensors, bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{index}]")
    else:
        assert a == b, where
