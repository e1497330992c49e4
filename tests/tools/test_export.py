"""Exported networks agree with PyTorch at any size, and say what they take."""

import json
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.paths import REPO_ROOT
from models.checkpoints import save_tensors
from models.retinex import enhance
from models.unet import IlluminationUNet
from serving import Enhancer
from tests.serving.helpers import network, noise
from tools.export import main

SIZES = [(1, 40, 61), (2, 33, 2), (3, 7, 128)]
needs_onnx = pytest.mark.skipif(
    None in (util.find_spec("onnx"), util.find_spec("onnxruntime")), reason="requirements-export.txt is not installed"
)
needs_openvino = pytest.mark.skipif(util.find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def unet(tmp_path_factory) -> tuple[IlluminationUNet, str]:
    unet = network("reflect")
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_tensors(unet.state_dict(), path, {"source": "random"})
    return unet, str(path)


def run_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    return facts, lambda image: session.run(["illumination", "enhanced"], {"image": image})


def run_openvino(path):
    import openvino

    model = openvino.Core().read_model(path)
    facts = model.get_rt_info(["enhancement"])
    facts = getattr(facts, "value", facts)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def outputs(image):
        found = compiled({"image": image})
        return found["illumination"], found["enhanced"]

    return facts, outputs


def run_torchscript(path):
    facts = {"metadata.json": ""}
    module = torch.jit.load(path, _extra_files=facts)
    return json.loads(facts["metadata.json"]), lambda image: [t.numpy() for t in module(torch.from_numpy(image))]


@pytest.mark.parametrize(
    ("fmt", "name", "load"),
    [
        pytest.param("onnx", "net.onnx", run_onnx, marks=needs_onnx),
        pytest.param("openvino", "net.xml", run_openvino, marks=needs_openvino),
        ("torchscript", "net.pt", run_torchscript),
    ],
)
def test_an_exported_network_agrees_with_pytorch(unet, tmp_path, fmt, name, load):
    unet, weights = unet
    assert main(["--format", fmt, "--output", str(tmp_path / name), "--checkpoint", weights]) == 0
    facts, outputs = load(str(tmp_path / name))
    assert "RGB in [0, 1]" in facts["input"] and "MIT" in facts["licence"] and len(facts["weights_sha256"]) == 64
    assert not list(tmp_path.glob(".*"))
    for batch, height, width in SIZES:
        image = np.stack([noise(height, width).transpose(2, 0, 1) * (n + 1) / batch for n in range(batch)])
        with torch.inference_mode():
            illumination = unet(torch.from_numpy(image))
            expected = illumination, enhance(torch.from_numpy(image), illumination)
        for found, wanted in zip(outputs(image), expected, strict=True):
            assert found.shape == wanted.shape and np.abs(found - wanted.numpy()).max() < 1e-4


@needs_onnx
def test_the_example_needs_no_pytorch(tmp_path):
    network, photo, result = (str(tmp_path / name) for name in ("net.onnx", "a.png", "b.png"))
    main(["--format", "onnx", "--output", network])
    pixels = (noise(20, 31) * 90).astype(np.uint8)
    Image.fromarray(pixels).save(photo)
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "assert 'torch' not in sys.modules"
    example = str(REPO_ROOT / "examples" / "onnx_without_pytorch.py")
    done = subprocess.run(
        [sys.executable, "-c", code, example, network, photo, result], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "illumination from" in done.stdout, done.stderr
    expected = Enhancer(device="cpu", precision="fp32", backend="torch")(pixels)
    assert np.abs(np.asarray(Image.open(result)).astype(int) - expected).max() <= 1


def test_a_wrong_name_is_told(tmp_path):
    with pytest.raises(UserError, match=r"--output: expected a name that ends in \.onnx for onnx, found .*net\.pt"):
        main(["--format", "onnx", "--output", str(tmp_path / "net.pt")])


@pytest.mark.parametrize(
    ("fmt", "name", "other"),
    [
        ("torchscript", "net.pt", "net.pt"),
        pytest.param("onnx", "net.onnx", "net.onnx", marks=needs_onnx),
        pytest.param("openvino", "net.xml", "net.bin", marks=needs_openvino),
    ],
)
def test_only_its_own_files_are_replaced(unet, tmp_path, fmt, name, other):
    command = ["--format", fmt, "--checkpoint", unet[1], "--output", str(tmp_path / name)]
    (tmp_path / other).write_bytes(Path(unet[1]).read_bytes())
    with pytest.raises(UserError, match=f"--output: expected a new name .*{other}"):
        main(command)
    assert (tmp_path / other).read_bytes() == Path(unet[1]).read_bytes()
    (tmp_path / other).unlink()
    for _ in range(2):
        assert main(command) == 0
