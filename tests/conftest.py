"""Fixtures shared by all tests: small photos, the golden files where they are, no network."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.clip_encoder import ClipEncoder, load_clip
from tests.golden import make as made
from tests.golden.authors import AUTHORS


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a hub, on any machine."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's caches, but for PyTorch's of downloaded weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", os.environ.get("TORCH_HOME", torch.hub._get_torch_home()))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> None:
    """Processes that tests start hear Ctrl-C also where the tests run behind `&` in a script, which has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The authors' golden files and published weights, and photos, which are not part of this repository."""
    if AUTHORS is None:
        pytest.skip("the authors' golden files, published weights and photos are not on this machine")
    return AUTHORS


@pytest.fixture(scope="session", params=["committed", "authors"])
def golden_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP in OpenAI's naming, inputs, and values on them: of this repository, and of the authors' code.

    tiny_vit_openai.npz, tiny_rn_openai.npz, inputs.npz, expected.npz, words.txt
    """
    if request.param == "authors":
        return request.getfixturevalue("shared") / "golden" / "tiny_clip"
    folder = tmp_path_factory.mktemp("golden")
    with np.load(made.HERE / "tiny_clip.npz") as values:
        expected = {**values, **{name: tensor.numpy() for name, tensor in made.given_values().items()}}
    np.savez(folder / "expected.npz", **expected)
    for name, tensors in (
        ("inputs", made.clip_inputs()),
        ("tiny_vit_openai", made.vit_weights()),
        ("tiny_rn_openai", made.resnet_weights()),
    ):
        np.savez(folder / f"{name}.npz", **{key: tensor.numpy() for key, tensor in tensors.items()})
    (folder / "words.txt").write_text("\n".join(made.WORDS))
    return folder


@pytest.fixture(scope="session")
def tiny_clip(golden_folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Inputs, and the values on them, as tensors."""
    loaded = {name: np.load(golden_folder / f"{name}.npz") for name in ("inputs", "expected")}
    return {name: {key: torch.from_numpy(np.array(file[key])) for key in file.files} for name, file in loaded.items()}


@pytest.fixture(scope="session")
def vit(golden_folder: Path) -> ClipEncoder:
    """The tiny ViT of the golden files."""
    return load_clip("auto", str(golden_folder / "tiny_vit_openai.npz"))


@pytest.fixture(scope="session")
def resnet(golden_folder: Path) -> ClipEncoder:
    """The tiny ResNet of the golden files."""
    return load_clip("auto", str(golden_folder / "tiny_rn_openai.npz"))


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
