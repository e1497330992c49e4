"""The pyramid pooling of the UNet, the one part of it that sees the whole photo, made fast on CPUs and GPUs.

Shape letters: B photos, C channels, H height, W width, n bins to each side of a grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from models.arithmetic import eager, own_gradients
from models.convolution import Conv3x3

POOL_BINS = (1, 2, 3, 6)  # grid sizes


class PyramidPooling(nn.Module):
    """Adds what the whole photo looks like: four pooled grids, upsampled, concatenated, fused.

    `pool` and `fuse_grids` are apart so that a caller may pool over the whole frame and fuse tile by tile.
    """

    def __init__(self, channels: int = 32, reduced: int = 8) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), nn.Conv2d(channels, reduced, 1, bias=False), nn.PReLU(1))
            for bins in POOL_BINS
        )
        fused = channels + reduced * len(POOL_BINS)
        self.fuse = nn.Sequential(Conv3x3(fused, channels, bias=False, padding_mode="zeros"), nn.PReLU(1))

    def pool(self, x: Tensor) -> list[Tensor]:
        """(B,32,H,W) -> four grids (B,8,n,n), n = 1, 2, 3, 6."""
        if eager() and (x.device.type == "cuda" or own_gradients(x)):
            pooled = Pooled.apply(x)
            return [branch[1:](means) for branch, means in zip(self.features, pooled, strict=True)]
        return [branch(x) for branch in self.features]

    def fuse_grids(self, x: Tensor, grids: list[Tensor]) -> Tensor:
        """(B,32,H,W) and the four grids -> (B,32,H,W)."""
        height, width = x.shape[-2:]
        own = eager() and torch.is_grad_enabled() and x.device.type in ("cpu", "cuda")  # others may lack float64
        resize = Upsampled.apply if own else upsampled
        return self.fuse(torch.cat([x, *(resize(grid, height, width) for grid in grids)], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse_grids(x, self.pool(x))


def grid_parts() -> list[slice]:
    """Where the bins of each grid are among those of all four."""
    return [slice(sum(POOL_BINS[:number]), sum(POOL_BINS[: number + 1])) for number in range(len(POOL_BINS))]


def members(position: Tensor, side: int) -> Tensor:
    """(12,h): whether each bin of the four grids holds the pixel at each position (h,) of a side. Bins may overlap."""
    counted = [(torch.arange(count, device=position.device), count) for count in POOL_BINS]
    low = torch.cat([i * side // count for i, count in counted])[:, None]
    high = torch.cat([-(-(i + 1) * side // count) for i, count in counted])[:, None]
    return (position >= low) & (position < high)


def line_weights(position: Tensor, side: int, bins: int) -> Tensor:
    """(h,bins), float64: weight of each line of a grid at each position of a side, when it is `upsampled`."""
    line = position.double()[:, None] * (bins - 1) / max(1, side - 1)
    return (1 - (line - torch.arange(bins, device=position.device)).abs()).clamp(min=0)


def upsampled(grid: Tensor, height: int, width: int) -> Tensor:
    """(B,C,n,n) -> (B,C,H,W), bilinear, corners on corners."""
    return F.interpolate(grid, (height, width), mode="bilinear", align_corners=True)


def means(x: Tensor) -> tuple[Tensor, ...]:
    """(B,C,H,W) -> the means over the bins of the four grids, (B,C,n,n) each, by matrix products in float32."""
    photos, channels, height, width = x.shape
    rows, columns = (members(torch.arange(side, device=x.device), side).float() for side in (height, width))
    with torch.autocast(x.device.type, enabled=False):
        lines = x.float().permute(0, 2, 3, 1).reshape(photos, height, width * channels)
        down = (rows @ lines).reshape(photos, -1, width, channels)
        sums = torch.einsum("biwc,jw->bcij", down, columns)
    pixels = torch.outer(rows.sum(dim=1), columns.sum(dim=1))
    return tuple((sums / pixels)[:, :, part, part].to(x.dtype) for part in grid_parts())


class Upsampled(torch.autograd.Function):
    """`upsampled`; its gradient as two small matrix products, which PyTorch computes pixel by pixel."""

    @staticmethod
    def forward(ctx: FunctionCtx, grid: Tensor, height: int, width: int) -> Tensor:
        ctx.bins = grid.shape[-1]
        return upsampled(grid, height, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        wide = torch.promote_types(gradient.dtype, torch.float32)
        rows, columns = (
            line_weights(torch.arange(side, device=gradient.device), side, ctx.bins).to(wide)
            for side in gradient.shape[-2:]
        )
        return (rows.T @ (gradient.to(wide) @ columns)).to(gradient.dtype), None, None


class Pooled(torch.autograd.Function):
    """Means over the bins of the four grids, (B,C,H,W) -> (B,C,n,n) each.

    Its gradient is one array of the input's size, not one for each grid and their sum. On GPUs the means are matrix
    products: PyTorch's own take fifty times as long as all convolutions together where channels are last.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> tuple[Tensor, ...]:
        ctx.size = x.shape[-2:]
        if x.device.type == "cpu":
            return tuple(F.adaptive_avg_pool2d(x, bins) for bins in POOL_BINS)
        return means(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        """A pixel's gradient: of each grid the gradients of the bins that hold it, over the pixels of each."""
        like = gradients[0]
        rows, columns = (members(torch.arange(side, device=like.device), side) for side in ctx.size)
        pixels = torch.outer(rows.sum(dim=1), columns.sum(dim=1))
        shares = like.new_zeros(len(like), *pixels.shape, like.shape[1])
        for gradient, part in zip(gradients, grid_parts(), strict=True):
            shares[:, part, part] = (gradient / pixels[part, part]).movedim(1, -1).to(like.dtype)
        along = torch.einsum("bijc,jw->biwc", shares, columns.to(like.dtype)).flatten(2)  # channels last, as x lies
        return (rows.to(like.dtype).T @ along).unflatten(2, (ctx.size[1], like.shape[1])).movedim(-1, 1)
