"""The benchmark: its plain way is the network, and its figures are written."""

import json

import pytest
import torch

import tools.benchmark
from tests.serving.helpers import difference, network, noise_tensor
from tools.benchmark import main, plain


@pytest.mark.parametrize("size", [(12, 9), (40, 31)])
def test_the_plain_way_is_the_network(size):
    unet, images = network("reflect"), noise_tensor(*size)
    with torch.no_grad():
        assert difference(plain(unet.state_dict(), images), unet(images)) < 1e-5


@pytest.mark.slow
def test_figures_are_written_and_other_cases_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tools.benchmark, "FRAMES", {"0.5": (20, 30)})
    monkeypatch.setattr(tools.benchmark, "RUNS", {"folder": (6, 7)})
    monkeypatch.setattr(tools.benchmark, "FOLDER", 2)
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
    assert results["inference"]["0.5"]["rows"]["fp32"]["psnr"] is None or results["inference"]["0.5"]["rows"]["fp32"]["psnr"] > 60
