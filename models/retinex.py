"""The Retinex division: photo / illumination = well-lit photo. Of tensors, or of NumPy arrays without PyTorch."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Array = TypeVar("Array", "Tensor", "np.ndarray")

EPSILON = 1e-9  # of the release; keeps black parts of the map finite
LEAST = 0.05  # a network's map of an almost black photo can be near zero; on real pairs it stays above 0.08


def enhance(images: Array, illumination: Array) -> Array:
    """I_t = clamp(I_b / (M + 1e-9), 0, 1)  (CLIP-LIT, section 3.1).

    images (B,3,H,W) RGB in [0, 1]; illumination (B,1,H,W), >= 0. Returns (B,3,H,W) in [0, 1].
    """
    return divide(images, illumination).clip(0.0, 1.0)


def divide(images: Array, illumination: Array) -> Array:
    """I_b / (M + 1e-9), not yet clamped: what lies above 1 will be white. Shapes as `enhance`."""
    return images / (illumination + EPSILON)


def limited(illumination: Array) -> Array:
    """max(M, 0.05): a result is at most 20 times brighter than its photo. Any shape. Not in training.

    Without it a black sky or a lens cap, of which networks saw none in training, would come out white.
    """
    return illumination.clip(min=LEAST)


def first_illumination(images: "Tensor") -> "Tensor":
    """A map to start training from: M0 = min(1, a + s · X), X = max over RGB; a and s by m = mean of min(X, 1/2).

    X is the classical first estimate of illumination (LIME, Guo et al. 2017); cut at 1/2, a bright sky does not make
    up for a dark foreground in m. a = clamp(m, 0.08, 0.35) is what dark parts are divided by. s = 0.65 + 12 max(0, m -
    0.29) lets the map reach 1 sooner the brighter the photo, so that a dark photo is lifted as a whole and of a bright
    one only the shadows; it is at least 0.98 - a, so that hardly anything is lifted into white. Nothing is darkened.
    The constants are ours, found on validation photos (docs/experiments.md). images (B,3,H,W) RGB in [0, 1] ->
    (B,1,H,W) in [0.08, 1].
    """
    brightest = images.amax(dim=1, keepdim=True)
    mean = brightest.clamp(max=0.5).mean(dim=(2, 3), keepdim=True)
    offset = mean.clamp(0.08, 0.35)
    slope = (0.65 + 12 * (mean - 0.29).clamp(min=0)).maximum(0.98 - offset)
    return (offset + slope * brightest).clamp(max=1)
