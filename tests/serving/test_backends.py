"""Every backend and precision: the choice, what is said about it, and 50 dB agreement with fp32."""

import subprocess
import sys
from importlib import util

import numpy as np
import pytest
import torch

import serving.backends
import serving.tiles
from common.errors import UserError
from common.paths import REPO_ROOT
from data.images import read_rgb8
from models.checkpoints import save_tensors
from models.unet import IlluminationUNet
from serving.backends import choose
from serving.enhancer import Enhancer
from serving.openvino_network import OpenVinoNetwork
from tests.serving.helpers import difference, network, noise, noise_tensor, put_together

CPU = "cpu"
openvino = pytest.mark.skipif(
    util.find_spec("openvino") is None, reason="OpenVINO is not installed (requirements-openvino.txt)"
)
compiler = pytest.mark.slow


@pytest.fixture
def machine(monkeypatch):
    """Pretend what is installed, and what the processor has."""

    def pretend(*, installed: bool, bf16: bool):
        monkeypatch.setattr(serving.backends.util, "find_spec", lambda name: object() if installed else None)
        monkeypatch.setattr(serving.backends, "has_bf16", lambda backend, device: bf16)

    return pretend


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("bf16", [True, False])
def test_auto_takes_what_is_there(machine, installed, bf16):
    machine(installed=installed, bf16=bf16)
    choice = choose("auto", "auto", CPU)
    assert (choice.backend, choice.precision) == ("openvino" if installed else "torch", "bf16" if bf16 else "fp32")
    assert ("OpenVINO is installed" in choice.why) == installed and ("has no bf16" in choice.why) != bf16


def test_auto_on_a_gpu_is_pytorch(machine):
    machine(installed=True, bf16=True)
    choice = choose("auto", "auto", "cuda")
    assert (choice.backend, choice.precision, choice.device) == ("torch", "bf16", "cuda")
    assert choose("openvino", "fp32", "cuda").device == CPU


def test_what_was_asked_for_is_done_or_told(machine, monkeypatch):
    machine(installed=False, bf16=False)
    choice = choose("torch", "bf16", CPU)
    assert (choice.precision, choice.why) == ("fp32", "bf16 was asked for, but this processor has no bf16 arithmetic")
    assert choose("torch", "fp32", CPU).why == "as configured"
    with pytest.raises(UserError, match=r"^model\.backend: expected OpenVINO to be installed"):
        choose("openvino", "auto", CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"^model\.backend: expected a C\+\+ compiler"):
        choose("torch-compile", "auto", CPU)
    machine(installed=True, bf16=True)
    assert choose("openvino", "bf16", CPU).precision == "bf16"


