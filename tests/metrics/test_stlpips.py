"""ST-LPIPS: our networks against the package's own, where it is installed, and what is said where it is not."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from common.errors import UserError
from metrics.full_reference import TooSmallError
from metrics.stlpips import MIN_SIDE, MOST_PIXELS, StLpips
from metrics.stlpips_network import Blur, StLpipsNetwork, load_stlpips_network

installed = pytest.mark.skipif(
    importlib.util.find_spec("stlpips_pytorch") is None, reason="requirements-metrics.txt is not installed"
)


def pair(height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, height, width, generator=generator) * 2 - 1
    return [image, (image + 0.3 * torch.randn(image.shape, generator=generator)).clamp(-1, 1)]


@installed
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_distance_is_the_packages_own(kind, monkeypatch):
    for name, member in (("IPython", "embed"), ("torchsummary", "summary")):  # which its import asks for
        stand_in = ModuleType(name)
        setattr(stand_in, member, None)
        monkeypatch.setitem(sys.modules, name, stand_in)
    from stlpips_pytorch.stlpips import LPIPS

    theirs, ours = LPIPS(net=kind, variant="shift_tolerant", verbose=False), load_stlpips_network(kind)
    with torch.no_grad():
        for size in ((70, 90), (64, 64), (33, 47)):
            assert ours(*pair(*size)).item() == pytest.approx(theirs(*pair(*size)).item(), rel=1e-4)


def test_blur_is_the_binomial_filter_on_every_second_pixel():
    image = torch.rand(1, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    blurred = Blur(2)(image)
    assert blurred.shape == (1, 2, 6, 5)
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    # borders are two pixels wide, so output (1, 2) looks at rows 0 to 2 and columns 2 to 4
    assert torch.isclose(blurred[0, 1, 1, 2], (image[0, 1, 0:3, 2:5] * torch.outer(line, line)).sum())


@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_equal_images_are_at_zero_and_the_smallest_size_works(kind):
    torch.manual_seed(0)
    network = StLpipsNetwork(kind).eval()
    one, other = pair(MIN_SIDE[kind], MIN_SIDE[kind])
    with torch.no_grad():
        assert network(one, one).item() == 0 != network(one, other).item()
        with pytest.raises(RuntimeError):
            network(one[..., 1:, :], other[..., 1:, :])


@installed
def test_small_images_are_refused():
    metric = StLpips("alex")
    with pytest.raises(TooSmallError, match="at least 21 px"):
        metric(np.zeros((20, 30, 3)), np.ones((20, 30, 3)))


@installed
@pytest.mark.slow
def test_large_images_are_shrunk():
    metric, side = StLpips("alex"), int(MOST_PIXELS**0.5) + 200
    image = np.zeros((side, side, 3), np.uint8)
    assert metric(image, image) == 0


def test_what_is_said_without_the_package(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "stlpips_pytorch", raising=False)
    importlib.invalidate_caches()
    assert "pip install stlpips-pytorch==0.0.2" in StLpips("auto").reason
    with pytest.raises(UserError, match=r"metrics\.stlpips: its weights come with the package"):
        _ = StLpips("vgg").reason
    assert StLpips("off").reason == "switched off (metrics.stlpips=off)"
