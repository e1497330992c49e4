"""Noise of shadows that enhancement would bring to light: how much there is, and its removal.

Fine texture looks like noise, and a compressed photo has lost most of its fine noise but keeps blotches of colour. So
noise is measured in the flattest blocks, luma loses no more than chroma's noise accounts for, and chroma is measured
and filtered in cells of 4x4 pixels too.
"""

import numpy as np

from data.images.photo import LUMA, strips
from serving.finish import top, unit

LEAST_GAIN, FULL_GAIN = 1.25, 2.5  # gains 1/M from which shadows are denoised, and fully
PATCH, REACH = 5, 6  # pixels, of the non-local means: side of the patches, farthest patch to each side
HALO = REACH + PATCH // 2 + 1
CELL = 4  # pixels, the side of the cells whose mean chroma is filtered: JPEG's blocks of halved chroma have 16
CELL_HALO = (HALO + 1) * CELL
BLOCK = 256  # pixels; columns and rows at once
LUMA_STRENGTH, CHROMA_STRENGTH = 1.0, 1.6  # filter strength h over the noise; eyes forgive a loss of colour detail
DETAIL = 3.0  # deviations of a blotch: as far as pixels differ from their cells at least, to count as detail

SIDE = 8  # pixels or cells, the side of the blocks in which noise is measured
FLATTEST, BIAS = 0.1, 0.731  # quantile over the blocks, and what it is for white noise of deviation 1
GROUPS, GROUP = 8, 2 / 3  # of blocks of like brightness, as noise goes with it; quantile over the groups
FEWEST = 16  # blocks of a group; of steps
SEEN = 0.95  # share of a block's pixels in shadow and above 0: where values are cut, noise is too
ROUNDING = 0.5  # steps of the photo's bits: what rounding and fine texture add to the noise that is measured
LUMA_SHARE = 0.66  # noise of luma over that of chroma, where the three channels have the same, independent noise
COLOUR = 1 / 2  # chroma of texture over its luma; photos of foliage and flowers: 0.1 to 0.5
CORRELATED = 1.5  # variance of cells, over that of white noise, up to which there are no blotches
CONSTANT = 0.1  # share of blocks of one colour from which chroma was rounded; photos without JPEG: below 0.02
STEPS = 0.3, 4.0  # steps of 8 bits between such blocks; larger ones are edges
GRID = 0.5  # share of lone changes of chroma that lie beside edges of JPEG's blocks, 3/8 by chance; above: it was JPEG


