"""The benchmark: its plain way is the network, and its figures are written."""

import json
import subprocess
import sys
from itertools import islice

import pytest
import torch

from common.paths import REPO_ROOT
from lab.bench import folders, inference, layers, targets, training
from lab.bench.__main__ import main
from lab.bench.plain import plain
from lab.bench.table import growth
from tests.serving.helpers import difference, network, noise_tensor


@pytest.mark.parametrize("size", [(12, 9), (40, 31)])
@pytest.mark.parametrize(("padding_mode", "padding"), [("reflect", "reflect"), ("zeros", "constant")])
def test_the_plain_way_is_the_network(size, padding_mode, padding):
    unet, images = network(padding_mode), noise_tensor(*size)
    with torch.no_grad():
        assert difference(plain(unet.state_dict(), images, padding), unet(images)) < 1e-5


@pytest.mark.parametrize(
    "encoders", [("mini-clip", "mini-rn"), ("mini-rn", "mini-rn")], ids=["two encoders", "one for both"]
)
def test_training_follows_the_curve_of_the_plain_way(encoders):
    config = training.step_config(32, 2, encoders, ["train.device=cpu", "unet_model.lr=3e-4"])
    fast, slow = (list(islice(steps(config), 5)) for steps in (training.fast_steps, training.authors_steps))
    assert training.agreement(slow, fast) < 1e-3
    assert len(set(fast)) == 5


def test_operations_of_a_step_are_told_apart_and_counted():
    image, weight = torch.randn(1, 3, 8, 8), torch.randn(5, 3, 3, 3, requires_grad=True)
    matrix = torch.randn(6, 7)

    def work():
        torch.nn.functional.conv2d(image, weight, padding=1).sum().backward()
        torch.nn.functional.conv2d(image[..., :4, :4], weight)
        matrix @ matrix.T

    seconds, flops = layers.operations(work, 8)
    once = 2 * 8 * 8 * 3 * 5 * 9
    assert flops == {
        "UNet, convolution 3 → 5, forward": once,
        "UNet, convolution 3 → 5, backward": once,  # of the weights alone: the image asks for no gradient
        "encoders, convolutions of 3 × 3, forward": once * 4 // 64,
        "encoders, matrix products and attention": 2 * 6 * 6 * 7,
    }
    assert flops.keys() < seconds.keys() and min(seconds.values()) > 0


def test_memory_is_that_of_the_child_alone():
    lines = ["import json, numpy", "from lab.bench.clock import timed", "held = numpy.ones(50_000_000)"]  # 400 MB
    holds = "; ".join([*lines, "print(json.dumps(timed(['-c', ''])))"])
    found = subprocess.run([sys.executable, "-c", holds], capture_output=True, text=True, cwd=REPO_ROOT, check=True)
    assert 1 < json.loads(found.stdout)["peak_mb"] < 100


def test_a_slope_stands_only_where_there_is_a_line():
    points = {"1": (1.0, 100), "2": (2.0, 300), "3": (3.0, 100)}
    rows = {number: {"median": seconds, "peak_mb": memory} for number, (seconds, memory) in points.items()}
    assert "| 1 s (1.000) | no line (0.00) |" in growth({"photos": {"rows": rows}}, lambda cases: "here")
    rows = {str(n): {"median": 2.0 * n, "peak_mb": 7.0 * n} for n in (4, 12, 24)} | {"200": {"median": 9, "peak_mb": 9}}
    assert "| 2 s (1.000), from 4 to 24 | 7 MB (1.000) |" in growth(
        {"megapixels": {"rows": rows}}, lambda cases: "here"
    )


def test_targets_stand_beside_what_the_arithmetic_allows():
    rows = {
        "baseline": {"median": 4.0},
        "openvino": {"median": 0.5, "ratio": 8.0, "psnr": 53.0, "choice": "cpu, bf16, openvino 1"},
        "torch": {"same_as": "openvino", "choice": "cpu, bf16, torch 1"},
    }
    case = {"megapixels": 0.5, "limit_tflops": {"bf16": 2 * 278_752 * 0.5e6 / 0.25 / 1e12}, "rows": rows}  # 0.25 s
    table = targets.targets({"inference": {"png0.5": case}}, lambda cases: "X, commit a")
    assert "| photo of a folder, 0.5 megapixels, OpenVINO | 10× | 8.0× | 16.0× |" in table
    assert "| photo of a folder, 0.5 megapixels, PyTorch | 5× | 8.0× | 16.0× |" in table
    assert targets.targets({}, lambda cases: "") == "Not measured yet."


@pytest.mark.slow
def test_figures_are_written_and_other_cases_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "FRAMES", {"0.5": (20, 30)})
    monkeypatch.setattr(inference, "RUNS", {"folder": (6, 7)})
    monkeypatch.setattr(inference, "FOLDER", 2)
    monkeypatch.setattr(inference, "PNGS", {"png0.5": (20, 30)})
    path = tmp_path / "results.json"
    path.write_text('{"training": 1}')
    for case in ("0.5", "folder", "png0.5"):
        assert main(["--cases", case, "--repeats", "2", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    assert results["training"] == 1 and list(results["inference"]) == ["0.5", "folder", "png0.5"]
    for case in results["inference"].values():
        rows = case["rows"]
        assert rows["baseline"]["median"] > 0 and rows["fp32"]["ratio"] > 0 and rows["fp32"]["peak_mb"] > 100
        assert case["commit"] and case["versions"]["torch"]
    assert (
        results["inference"]["0.5"]["rows"]["fp32"]["psnr"] is None
        or results["inference"]["0.5"]["rows"]["fp32"]["psnr"] > 60
    )


@pytest.mark.slow
def test_training_cases_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "ENCODERS", ("mini-clip", "mini-rn"))
    monkeypatch.setattr(folders, "FOLDER", {"guidance": 4, "scaling": 4})
    monkeypatch.setattr(folders, "TRAINING_STEPS", 3)
    path = tmp_path / "results.json"
    assert main(["--cases", "guidance", "scaling", "--repeats", "1", "--json", str(path)]) == 0
    cases = json.loads(path.read_text())["training"]
    assert cases["guidance"]["rows"]["batched"]["loss_agreement"] < 1e-3
    assert cases["guidance"]["rows"]["cached"]["ratio"] > 1
    rows = cases["scaling"]["rows"]
    assert rows["inference, 2 processes"]["equal"] == "yes, every byte"
    assert rows["training, 2 processes"]["equal"] == "yes, up to rounding"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "expected FILE COMMAND ..., found 0 arguments"), (["{}/out", "{}/nix"], "expected the path of a program")],
)
def test_what_is_missing_to_measure_a_command_is_told(tmp_path, arguments, said):
    command = [sys.executable, "lab/bench/peak.py", *(argument.format(tmp_path) for argument in arguments)]
    done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1
