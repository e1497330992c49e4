"""The map that training may start from."""

import numpy as np
import pytest
import torch

from models.retinex import enhance, first_illumination, limited


def photos(exposure: float = 1.0) -> torch.Tensor:
    return exposure * torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("exposure", [0.2, 0.7])
def test_values_against_the_formula_pixel_by_pixel(exposure):
    images = photos(exposure)
    illumination = first_illumination(images)
    for b, y, x in ((0, 0, 0), (1, 5, 9), (1, 11, 15)):
        brightest = max(images[b, c, y, x].item() for c in range(3))
        mean = np.minimum(images[b].numpy().max(axis=0), 0.5).mean()
        offset = min(max(mean, 0.08), 0.35)
        slope = max(0.65 + 12 * max(0.0, mean - 0.29), 0.98 - offset)
        assert illumination[b, 0, y, x].item() == pytest.approx(min(1.0, offset + slope * brightest))


@pytest.mark.parametrize("exposure", [0.01, 0.3, 1.0])
def test_nothing_is_darkened_and_a_black_photo_stays_finite(exposure):
    images = photos(exposure)
    illumination = first_illumination(images)
    assert illumination.min() >= 0.08
    assert (images / illumination >= images - 1e-9).all()


def test_a_limited_map_makes_nothing_more_than_twenty_times_brighter():
    for illumination in (torch.tensor([0.0, 0.03, 0.05, 0.4, 1.2]), np.float32([0.0, 0.03, 0.05, 0.4, 1.2])):
        assert limited(illumination).tolist() == pytest.approx([0.05, 0.05, 0.05, 0.4, 1.2])


def test_of_a_bright_photo_only_the_shadows_are_lifted():
    dark, bright = photos(0.2), photos(1.0)
    assert enhance(dark, first_illumination(dark)).mean() > 2.5 * dark.mean()
    gain = (1 / first_illumination(bright))[:, 0]
    brightest = bright.amax(dim=1)
    assert torch.all(gain[brightest > 0.5] == 1)
    assert torch.all(gain[brightest < 0.1] > 1.5)