class Denoiser:
    """Non-local means (Buades et al. 2005) in the shadows of one photo, luma and chroma apart.

    rgb: (H,W,3) of a photo's type; illumination: its map M (H,W) float32; strength in [0, 1]. Where the gain, one over
    M to the power of the strength, is at most `LEAST_GAIN` the photo stays, bit for bit. The noise is measured in the
    shadows themselves: a photo without noise stays too.
    """

    def __init__(self, rgb: np.ndarray, illumination: np.ndarray, strength: float) -> None:
        self._rgb, self._illumination, self._strength = rgb, illumination, strength
        measured = _Measured()
        for rows in strips(rgb, SIDE * CELL):
            measured.add(unit(rgb[rows]), self._share(rows) > 0)
        rounding = ROUNDING / float(top(rgb.dtype)) if rgb.dtype != np.float32 else 0.0
        self.luma_noise, self.chroma_noise, self.blotches = measured.noise(rounding)
        """Standard deviations in the shadows, of full scale; blotches: of cells of chroma, beyond its noise."""

    def strip(self, rows: slice) -> np.ndarray:
        """Rows of the photo (h,W,3), float32 in [0, 1], without their noise."""
        height, width = self._rgb.shape[:2]
        rows = slice(*rows.indices(height)[:2])
        result = unit(self._rgb[rows])
        if self.luma_noise == self.chroma_noise == self.blotches == 0:
            return result
        for first in range(rows.start, rows.stop, BLOCK):
            for left in range(0, width, BLOCK):
                block = slice(first, min(first + BLOCK, rows.stop)), slice(left, min(left + BLOCK, width))
                share = self._share(block)[..., None]
                if share.any():
                    own = result[first - rows.start : block[0].stop - rows.start, block[1]]
                    own += share * (self._clean(*block) - own)
        return result

    def _share(self, part: slice | tuple[slice, slice]) -> np.ndarray:
        """How far noise is removed in a part of the photo, in [0, 1], by the gain."""
        gain = np.maximum(self._illumination[part], 1e-6) ** -self._strength
        share = np.clip((gain - LEAST_GAIN) / (FULL_GAIN - LEAST_GAIN), 0, 1)
        return share.astype(np.float32)

    def _clean(self, rows: slice, columns: slice) -> np.ndarray:
        halo = HALO + (CELL_HALO if self.blotches else 0)
        # from the corner of a cell, so that cells are the same ones whatever the block
        first, left = (max(0, part.start - halo) // CELL * CELL for part in (rows, columns))
        inside = slice(rows.start - first, rows.stop - first), slice(columns.start - left, columns.stop - left)
        luma, chroma = luma_chroma(unit(self._rgb[first : rows.stop + halo, left : columns.stop + halo]))
        luma = _filtered(luma, LUMA_STRENGTH, self.luma_noise)
        chroma = _filtered(chroma, CHROMA_STRENGTH, self.chroma_noise)
        return _rgb_of(luma[inside], self._without_blotches(chroma)[inside])

    def _without_blotches(self, chroma: np.ndarray) -> np.ndarray:
        """(h,w,2) -> its cells filtered, plus what pixels differ from their cells by more than the edge of a blotch."""
        if not self.blotches:
            return chroma
        height, width = chroma.shape[:2]
        cells = _cells(np.pad(chroma, ((0, -height % CELL), (0, -width % CELL), (0, 0)), mode="edge"), CELL)
        detail = chroma - _spread(cells)[:height, :width]
        detail = np.sign(detail) * np.maximum(np.abs(detail) - DETAIL * self.blotches, 0)
        return _spread(_filtered(cells, CHROMA_STRENGTH, self.blotches))[:height, :width] + detail


class _Measured:
    """What varies in the blocks of a photo's shadows."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[np.ndarray]] = {scale: [] for scale in (1, 2, CELL)}  # by pixels a cell
        self._constant: list[np.ndarray] = []  # whether a block has one chroma
        self._steps: list[np.ndarray] = []  # between such blocks
        self._changes = np.zeros(SIDE, int)  # of chroma, by their place between two edges of blocks

    def add(self, rgb: np.ndarray, shadow: np.ndarray) -> None:
        """Rows of the photo (h,W,3) in [0, 1], as many as the largest blocks have, and which pixels are in shadow."""
        luma, chroma = luma_chroma(rgb)
        planes = luma, chroma[..., 0], chroma[..., 1]
        seen = (shadow & (rgb.max(axis=2) > 0)).astype(np.float32)
        for scale, found in self._blocks.items():
            count = _blocks(_cells(seen, scale)).mean(axis=(2, 3)) >= SEEN
            blocks = [_blocks(_cells(plane, scale))[count] for plane in planes]
            apart = 2 if scale == CELL else 1  # a blotch is often wider than a cell
            found.append(np.stack([blocks[0].mean(axis=(1, 2)), *(_deviation(block, apart) for block in blocks)]))
        dark = _blocks(shadow).all(axis=(2, 3))
        for plane in planes[1:]:
            blocks = _blocks(plane)
            constant, means = (np.ptp(blocks, axis=(2, 3)) < 1e-4) & dark, blocks.mean(axis=(2, 3))
            self._constant.append(constant[dark])
            for one, mean in ((constant, means), (constant.T, means.T)):  # two blocks on: JPEG's have 16 pixels
                self._steps.append(np.abs(mean[2:] - mean[:-2])[one[2:] & one[:-2]])
            self._changes += _lone_changes(plane, shadow) + _lone_changes(plane.T, shadow.T)

    def noise(self, rounding: float) -> tuple[float, float, float]:
        """Deviations of luma, of chroma, and of what cells of chroma have beyond that; rounding: what it adds."""
        luma, chroma = {}, {}
        for scale, found in self._blocks.items():
            brightness, *deviations = np.concatenate(found, axis=1)
            luma[scale], chroma[scale] = _flattest(brightness, deviations[:1]), _flattest(brightness, deviations[1:])
        fine = _less(chroma[1], rounding)
        cells = _less(chroma[CELL], rounding, COLOUR * luma[CELL])
        # a mean of n x n pixels of white noise has 1/n of it; JPEG takes the finest chroma, so cells tell more
        accounted = LUMA_SHARE * max(chroma[1], 2 * chroma[2], CELL * cells)
        whole_luma = _less(min(max(luma[1], 2 * luma[2]), accounted), rounding)
        return whole_luma, fine, max(_less(cells, CORRELATED**0.5 * fine / CELL), self._rounded())

    def _rounded(self) -> float:
        """Deviation of a chroma that JPEG rounded, from the usual step between blocks of one chroma each."""
        beside = self._changes[[-1, 0, 1]].sum()
        if beside <= GRID * self._changes.sum():  # a drawing or a gradient
            return 0.0
        constant, steps = np.concatenate(self._constant), np.concatenate(self._steps)
        steps = steps[(steps > STEPS[0] / 255) & (steps < STEPS[1] / 255)]
        if constant.sum() <= CONSTANT * constant.size or len(steps) < FEWEST:
            return 0.0
        return float(np.median(steps)) / 12**0.5


def luma_chroma(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h,w,3) in [0, 1] -> luma (h,w) in [0, 1] and chroma (h,w,2), red and blue less luma; ITU-R BT.601."""
    luma = rgb @ np.array(LUMA, np.float32)
    return luma, np.stack([rgb[..., 0] - luma, rgb[..., 2] - luma], axis=-1)


def _rgb_of(luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    red, blue = luma + chroma[..., 0], luma + chroma[..., 1]
    green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1).astype(np.float32)


def _filtered(plane: np.ndarray, strength: float, noise: float) -> np.ndarray:
    """(h,w) or (h,w,c) without noise of that deviation; itself where there is none."""
    from skimage.restoration import denoise_nl_means

    if not noise:
        return plane
    options = {"patch_size": PATCH, "patch_distance": REACH, "channel_axis": -1 if plane.ndim == 3 else None}
    result = denoise_nl_means(plane, h=strength * noise, sigma=noise, fast_mode=True, **options)
    return result.reshape(plane.shape)  # sides of one pixel are lost


def _cells(plane: np.ndarray, side: int) -> np.ndarray:
    """(h,w) or (h,w,c) -> the means of its cells; what is left over at the end is cut off."""
    height, width = plane.shape[0] // side, plane.shape[1] // side
    plane = plane[: height * side, : width * side]
    return plane.reshape(height, side, width, side, *plane.shape[2:]).mean(axis=(1, 3))


def _spread(cells: np.ndarray) -> np.ndarray:
    """(h,w,c) -> (4h,4w,c), linear between the centres of the cells."""
    from skimage.transform import resize

    shape = cells.shape[0] * CELL, cells.shape[1] * CELL
    return resize(cells, shape, order=1, mode="edge", anti_aliasing=False)


def _blocks(plane: np.ndarray) -> np.ndarray:
    """(h,w) -> (rows of blocks, columns of blocks, SIDE, SIDE); what is left over at the end is cut off."""
    height, width = plane.shape[0] // SIDE, plane.shape[1] // SIDE
    return plane[: height * SIDE, : width * SIDE].reshape(height, SIDE, width, SIDE).swapaxes(1, 2)


def _lone_changes(plane: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """(h,w) twice -> (SIDE,): how many values differ from the one before, by their row modulo SIDE.

    Only in shadow, and where no other value near, but for the next, differs from its neighbour.
    """
    change = np.pad((np.abs(np.diff(plane, axis=0)) > 1e-4), ((SIDE // 2,) * 2, (0, 0)))
    near = [np.roll(change, by, axis=0) for by in (-4, -3, -2, 2, 3, 4)]
    lone = (change & ~np.any(near, axis=0))[SIDE // 2 : -SIDE // 2] & shadow[1:] & shadow[:-1]
    return np.bincount((np.nonzero(lone)[0] + 1) % SIDE, minlength=SIDE)


def _deviation(blocks: np.ndarray, apart: int) -> np.ndarray:
    """(n,SIDE,SIDE) -> (n,), by the kernel [1,-2,1] down and across, of values so far apart (Immerkaer 1996).

    Slopes and straight edges do not reach it; of white noise of deviation s it has 6 s.
    """
    first, middle, last = slice(None, -2 * apart), slice(apart, -apart), slice(2 * apart, None)
    down = blocks[:, first] - 2 * blocks[:, middle] + blocks[:, last]
    second = down[..., first] - 2 * down[..., middle] + down[..., last]
    return np.sqrt((second**2).mean(axis=(1, 2))) / 6


def _flattest(brightness: np.ndarray, planes: list[np.ndarray]) -> float:
    """Brightness of blocks (n,), their deviations (n,) in each plane -> noise in the flattest, a mean of the planes."""
    groups = min(GROUPS, len(brightness) // FEWEST)
    if not groups:
        return 0.0
    order = np.argsort(brightness, kind="stable")
    flattest = [np.quantile(np.stack(planes)[:, group], FLATTEST, axis=1) for group in np.array_split(order, groups)]
    return float(np.quantile(np.sqrt((np.array(flattest) ** 2).mean(axis=1)), GROUP)) / BIAS


def _less(deviation: float, *others: float) -> float:
    """Of a sum of independent parts, what is left without the others."""
    return max(0.0, deviation**2 - sum(other**2 for other in others)) ** 0.5
