"""PSNR, SSIM and LPIPS against formulas written out by hand, direct library calls and a network that only looks."""

import math
import pickle
import re
import time
from pathlib import Path
from socket import gaierror
from urllib.error import URLError

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn.functional import interpolate

from common.errors import UserError
from metrics import full_reference
from metrics.full_reference import Lpips, MetricError, paper_grey, psnr_paper, psnr_rgb, ssim_paper, ssim_rgb


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture and a disturbed copy, uint8, 40 x 56."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:56]
    truth = np.stack([4 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8)
    return np.clip(truth + generator.normal(0, 12, truth.shape), 0, 255).astype(np.uint8), truth


def test_psnr_rgb_is_the_formula(pair):
    result, truth = pair
    mse = np.mean((result.astype(float) - truth.astype(float)) ** 2)
    assert psnr_rgb(result, truth) == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-9)


def test_ssim_rgb_is_the_pinned_library_call(pair):
    result, truth = pair
    options = {"channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert ssim_rgb(result, truth) == pytest.approx(
        structural_similarity(result, truth, data_range=255, **options), abs=1e-9
    )
    assert ssim_rgb(result, truth) < 0.99


@pytest.mark.parametrize(("psnr", "ssim"), [(psnr_rgb, ssim_rgb), (psnr_paper, ssim_paper)])
def test_identical_images_and_both_number_formats(pair, psnr, ssim):
    result, truth = pair
    assert psnr(truth, truth) == full_reference.PSNR_CAP
    assert ssim(truth, truth) == pytest.approx(1)
    floats = (result / np.float32(255), truth / np.float32(255))
    assert psnr(*floats) == pytest.approx(psnr(result, truth), abs=1e-4)
    assert ssim(*floats) == pytest.approx(ssim(result, truth), abs=1e-6)


def test_brightness_is_not_matched():
    dark, bright = np.full((16, 16, 3), 50, np.uint8), np.full((16, 16, 3), 100, np.uint8)
    assert psnr_rgb(dark, bright) == pytest.approx(20 * math.log10(255 / 50), abs=1e-9)


def test_paper_protocol_by_hand(pair):
    result, truth = pair
    greys = []
    for image in (result, truth):
        weighted = [[int(0.114 * r + 0.587 * g + 0.299 * b + 0.5) for r, g, b in row] for row in image.tolist()]
        greys.append(np.array(weighted, dtype=np.uint8))
    grey, true_grey = greys
    np.testing.assert_array_equal(paper_grey(result), grey)
    spread = int(grey.max()) - int(grey.min())
    mse = np.mean((grey.astype(float) - true_grey.astype(float)) ** 2)
    assert psnr_paper(result, truth) == pytest.approx(10 * math.log10(spread**2 / mse), abs=1e-9)

    # SSIM with a 7 x 7 square window, sample covariance, mean over the windows that fit
    windows = [
        np.lib.stride_tricks.sliding_window_view(g.astype(float), (7, 7)).reshape(-1, 49) for g in (grey, true_grey)
    ]
    (mean_a, mean_b), (var_a, var_b) = ([w.mean(1) for w in windows], [w.var(1, ddof=1) for w in windows])
    covariance = ((windows[0] - mean_a[:, None]) * (windows[1] - mean_b[:, None])).sum(1) / 48
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    ssim = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    assert ssim_paper(result, truth) == pytest.approx(ssim.mean(), abs=1e-9)


def test_paper_grey_has_red_and_blue_swapped():
    red, green, blue = (np.full((1, 1, 3), 0, np.uint8) for _ in range(3))
    red[..., 0], green[..., 1], blue[..., 2] = 255, 255, 255
    assert [int(paper_grey(c)[0, 0]) for c in (red, green, blue)] == [29, 150, 76]  # 601 proper: 76, 150, 29


