"""Fixtures shared by all tests: small photos, the golden files where they are, no network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.clip_encoder import ClipEncoder, load_clip

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a hub, on any machine."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files, published weights and photos, which is not part of this repository."""
    if not SHARED.is_dir():
        pytest.skip(f"golden files, published weights and photos are not here ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def tiny_clip(shared: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Inputs, and what the authors' code gives on them, as tensors."""
    folder = shared / "golden" / "tiny_clip"
    loaded = {name: np.load(folder / f"{name}.npz") for name in ("inputs", "expected")}
    return {name: {key: torch.from_numpy(np.array(file[key])) for key in file.files} for name, file in loaded.items()}


@pytest.fixture(scope="session")
def vit(shared: Path) -> ClipEncoder:
    """The tiny ViT of the golden files."""
    return load_clip("auto", str(shared / "golden/tiny_clip/tiny_vit_openai.npz"))


@pytest.fixture(scope="session")
def resnet(shared: Path) -> ClipEncoder:
    """The tiny ResNet of the golden files."""
    return load_clip("auto", str(shared / "golden/tiny_clip/tiny_rn_openai.npz"))


@pytest.fixture
def photo_folders(tmp_path: Path) -> tuple[Path, Path]:
    """Six dark and eight bright small pictures with some structure, in two folders."""
    generator = np.random.default_rng(0)
    for name, count, level in (("backlit", 6, 0.25), ("welllit", 8, 1.0)):
        (tmp_path / name).mkdir()
        for number in range(count):
            coarse = generator.random((5, 7, 3)) * level * 255
            Image.fromarray(coarse.astype(np.uint8)).resize((56, 40), Image.Resampling.BICUBIC).save(
                tmp_path / name / f"{number}.png"
            )
    return tmp_path / "backlit", tmp_path / "welllit"
