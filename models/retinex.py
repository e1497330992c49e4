"""The Retinex division: photo / illumination = well-lit photo."""

from torch import Tensor

EPSILON = 1e-9  # of the release; keeps black parts of the map finite


def enhance(images: Tensor, illumination: Tensor) -> Tensor:
    """I_t = clamp(I_b / (M + 1e-9), 0, 1)  (CLIP-LIT, section 3.1).

    images (B,3,H,W) RGB in [0, 1]; illumination (B,1,H,W), >= 0. Returns (B,3,H,W) in [0, 1].
    """
    return (images / (illumination + EPSILON)).clamp(0.0, 1.0)


def first_illumination(images: Tensor) -> Tensor:
    """A map to start training from: M0 = min(1, a + s · X), X = max over RGB, a and s by the photo's mean m of X.

    X is the classical first estimate of illumination (LIME, Guo et al. 2017). a = clamp(0.9 m, 0.08, 0.35) is what dark parts
    are divided by. s = 0.65 + 4 max(0, m - 0.25) lets the map reach 1 sooner the brighter the photo, so that a dark photo is
    lifted as a whole and of a bright one only the shadows; it is at least 0.98 - a, so that hardly anything is lifted into
    white. Nothing is darkened. The constants are ours, found on validation photos (docs/experiments.md).
    images (B,3,H,W) RGB in [0, 1] -> (B,1,H,W) in [0.08, 1].
    """
    brightest = images.amax(dim=1, keepdim=True)
    mean = brightest.mean(dim=(2, 3), keepdim=True)
    offset = (0.9 * mean).clamp(0.08, 0.35)
    slope = (0.65 + 4 * (mean - 0.25).clamp(min=0)).maximum(0.98 - offset)
    return (offset + slope * brightest).clamp(max=1)
