"""Maps at reduced size, brought up along the edges of the photo."""

import pytest
import torch
import torch.nn.functional as F

from models.guided import coefficients, guided, luma, reduced
from tests.serving.helpers import map_at_scale, noise_tensor


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (16, 12), (37, 50)])
@pytest.mark.parametrize("scale", [2, 4])
def test_a_constant_map_stays_constant(size, scale):
    result = map_at_scale(lambda images: torch.full_like(images[:, :1], 0.3), noise_tensor(*size), scale)
    assert result.shape == (1, 1, *size)
    assert (result - 0.3).abs().max() < 1e-5


@pytest.mark.parametrize("scale", [2, 4])
def test_the_edge_of_the_photo_is_the_edge_of_the_map(scale):
    """A map that is a line over luma comes back sharp, though its edge lies within a reduced pixel."""
    images = torch.full((1, 3, 40, 40), 0.2)
    images[..., 19:] = 0.9

    def line(photo):
        return 0.1 + 0.8 * luma(photo)

    result = map_at_scale(line, images, scale)
    blurred = F.interpolate(line(reduced(images, scale)), (40, 40), mode="bilinear")
    jump = line(images)[0, 0, 0].diff().max()
    assert result[0, 0, 0, 19] - result[0, 0, 0, 18] > 0.9 * jump > 1.8 * blurred[0, 0, 0].diff().max()
    assert (result - line(images)).abs().mean() < 0.3 * (blurred - line(images)).abs().mean()


def test_reduced_pixels_are_means_of_what_is_there():
    images = noise_tensor(7, 10)
    small = reduced(images, 4)
    assert small.shape == (1, 3, 2, 3)
    assert torch.allclose(small[0, :, 1, 2], images[0, :, 4:7, 8:10].mean(dim=(1, 2)), atol=1e-6)
    assert torch.allclose(small[0, :, 0, 1], images[0, :, :4, 4:8].mean(dim=(1, 2)), atol=1e-6)


def test_coefficients_are_those_of_the_papers_windows():
    """Against the definition, window by window: least squares with the ridge of equation 4, then equation 8."""
    guide, illumination = luma(noise_tensor(6, 7)), noise_tensor(6, 7)[:, :1] ** 2
    lines = torch.zeros(2, 6, 7)
    windows = {(y, x): (slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)) for y in range(6) for x in range(7)}
    for at, window in windows.items():
        i, p = guide[0, 0][window].flatten().double(), illumination[0, 0][window].flatten().double()
        a = ((i * p).mean() - i.mean() * p.mean()) / (i.var(unbiased=False) + 0.01)
        lines[:, *at] = torch.stack([a, p.mean() - a * i.mean()])
    expected = torch.stack([lines[:, *window].mean(dim=(1, 2)) for window in windows.values()], dim=1).reshape(2, 6, 7)
    assert (coefficients(guide, illumination, radius=1, epsilon=0.01)[0] - expected).abs().max() < 1e-4


def test_parts_of_a_photo_are_those_of_the_whole():
    images = noise_tensor(23, 17)
    ab = coefficients(luma(reduced(images, 4)), luma(reduced(images, 4)) ** 2)
    whole = guided(ab, luma(images), 4)
    parts = [guided(ab, luma(images[:, :, top : top + 5]), 4, top) for top in range(0, 23, 5)]
    assert torch.equal(torch.cat(parts, dim=2), whole)


def test_maps_are_not_negative_and_pass_gradients_on():
    images = noise_tensor(16, 16).requires_grad_()
    result = map_at_scale(lambda small: (luma(small) - 0.5).clamp(min=0), images, 2)
    assert result.min() >= 0
    result.sum().backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0