def test_bf16_is_chosen_by_what_the_processor_says(monkeypatch):
    for found, expected in (
        ({}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"amx_bf16": False}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert serving.backends.has_bf16("torch", CPU) == expected


CHOICES = [
    pytest.param("torch", "fp32", id="torch-fp32"),
    pytest.param("torch", "bf16", id="torch-bf16"),
    pytest.param("torch-compile", "fp32", id="compile-fp32", marks=compiler),
    pytest.param("openvino", "fp32", id="openvino-fp32", marks=openvino),
    pytest.param("openvino", "bf16", id="openvino-bf16", marks=openvino),
]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """One of the README's pictures: real texture, dark and bright."""
    return np.ascontiguousarray(read_rgb8(REPO_ROOT / "docs/photos/seeding.jpg")[200:320, 450:590])


@pytest.mark.parametrize(("backend", "precision"), CHOICES)
@pytest.mark.parametrize(("tile_size", "mean"), [(None, 0.14), (64, 0.14), (64, 0.06)])  # just lit enough for bf16; not
def test_results_are_within_50_db_of_whole_frame_fp32(photo, monkeypatch, backend, precision, tile_size, mean):
    photo = (photo * (mean * 255 / photo.mean())).round().astype(np.uint8)
    expected = Enhancer(device="cpu", precision="fp32", backend="torch").enhance(photo)[0]
    monkeypatch.setattr(
        serving.backends, "has_bf16", lambda backend, device: True
    )  # emulated where the processor lacks it
    enhancer = Enhancer(device="cpu", precision=precision, backend=backend, tile_size=tile_size)
    result = enhancer.enhance(photo)[0]
    assert (enhancer.choice.backend, enhancer.choice.precision) == (backend, precision)
    assert np.abs(expected.astype(int) - photo).mean() > 5  # there is something to agree on
    mse = np.mean((result.astype(float) - expected) ** 2)
    assert mse < 255**2 / 10**5, f"{10 * np.log10(255**2 / mse):.1f} dB"


@openvino
@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
def test_openvino_in_tiles_equals_the_whole_frame(padding_mode, monkeypatch):
    unet = network(padding_mode)
    converted = OpenVinoNetwork(lambda: unet, "fp32")
    for size in ((90, 40), (1, 60), (60, 1), (2, 1), (1, 1), (35, 36), (2, 2)):
        images = noise_tensor(*size)
        with torch.inference_mode():
            whole = unet(images)
        assert difference(torch.from_numpy(converted.whole(images)), whole) < 1e-4
        for tile_size, batch, kept in ((1000, 1, 0), (41, 1, 10**9), (23, 3, 0)):
            monkeypatch.setattr(serving.tiles, "KEPT", kept)
            assert difference(put_together(converted, images, tile_size, batch), whole) < 1e-5, (size, tile_size, batch)


def imported(code: str, cwd=REPO_ROOT) -> set[str]:
    """The packages that a process of this code has imported at its end."""
    code = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_openvino_is_not_imported_unless_chosen():
    found = imported(
        "from serving.enhancer import Enhancer; import numpy as np\n"
        "enhancer = Enhancer('pretrained_models/rave.safetensors', device='cpu', backend='torch')\n"
        "enhancer.enhance(np.zeros((2, 2, 3), np.uint8))"
    )
    assert "torch" in found
    assert not found & {"openvino", "accelerate", "open_clip", "skimage", "torchvision", "lpips"}


@openvino
def test_with_openvino_pytorch_is_imported_once_for_each_weights(tmp_path, monkeypatch):
    """The first run compiles and keeps the network; the next needs no PyTorch, whose import takes longer than it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = (
        "from serving import Enhancer; import numpy as np\n"
        "photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)\n"
        f"enhancer = Enhancer(backend='openvino'); np.save({str(tmp_path / 'result.npy')!r}, enhancer(photo, 0.5))"
    )
    assert "torch" in imported(run)
    first = np.load(tmp_path / "result.npy")
    assert not imported(run) & {"torch", "accelerate", "torchvision", "skimage", "safetensors"}
    assert np.array_equal(np.load(tmp_path / "result.npy"), first)
    (file,) = (tmp_path / "cache/backlit/openvino").iterdir()
    file.write_bytes(file.read_bytes()[:-1000])
    assert "torch" in imported(run)
    assert np.array_equal(np.load(tmp_path / "result.npy"), first)
    assert "torch" not in imported(run)


@openvino
def test_other_weights_are_other_networks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photo = (noise(30, 20) * 255).astype(np.uint8)
    for number, padding in ((0, "reflect"), (1, "reflect"), (1, "zeros")):
        torch.manual_seed(number)
        if not (tmp_path / f"{number}").exists():
            save_tensors(IlluminationUNet(map_bias=0.5, init_std=0.1).state_dict(), tmp_path / f"{number}")
        options = {"device": "cpu", "precision": "fp32", "padding_mode": padding}
        converted, exact = (
            Enhancer(tmp_path / f"{number}", backend=backend, **options).illumination(photo)
            for backend in ("openvino", "torch")
        )
        assert np.abs(converted - exact).max() < 1e-5 * exact.max()
    assert len(list((tmp_path / "cache/backlit/openvino").iterdir())) == 3
