"""Supervised loss for people with pairs: the result must be the ground truth (ours; neither paper has one). And what
keeps results out of white, with or without a truth.

Shape letters: B photos, H, W pixels. Images are RGB in [0, 1], (B,3,H,W).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of the Gaussian of SSIM (Wang et al. 2004), as in `metrics.full_reference`
C1, C2 = 0.01**2, 0.03**2
BRIGHTEST = 2.0  # of an unclamped result: above it there is no gradient, or a map near zero would dominate a batch
NEAR_WHITE = 0.96  # from here on what a result has above the truth counts as lost in white
SMALL_ERROR = 1e-3  # mean squared, 30 dB: a photo's error pulls hardest here, half as hard at 19 and at 41 dB
PSNR_SCALE = 1 / 20  # brings the logarithm's gradient to that of the absolute error, where a photo has about 20 dB


def pixel_loss(unclamped: Tensor, truth: Tensor, structure: float = 0.3, error: str = "absolute") -> Tensor:
    """L_pixel = E(I_b / M, I_gt) + structure · (1 − SSIM(I_t, I_gt)), a scalar.

    error "absolute": E = mean |I_b / M − I_gt|. "psnr": E = mean over photos of ln(1 + MSE / 0.001) / 20: for large
    errors proportional to −PSNR, without a gradient where there is no error. Photos that look alike and have different
    truths bring the first to the median of the truths, the second near the most frequent one.

    unclamped (B,3,H,W): I_b / M before it is clamped to I_t: the part above 1, up to `BRIGHTEST`, is an error like any
    other, or pixels that were lifted into white would have no gradient back. Where the truth is white, it is free.
    truth (B,3,H,W). Raises ValueError where shapes differ, a side is under 11 pixels, or for another `error`.
    """
    _same_shape(unclamped, truth)
    difference = _limited(unclamped, truth) - truth
    if error == "absolute":
        distance = difference.abs().mean()
    elif error == "psnr":
        distance = PSNR_SCALE * torch.log1p(difference.square().flatten(1).mean(dim=1) / SMALL_ERROR).mean()
    else:
        raise ValueError(f"error: expected 'absolute' or 'psnr', found {error!r}")
    return distance + structure * (1 - structural_similarity(unclamped.clamp(0, 1), truth).mean())


def white_loss(unclamped: Tensor, reference: Tensor) -> Tensor:
    """W = mean max(0, I_b / M − max(I, 0.96)): what comes near white, or nearer than I.

    I is the ground truth where one is known, else the photo itself. (B,3,H,W) twice, the first before it is clamped to
    I_t -> a scalar. Raises ValueError where shapes differ.
    """
    _same_shape(unclamped, reference)
    return (_limited(unclamped, reference) - reference.clamp(min=NEAR_WHITE)).clamp(min=0).mean()


def _limited(unclamped: Tensor, reference: Tensor) -> Tensor:
    """Results cut where more light costs nothing more: at white where the reference is white, else at `BRIGHTEST`."""
    return unclamped.minimum(torch.where(reference >= 1, 1.0, BRIGHTEST))


def _same_shape(unclamped: Tensor, truth: Tensor) -> None:
    if unclamped.shape != truth.shape:
        raise ValueError(
            f"expected results and truths of one shape, found {tuple(unclamped.shape)}, {tuple(truth.shape)}"
        )


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of each photo, (B,3,H,W) twice -> (B,), differentiable;
    borders of 5 pixels are left out, as scikit-image does.

    Raises ValueError where a side is under 11 pixels.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"expected images of at least {WINDOW} x {WINDOW} pixels, found {a.shape[-1]} x {a.shape[-2]}")
    x = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    line = torch.exp(-(x**2) / (2 * SIGMA**2))
    line = line / line.sum()
    channels = a.shape[1]
    rows, columns = (line.view(1, 1, *shape).repeat(channels, 1, 1, 1) for shape in ((WINDOW, 1), (1, WINDOW)))

    def blurred(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, rows, groups=channels), columns, groups=channels)

    mean_a, mean_b = blurred(a), blurred(b)
    variance_a, variance_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * (2 * covariance + C2) / (variance_a + variance_b + C2)).flatten(1).mean(dim=1)
