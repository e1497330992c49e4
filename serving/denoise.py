"""Noise of shadows that enhancement would bring to light."""

import numpy as np

from data.images.photo import strips
from serving.finish import top, unit

LEAST_GAIN, FULL_GAIN = 1.25, 2.5  # gains 1/M from which shadows are denoised, and fully
PATCH, REACH = 5, 6  # pixels, of the non-local means: side of the patches, farthest patch to each side
HALO = REACH + PATCH // 2 + 1
BLOCK = 256  # pixels; columns and rows at once
ROUNDING = 0.5  # steps of the photo's bits: what rounding and fine texture add to the noise that is measured
LUMA_STRENGTH, CHROMA_STRENGTH = 1.0, 1.6  # filter strength h over the noise; eyes forgive a loss of colour detail


class Denoiser:
    """Non-local means (Buades et al. 2005) in the shadows of one photo, luma and chroma apart.

    rgb: (H,W,3) of a photo's type; illumination: its map M (H,W) float32; strength in [0, 1]. Where the gain, one over
    M to the power of the strength, is at most `LEAST_GAIN` the photo stays, bit for bit. The noise is measured in the
    shadows themselves: a photo without noise stays too.
    """

    def __init__(self, rgb: np.ndarray, illumination: np.ndarray, strength: float) -> None:
        self._rgb, self._illumination, self._strength = rgb, illumination, strength
        self.luma_noise, self.chroma_noise = self._measured()
        """Standard deviations in the shadows, of full scale."""

    def strip(self, rows: slice) -> np.ndarray:
        """Rows of the photo (h,W,3), float32 in [0, 1], without their noise."""
        height, width = self._rgb.shape[:2]
        rows = slice(*rows.indices(height)[:2])
        result = unit(self._rgb[rows])
        if self.luma_noise == self.chroma_noise == 0:
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
        from skimage.restoration import denoise_nl_means

        height, width = self._rgb.shape[:2]
        top_row, left = max(0, rows.start - HALO), max(0, columns.start - HALO)
        window = unit(self._rgb[top_row : min(height, rows.stop + HALO), left : min(width, columns.stop + HALO)])
        luma, chroma = luma_chroma(window)
        options = {"patch_size": PATCH, "patch_distance": REACH, "fast_mode": True}
        if self.luma_noise:
            luma = denoise_nl_means(luma, h=LUMA_STRENGTH * self.luma_noise, sigma=self.luma_noise, **options)
        if self.chroma_noise:
            h = CHROMA_STRENGTH * self.chroma_noise
            chroma = denoise_nl_means(chroma, h=h, sigma=self.chroma_noise, channel_axis=-1, **options)
        inside = (
            slice(rows.start - top_row, rows.stop - top_row),
            slice(columns.start - left, columns.stop - left),
        )
        return _rgb_of(luma[inside], chroma[inside])

    def _measured(self) -> tuple[float, float]:
        """The noise of luma and chroma: the median of second differences, which edges do not reach (Immerkaer 1996)."""
        found: list[list[np.ndarray]] = [[], []]
        for rows in strips(self._rgb):
            part, share = self._rgb[rows], self._share(rows)
            shadow = (share[1:-1, 1:-1] > 0) & (part[1:-1, 1:-1].max(axis=2) > 0)
            if shadow.any():
                luma, chroma = luma_chroma(unit(part))
                for kept, planes in zip(found, ([luma], [chroma[..., 0], chroma[..., 1]]), strict=True):
                    kept += [np.abs(_second_difference(plane))[shadow][::4] for plane in planes]
        medians = (float(np.median(np.concatenate(kept))) if kept else 0.0 for kept in found)
        rounding = ROUNDING / float(top(self._rgb.dtype)) if self._rgb.dtype != np.float32 else 0.0
        luma, chroma = (max(0.0, (median / 0.6745 / 6) ** 2 - rounding**2) ** 0.5 for median in medians)
        return luma, chroma


def luma_chroma(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h,w,3) in [0, 1] -> luma (h,w) in [0, 1] and chroma (h,w,2), red and blue less luma; ITU-R BT.601."""
    luma = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma, np.stack([rgb[..., 0] - luma, rgb[..., 2] - luma], axis=-1)


def _rgb_of(luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    red, blue = luma + chroma[..., 0], luma + chroma[..., 1]
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1).astype(np.float32)


def _second_difference(plane: np.ndarray) -> np.ndarray:
    """(h,w) -> (h-2,w-2), with the kernel [1,-2,1] down and across: of white noise of deviation s it has 6 s."""
    down = plane[:-2] - 2 * plane[1:-1] + plane[2:]
    return down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]
