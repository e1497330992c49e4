"""The Retinex division: photo / illumination = well-lit photo."""

from torch import Tensor

EPSILON = 1e-9  # of the release; keeps black parts of the map finite


def enhance(images: Tensor, illumination: Tensor) -> Tensor:
    """I_t = clamp(I_b / (M + 1e-9), 0, 1)  (CLIP-LIT, section 3.1).

    images (B,3,H,W) RGB in [0, 1]; illumination (B,1,H,W), >= 0. Returns (B,3,H,W) in [0, 1].
    """
    return (images / (illumination + EPSILON)).clamp(0.0, 1.0)
