"""A map at reduced size, brought up to the photo's size by a guided filter.

K. He, J. Sun, X. Tang, "Guided Image Filtering", ECCV 2010; at reduced size: K. He, J. Sun, "Fast Guided Filter",
arXiv:1505.00996. Within a small window the map is taken for a line over the photo's luma, M = a I + b. a and b are
smooth, so they are found at the reduced size, and the edges come from the photo at its full size.

Shape letters: B photos, C channels, H and W of the photo, h = ceil(H / scale) and w of the reduced one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.images.photo import LUMA

RADIUS = 1  # reduced pixels from a window's middle to its side; larger windows were further from the full map, ...
EPSILON = 1e-5  # ... and so were larger values of this, luma's variance below which a window counts as flat


def reduced(images: Tensor, scale: int) -> Tensor:
    """(B,C,H,W) -> (B,C,h,w): the means of squares of `scale` pixels a side, of what is there at the border."""
    height, width = images.shape[-2:]
    down, right = -height % scale, -width % scale
    if down or right:  # a mean over a part is the mean over it and as many repeats as complete the square
        images = torch.cat([images, _tail(images, 2, down, scale)], dim=2) if down else images
        images = torch.cat([images, _tail(images, 3, right, scale)], dim=3) if right else images
    return F.avg_pool2d(images, scale)


def _tail(images: Tensor, dim: int, missing: int, scale: int) -> Tensor:
    """The mean of the last, incomplete row of squares, as often as pixels are missing."""
    last = images.narrow(dim, images.shape[dim] - (scale - missing), scale - missing)
    return last.mean(dim=dim, keepdim=True).expand(*(missing if d == dim else -1 for d in range(4)))


def luma(images: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W), by ITU-R BT.601."""
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def coefficients(guide: Tensor, illumination: Tensor, radius: int = RADIUS, epsilon: float = EPSILON) -> Tensor:
    """Luma and map, both (B,1,h,w) -> a and b of every pixel, (B,2,h,w), so that M = a I + b; equations 5, 6 and 8."""
    centre = illumination.mean(dim=(2, 3), keepdim=True)  # without it rounding would bend a map that is constant
    p, i = illumination - centre, guide
    mean_p, mean_i, mean_ip, mean_ii = _box(torch.cat([p, i, i * p, i * i], dim=1), radius).split(1, dim=1)
    a = (mean_ip - mean_i * mean_p) / ((mean_ii - mean_i * mean_i).clamp(min=0) + epsilon)
    mean_a, mean_b = _box(torch.cat([a, mean_p - a * mean_i], dim=1), radius).split(1, dim=1)
    return torch.cat([mean_a, mean_b + centre], dim=1)


def guided(ab: Tensor, guide: Tensor, scale: int, top: int = 0) -> Tensor:
    """`coefficients` (B,2,h,w) and luma (B,1,H',W) of all rows of the photo, or of those from `top` on -> map M >= 0.

    Parts of a photo get the rows that they have in the whole.
    """
    height, width = guide.shape[-2:]
    ab = _stretched(_stretched(ab, 2, top, height, scale), 3, 0, width, scale)
    return (ab[:, :1] * guide + ab[:, 1:]).clamp(min=0)


def _box(values: Tensor, radius: int) -> Tensor:
    """Means over windows of 2 radius + 1 pixels a side, of what is there at the border."""
    return F.avg_pool2d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def _stretched(values: Tensor, dim: int, first: int, count: int, scale: int) -> Tensor:
    """Linear interpolation along one side, at pixels `first` to `first + count` of the full size."""
    position = (torch.arange(first, first + count, device=values.device, dtype=torch.float64) + 0.5) / scale - 0.5
    position = position.clamp(0, values.shape[dim] - 1)
    low = position.floor().long()
    share = (position - low).to(values.dtype).reshape(*(-1 if d == dim else 1 for d in range(4)))
    high = (low + 1).clamp(max=values.shape[dim] - 1)
    return torch.lerp(values.index_select(dim, low), values.index_select(dim, high), share)
