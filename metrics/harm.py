"""What an enhancement does that it should not: highlights lost, photos changed that were well lit, hues turned.

Photos are (H,W,3) uint8 sRGB.
"""

import numpy as np

COLOURED = 0.08  # of full scale: below this difference of the channels a hue is noise


def newly_clipped(photo: np.ndarray, result: np.ndarray) -> float:
    """Share of pixels with a channel at 255 in the result, and none there in the photo; in [0, 1]."""
    return float(((result.max(axis=2) == 255) & (photo.max(axis=2) < 255)).mean())


def change(photo: np.ndarray, result: np.ndarray) -> float:
    """Mean absolute difference, of full scale."""
    return float(np.abs(result.astype(np.int16) - photo).mean() / 255)


def hue_error(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean angle between hues (HSV), in degrees, over the pixels that have colour in both; NaN where none has."""
    hues, coloured = zip(*(_hue(image) for image in (result, truth)), strict=True)
    both = coloured[0] & coloured[1]
    angle = np.abs(hues[0] - hues[1])[both] % 360
    return float(np.minimum(angle, 360 - angle).mean()) if both.any() else float("nan")


def _hue(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from skimage.color import rgb2hsv

    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    return rgb2hsv(image)[..., 0] * 360, spread > COLOURED * 255
