"""The illumination map of a large photo, strip by strip, equal to that of the whole frame.

The network is local but for its pyramid pooling, which sees the whole photo. So the photo is read
twice: first the layers below the pooling run over all strips and the four pooled grids are
gathered over the full frame; then the whole network runs strip by strip with those grids. Memory
follows the strip, not the photo.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.unet import POOL_BINS, IlluminationUNet

HALO_POOLING = 5  # rows that a pixel below the pooling sees to each side
HALO = 17  # rows that a pixel of the map sees to each side, pooling aside


def illumination_in_strips(unet: IlluminationUNet, images: Tensor, strip_pixels: int) -> Tensor:
    """Photos (B,3,H,W) in [0, 1] -> illumination (B,1,H,W), as `unet(images)` gives it up to rounding.

    strip_pixels: how many pixels are in the network at once, halo included; very wide photos take
    more, as a strip has at least as many rows of its own as its halo.
    """
    height, width = images.shape[-2:]
    step = max(2 * HALO, strip_pixels // width - 2 * HALO)  # under that, most of the work would be halo
    strips = [(top, min(top + step, height)) for top in range(0, height, step)]
    grids = _pooled_grids(unet, images, strips)
    # columns first: they are the same for every strip
    wide = [F.interpolate(grid, (grid.shape[-2], width), mode="bilinear", align_corners=True) for grid in grids]
    parts = []
    for top, bottom in strips:
        first, last = max(0, top - HALO), min(height, bottom + HALO)
        x = unet.before_pooling(images[:, :, first:last])
        x = unet.PPM1.fuse(torch.cat([x, *(_rows(grid, first, last, height) for grid in wide)], dim=1))
        parts.append(unet.after_pooling(x)[:, :, top - first : bottom - first])
    return torch.cat(parts, dim=2)


def _pooled_grids(unet: IlluminationUNet, images: Tensor, strips: list[tuple[int, int]]) -> list[Tensor]:
    """The grids of `PyramidPooling.pool` over the full frame: each cell is the mean over its bin, whichever strips it lies in."""
    batch, _, height, width = images.shape
    channels = unet.condx.in_channels
    sums = [torch.zeros(batch, channels, bins, bins, dtype=torch.float64, device=images.device) for bins in POOL_BINS]
    for top, bottom in strips:
        first, last = max(0, top - HALO_POOLING), min(height, bottom + HALO_POOLING)
        x = unet.before_pooling(images[:, :, first:last])[:, :, top - first : bottom - first]
        for total, bins in zip(sums, POOL_BINS, strict=True):
            for row in range(bins):
                low, high = _bin(row, bins, height)
                rows = x[:, :, max(low, top) - top : max(0, min(high, bottom) - top)]
                for column in range(bins if rows.shape[2] else 0):
                    left, right = _bin(column, bins, width)
                    total[:, :, row, column] += rows[..., left:right].sum(dim=(2, 3), dtype=torch.float64)
    grids = []
    for total, bins, branch in zip(sums, POOL_BINS, unet.PPM1.features, strict=True):
        heights, widths = ([high - low for low, high in (_bin(i, bins, side) for i in range(bins))] for side in (height, width))
        area = torch.tensor(heights, device=total.device)[:, None] * torch.tensor(widths, device=total.device)[None]
        grids.append(branch[1:]((total / area).to(images.dtype)))
    return grids


def _bin(index: int, bins: int, side: int) -> tuple[int, int]:
    """First and last+1 pixel of an adaptive pooling bin."""
    return index * side // bins, -(-(index + 1) * side // bins)


def _rows(grid: Tensor, first: int, last: int, height: int) -> Tensor:
    """Rows first to last of `grid` (B,C,n,W) upsampled to `height` rows, bilinear with aligned corners."""
    n = grid.shape[-2]
    position = torch.arange(first, last, device=grid.device, dtype=torch.float32) * ((n - 1) / max(1, height - 1))
    low = position.floor().long().clamp(max=n - 1)
    high = (low + 1).clamp(max=n - 1)
    weight = (position - low).to(grid.dtype)[:, None]
    return grid[:, :, low] * (1 - weight) + grid[:, :, high] * weight
