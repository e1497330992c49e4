"""The benchmark: its plain way is the network, and its figures are written."""

import json
from itertools import islice

import pytest
import torch

from lab.bench import inference, layers, training
from lab.bench.__main__ import main
from lab.bench.plain import plain
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


@pytest.mark.slow
def test_figures_are_written_and_other_cases_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "FRAMES", {"0.5": (20, 30)})
    monkeypatch.setattr(inference, "RUNS", {"folder": (6, 7)})
    monkeypatch.setattr(inference, "FOLDER", 2)
    path = tmp_path / "results.json"
    path.write_text('{"training": 1}')
    for case in ("0.5", "folder"):
        assert main(["--cases", case, "--repeats", "2", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    assert results["training"] == 1 and list(results["inference"]) == ["0.5", "folder"]
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
    monkeypatch.setattr(training, "ENCODERS", ("mini-clip", "mini-rn"))
    monkeypatch.setattr(training, "FOLDER", {"guidance": 4, "scaling": 4})
    monkeypatch.setattr(training, "TRAINING_STEPS", 3)
    path = tmp_path / "results.json"
    assert main(["--cases", "guidance", "scaling", "--repeats", "1", "--json", str(path)]) == 0
    cases = json.loads(path.read_text())["training"]
    assert cases["guidance"]["rows"]["batched"]["loss_agreement"] < 1e-3
    assert cases["guidance"]["rows"]["cached"]["ratio"] > 1
    rows = cases["scaling"]["rows"]
    assert rows["inference, 2 processes"]["equal"] == "yes, every byte"
    assert rows["training, 2 processes"]["equal"] == "yes, up to rounding"
