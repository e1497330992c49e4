"""The supervised loss, against scikit-image and by its properties."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as reference

from losses.pixel import pixel_loss, structural_similarity, white_loss


def photos(seed: int, batch: int = 2, size: int = 24) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_structural_similarity_is_that_of_scikit_image():
    a = photos(0)
    b = (0.7 * a + 0.3 * photos(1)).clamp(0, 1)
    options = {
        "data_range": 1,
        "channel_axis": 0,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    expected = [reference(np.asarray(x), np.asarray(y), **options) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(structural_similarity(a, b), expected, atol=1e-5)


def test_a_perfect_result_costs_nothing_and_white_may_be_overshot():
    truth = photos(2)
    assert pixel_loss(truth, truth) == pytest.approx(0, abs=1e-6)
    white = torch.ones(1, 3, 12, 12)
    assert pixel_loss(white * 1.5, white) == pytest.approx(0, abs=1e-6)


def test_what_was_lifted_into_white_has_a_gradient_back():
    result = torch.full((1, 3, 12, 12), 1.2, requires_grad=True)
    pixel_loss(result, torch.full((1, 3, 12, 12), 0.9)).backward()
    assert (result.grad > 0).all()


def test_what_becomes_white_costs_extra_where_the_truth_is_not():
    truth = torch.full((1, 3, 12, 12), 0.9)
    truth[..., 6:] = 1.0
    half = (1.06 - 0.96) / 2  # of the pixels, beyond 0.96
    assert white_loss(truth + 0.16, truth) == pytest.approx(half, abs=1e-6)
    assert white_loss(truth, truth) == 0


def test_without_a_truth_what_becomes_white_is_measured_against_the_photo():
    photo = torch.full((1, 3, 4, 4), 0.2)
    photo[..., 2:] = 1.0  # white already: may stay white, however far it is lifted
    assert white_loss(photo / 0.2, photo) == pytest.approx((1.0 - 0.96) / 2, abs=1e-6)
    assert white_loss(photo / 0.1, photo) == pytest.approx((2.0 - 0.96) / 2, abs=1e-6)
    assert white_loss(photo, photo) == 0


@pytest.mark.parametrize("error", ["absolute", "psnr"])
def test_gradient_is_that_of_finite_differences(error):
    truth = photos(3, 1, 12).double()
    result = (truth * 1.1 + 0.02).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: pixel_loss(r, truth, 0.3, error), result, atol=1e-6, fast_mode=True)


def test_the_error_of_each_photo_by_itself_falls_as_its_psnr_rises():
    truth = photos(4, 2) * 0.4 + 0.2
    result = truth + torch.tensor([0.1, 0.2]).view(2, 1, 1, 1)
    psnr = torch.tensor([20 - 20 * math.log10(factor) for factor in (1, 2)])
    nearly = torch.log(10 ** (-psnr / 10) / 1e-3).mean() / 20  # without the 1 of ln(1 + ...), so a little less
    assert float(nearly) < float(pixel_loss(result, truth, 0.0, "psnr")) < float(nearly) + 0.1 / 20
    assert pixel_loss(truth, truth, 0.3, "psnr") == pytest.approx(0, abs=1e-6)


def test_of_several_truths_for_one_photo_absolute_error_takes_the_median_and_error_by_photo_the_most_frequent():
    truth = torch.tensor([0.3, 0.3, 0.5, 0.7, 0.8]).view(5, 1, 1, 1).expand(5, 3, 12, 12)
    guesses = torch.linspace(0.2, 0.9, 71)

    def best(error: str) -> float:
        losses = [float(pixel_loss(torch.full_like(truth, float(guess)), truth, 0.0, error)) for guess in guesses]
        return float(guesses[np.argmin(losses)])

    assert best("absolute") == pytest.approx(0.5, abs=0.011)
    assert best("psnr") == pytest.approx(0.3, abs=0.021)


def test_an_unknown_error_is_refused():
    with pytest.raises(ValueError, match="'absolute' or 'psnr'"):
        pixel_loss(photos(0), photos(1), error="squared")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        pixel_loss(photos(0), photos(0, size=23))
    with pytest.raises(ValueError, match="at least 11"):
        pixel_loss(photos(0, size=10), photos(1, size=10))