def test_what_cannot_be_compared_says_so(pair):
    result, truth = pair
    for metric in (psnr_rgb, ssim_rgb, psnr_paper, ssim_paper, Lpips(network=lambda a, b: 0).rgb):
        with pytest.raises(MetricError, match=r"expected 40 x 56 px \(H x W\) as the ground truth, found 39 x 56"):
            metric(result[1:], truth)
    with pytest.raises(MetricError, match=r"flat \(grey 7 everywhere"):
        psnr_paper(np.full_like(truth, 7), truth)
    with pytest.raises(MetricError, match="at least 11 px a side, found 10 x 56"):
        ssim_rgb(result[:10], truth[:10])
    with pytest.raises(ValueError, match="floats in"):
        psnr_rgb(result.astype(np.float32), truth)


class _Witness:
    """Stands in for the LPIPS network: keeps what it is given."""

    def __call__(self, result, truth):
        self.result, self.truth = result, truth
        return (result - truth).abs().mean().reshape(1, 1, 1, 1)


def test_lpips_rgb_input_is_native_size_in_minus_one_to_one(pair):
    result, truth = pair
    witness = _Witness()
    lpips = Lpips(network=witness)
    assert lpips.reason is None
    expected = np.abs(result.astype(float) - truth.astype(float)).mean() * 2 / 255
    assert lpips.rgb(result, truth) == pytest.approx(expected, abs=1e-6)
    assert witness.truth.shape == (1, 3, 40, 56) and witness.truth.dtype == torch.float32
    np.testing.assert_allclose(witness.result[0].permute(1, 2, 0), result / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(witness.truth[0].permute(1, 2, 0), truth / 127.5 - 1, atol=1e-6)


def test_lpips_paper_input_is_resized_and_normalised(pair):
    result, truth = pair
    witness = _Witness()
    assert Lpips(network=witness).paper(result, truth) > 0
    assert witness.result.shape == (1, 3, 1024, 1024 * 56 // 40)
    planes = torch.from_numpy(truth / 255).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = (interpolate(planes, (1024, 1433), mode="bilinear", antialias=True) - mean) / std
    torch.testing.assert_close(witness.truth, expected, atol=1e-4, rtol=0)


def _no_network(*_, **__):
    raise URLError(gaierror(-2, "Name or service not known"))


def test_lpips_without_weights(pair, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", _no_network)
    start = time.monotonic()
    lpips = Lpips("auto")
    assert lpips.rgb(*pair) is None and lpips.paper(*pair) is None
    folder = tmp_path / "hub" / "checkpoints"
    todo = f"download {full_reference.ALEXNET_URL} on a machine with network and put the file into {folder}"
    why = f"AlexNet weights could not be fetched (Name or service not known); {todo}"
    assert lpips.reason == f"not available: {why}"
    with pytest.raises(UserError, match=f"^{re.escape(f'metrics.lpips=on: {why}, or do without: --lpips off')}$"):
        Lpips("on").rgb(*pair)
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_lpips_off_never_looks(pair, monkeypatch):
    monkeypatch.setattr(full_reference, "load_lpips_network", lambda: pytest.fail("looked"))
    lpips = Lpips("off")
    assert lpips.rgb(*pair) is None and lpips.reason == "switched off (metrics.lpips=off)"


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_lpips_never_executes_a_pickle(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir(parents=True)
    for save in (
        lambda: torch.save(_Touch(tmp_path / "hit"), file),
        lambda: file.write_bytes(pickle.dumps(_Touch(tmp_path / "hit"))),
    ):
        save()
        assert f"{file} does not hold AlexNet's weights" in Lpips("auto").reason
        assert Lpips("auto").reason.endswith("; remove it, so that it is fetched again")
        assert not (tmp_path / "hit").exists()


def test_lpips_network_holds_alexnet(pair, monkeypatch, capfd):
    from torchvision.models import AlexNet_Weights, alexnet

    assert AlexNet_Weights.IMAGENET1K_V1.url == full_reference.ALEXNET_URL
    torch.manual_seed(0)
    trunk = alexnet(weights=None).eval()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: trunk.state_dict())
    network = full_reference.load_lpips_network()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network.net(images).relu5, trunk.features[:12](images))
    assert network.lin0.model[1].weight.min() >= 0  # the package's calibrated weights; random ones have both signs
    assert not network.training
    assert Lpips(network=network).rgb(pair[1], pair[1]) == 0 < Lpips(network=network).rgb(*pair)
    assert capfd.readouterr() == ("", "")
