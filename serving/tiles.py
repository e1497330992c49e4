"""The illumination map of a photo, tile by tile, equal to that of the whole frame.

The network is local but for its pyramid pooling, which sees the whole photo. So the photo is read
twice: first the layers below the pooling run over all tiles and the four pooled grids are gathered
over the full frame; then the whole network runs tile by tile, with those grids interpolated where
the tile lies. Memory follows the tile. A photo that is one tile is read once.

Shape letters: N tiles, H and W of the photo, h and w of a tile's window, G = 12 = 1 + 2 + 3 + 6 the
sides of the four grids.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.pooling import POOL_BINS, grid_parts, line_weights, members

HALO_POOLING = 5  # pixels that one below the pooling sees to each side
HALO = 17  # pixels that one of the map sees to each side, pooling aside
KEPT = 4_000_000  # pixels of 128 bytes (fp32); keeping them saves a seventh of the time


class Network(Protocol):
    """The network on some backend, whole and in two parts.

    `interior` promises that no side of the windows lies on the photo's border. What the
    convolutions pad with is then cut off with the halo, and a backend may pad in the fastest way.
    """

    branches: Sequence[nn.Module]
    """What follows the pooling in each of the four branches: (1,32,n,n) -> (1,8,n,n), float32 on the CPU."""

    device: torch.device | str

    def whole(self, images: np.ndarray) -> Tensor | np.ndarray:
        """Float32 (N,3,H,W) in [0, 1] -> illumination (N,1,H,W) float32: an array where that needs no PyTorch."""
        ...

    def below(self, images: Tensor, interior: bool) -> Tensor:
        """Float32 (N,3,h,w) in [0, 1] -> features (N,32,h,w), the input of the pooling."""
        ...

    def above(self, x: Tensor, rows: Tensor, columns: Tensor, grids: Tensor, interior: bool) -> Tensor:
        """Features, weights (N,h,G) and (N,w,G), grids (1,32,G,G) -> illumination (N,1,h,w) float32.

        The upsampled grids are `rows @ grids @ columns^T`.
        """
        ...


@dataclass(frozen=True)
class Span:
    """One side of a tile: its own pixels, and the window with the halo, as in the photo."""

    low: int
    high: int
    first: int
    last: int

    @property
    def own(self) -> slice:
        """The tile's own pixels within the photo."""
        return slice(self.low, self.high)

    @property
    def window(self) -> slice:
        """The window within the photo."""
        return slice(self.first, self.last)

    @property
    def inside(self) -> slice:
        """The tile's own pixels within its window."""
        return slice(self.low - self.first, self.high - self.first)


Tile = tuple[Span, Span]  # rows, columns


def spans(side: int, tile_size: int, halo: int) -> list[Span]:
    """Cut `side` pixels into tiles of about equal length, at most `tile_size`.

    Windows are all of one length (those at the border reach further in), at most tile_size + 2 halo.
    """
    count = -(-side // tile_size)
    length = min(side, -(-side // count) + 2 * halo)
    starts = [min(max(0, i * side // count - halo), side - length) for i in range(count)]
    return [Span(i * side // count, (i + 1) * side // count, first, first + length) for i, first in enumerate(starts)]


def illumination_tiles(
    network: Network, read: Callable[[slice, slice], Tensor], height: int, width: int, tile_size: int, batch: int = 1
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Yield rows, columns, photo (1,3,h,w) and illumination (1,1,h,w) of tiles that cover the photo once.

    read: rows, columns -> that part of the photo, float32 (1,3,h,w) in [0, 1]; each part is read twice.
    tile_size: longest side of a tile in pixels, without its halo. batch: tiles that the network gets at once.
    Raises ValueError for sizes under 1.
    """
    if min(height, width, tile_size, batch) < 1:
        raise ValueError(
            f"expected sizes of at least 1, found {height}x{width} pixels, tiles of {tile_size}, {batch} at once"
        )
    sides = height, width
    pooled, kept = _PooledGrids(height, width), None
    for group in _batches(height, width, tile_size, HALO_POOLING, batch):
        features = network.below(_stack(read, group), _interior(group, sides))
        if kept is None and height * width <= KEPT:
            layout = torch.channels_last if features.stride(1) == 1 else torch.contiguous_format
            kept = torch.empty(
                (1, 32, height, width), dtype=features.dtype, device=features.device, memory_format=layout
            )
        for x, tile in zip(features, group, strict=True):
            pooled.add(x, tile)
            if kept is not None:
                kept[(0, ..., *(span.own for span in tile))] = x[(..., *(span.inside for span in tile))]
    features = None
    grids = pooled.grids(network.branches)
    for group in _batches(height, width, tile_size, HALO if kept is None else HALO - HALO_POOLING, batch):
        interior = _interior(group, sides)
        images = _stack(read, group)
        if kept is None:
            features = None  # not those of the tile before and of this one at once
            features = network.below(images, interior)
        else:
            parts = [kept[(..., *(span.window for span in tile))] for tile in group]
            features = parts[0] if len(parts) == 1 else torch.cat(parts)
        weights = [
            torch.stack([_weights(tile[axis].window, side) for tile in group]) for axis, side in enumerate(sides)
        ]
        maps = network.above(features, *weights, grids, interior)
        for photo, illumination, (rows, columns) in zip(images, maps, group, strict=True):
            part = (slice(None), slice(None), rows.inside, columns.inside)
            yield rows.own, columns.own, photo[None][part], illumination[None][part]


def _stack(read: Callable[[slice, slice], Tensor], group: list[Tile]) -> Tensor:
    return torch.cat([read(rows.window, columns.window) for rows, columns in group])


def _batches(height: int, width: int, tile_size: int, halo: int, batch: int) -> list[list[Tile]]:
    """Groups of at most `batch` tiles; those at the border apart from those within, which may be computed faster."""
    tiles = [(rows, columns) for rows in spans(height, tile_size, halo) for columns in spans(width, tile_size, halo)]
    groups = []
    for interior in (False, True):
        alike = [tile for tile in tiles if _interior([tile], (height, width)) == interior]
        groups += [alike[i : i + batch] for i in range(0, len(alike), batch)]
    return groups


def _interior(group: list[Tile], sides: tuple[int, int]) -> bool:
    return all(span.first > 0 and span.last < side for tile in group for span, side in zip(tile, sides, strict=True))


class _PooledGrids:
    """The four adaptive average pools of a full frame, from its parts: each cell is the mean over its bin."""

    def __init__(self, height: int, width: int) -> None:
        self.sides = height, width
        self.sums = torch.zeros(32, sum(POOL_BINS), sum(POOL_BINS), dtype=torch.float64)

    def add(self, x: Tensor, tile: Tile) -> None:
        """x (32,h,w): the features in the tile's window."""
        rows, columns = (_members(span, side) for span, side in zip(tile, self.sides, strict=True))
        # down the columns of a window in float32, which is as exact as x and many times as fast; all else in float64
        down = rows.to(x.device)
        if x.stride(0) == 1:  # channels last: one product, without a copy in the other order
            sums = (down @ x.permute(1, 2, 0).float().flatten(1)).unflatten(1, (x.shape[2], x.shape[0]))
            sums = sums.permute(2, 0, 1)
        else:
            sums = down @ x.float()
        self.sums += sums.cpu().double() @ columns.double().T

    def grids(self, branches: Sequence[nn.Module]) -> Tensor:
        """All four grids after their branches, (1,32,G,G): channels and sides of each beside those of the others."""
        rows, columns = (_members(Span(0, side, 0, side), side).double().sum(dim=1) for side in self.sides)
        means = (self.sums / torch.outer(rows, columns)).float()[None]
        together = torch.zeros_like(means)
        for number, (branch, cells) in enumerate(zip(branches, grid_parts(), strict=True)):
            channels = slice(8 * number, 8 * number + 8)
            together[:, channels, cells, cells] = branch(means[:, :, cells, cells])
        return together


def _members(span: Span, side: int) -> Tensor:
    """(G,h): 1 where a pixel of the window is the tile's own and in the bin, else 0. Bins may overlap."""
    position = torch.arange(span.first, span.last)
    own = (position >= span.low) & (position < span.high)
    return (own & members(position, side)).float()


def _weights(window: slice, side: int) -> Tensor:
    """Weight of each grid line at each pixel of the window, (h,G): bilinear upsampling to `side`, aligned corners."""
    position = torch.arange(window.start, window.stop)
    return torch.cat([line_weights(position, side, bins) for bins in POOL_BINS], dim=1).float()
