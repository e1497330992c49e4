"""What an enhancement does that it should not: highlights lost, photos changed that were well lit, hues turned, steps
in brightness, shadows of a bright frame left dark, noise raised.

Photos and results are (H,W,3) sRGB: uint8, or float32 in [0, 1] where a method is run on photos made for the purpose.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

COLOURED = 0.08  # of full scale: below this difference of the channels a hue is noise
CHANGED = 0.05  # of full scale: mean change from which one sees that a photo is another
STEPS, STOPS = 30, 4.0  # of the ladder
READ_NOISE = 2 / 255  # standard deviation, of full scale: a camera's at ISO 1600 or so, in shadows
SHADOW = 0.25  # of full scale: noise is looked at where the brightest channel is below
GROUND_STOPS, SKY_STOPS, GROUND_SHARE = 2.5, 0.3, 0.6  # of the simulated backlight

Method = Callable[[np.ndarray], np.ndarray]  # (H,W,3) float32 in [0, 1] -> the same


def newly_clipped(photo: np.ndarray, result: np.ndarray) -> float:
    """Share of pixels with a channel at 255 in the result, and none there in the photo; in [0, 1]. uint8."""
    return float(((result.max(axis=2) == 255) & (photo.max(axis=2) < 255)).mean())


def change(photo: np.ndarray, result: np.ndarray) -> float:
    """Mean absolute difference, of full scale. uint8."""
    return float(np.abs(result.astype(np.int16) - photo).mean() / 255)


def changes(values: Sequence[float]) -> dict[str, float]:
    """Mean and largest of `change` over photos, and the share of photos changed by more than `CHANGED`."""
    return {
        "mean": float(np.mean(values)),
        "largest": float(max(values)),  # neither is rounded: `metrics.choice` compares them with limits
        "share_above_0.05": round(float(np.mean([value > CHANGED for value in values])), 4),
    }


def hue_error(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean angle between hues (HSV), in degrees, over pixels that have colour in both, uint8; NaN where none has."""
    hues, coloured = zip(*(_hue(image) for image in (result, truth)), strict=True)
    both = coloured[0] & coloured[1]
    angle = np.abs(hues[0] - hues[1])[both] % 360
    return float(np.minimum(angle, 360 - angle).mean()) if both.any() else float("nan")


def ladder(method: Method, photo: np.ndarray, steps: int = STEPS, stops: float = STOPS) -> np.ndarray:
    """Means of the results of one photo, from `stops` under-exposed to as it is, in equal steps of exposure: (steps,).

    Light is scaled, not the encoded values. photo (H,W,3) float32.
    """
    return np.array([method(exposed(photo, -loss)).mean() for loss in np.linspace(stops, 0, steps)])


def largest_jump(means: np.ndarray) -> float:
    """Of a ladder: the largest change from one step to the next, of full scale."""
    return float(np.abs(np.diff(means)).max())


def fall(means: np.ndarray) -> float:
    """Of a ladder: by how much a brighter photo gets a darker result at most, of full scale; 0 where it is monotone."""
    return float((np.maximum.accumulate(means) - means).max())


def region_lift(
    photo: np.ndarray, result: np.ndarray, truth: np.ndarray, ground: np.ndarray, sky: np.ndarray
) -> tuple[float, float]:
    """Of a frame with dark ground under a bright sky: the share of the ground's lost brightness that comes back (1: all
    of it; NaN where none was lost), and the mean absolute change of the sky, of full scale.

    photo, result, truth (H,W,3) float32; ground, sky (H,W) bool.
    """
    before, after, aim = (image[ground].mean() for image in (photo, result, truth))
    lift = float((after - before) / (aim - before)) if aim > before else float("nan")
    return lift, float(np.abs(result - photo)[sky].mean())


def noise_gain(method: Method, photo: np.ndarray, seed: int = 0) -> float:
    """Standard deviation of the noise in the shadows of the result, over that in the photo; NaN without shadows.

    Noise of `READ_NOISE` is added to a photo (H,W,3) float32; what it does to the result is the noise of the result.
    """
    noisy = photo + np.random.default_rng(seed).normal(0, READ_NOISE, photo.shape).astype(np.float32)
    noisy = noisy.clip(0, 1)
    shadow = photo.max(axis=2) < SHADOW
    if not shadow.any():
        return float("nan")
    return float((method(noisy) - method(photo))[shadow].std() / (noisy - photo)[shadow].std())


def probe(method: Method, photos: Iterable[np.ndarray]) -> dict[str, float | None]:
    """Means over well-lit photos (H,W,3) float32 that are darkened: as a whole (`ladder`, noise at 2.5 stops), and
    the ground alone (`region_lift`). Of jumps and falls the largest.
    """
    ladders, lifts, gains = [], [], []
    for photo in photos:
        ladders.append(ladder(method, photo))
        gains.append(noise_gain(method, exposed(photo, -GROUND_STOPS)))
        backlit, ground, sky = against_the_light(photo)
        lifts.append(region_lift(backlit, method(backlit), photo, ground, sky))
    lifts, skies = zip(*lifts, strict=True)
    return {
        "largest_jump": round(max(map(largest_jump, ladders)), 4),
        "fall": round(max(map(fall, ladders)), 4),
        "region_lift": mean_of_known(lifts),
        "sky_change": mean_of_known(skies),
        "noise_gain": mean_of_known(gains),
    }


def against_the_light(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The photo (H,W,3) float32 with dark ground under a bright sky; where ground and sky are, (H,W) bool."""
    import torch

    from data.backlight import BacklightRanges, simulate_backlight

    ranges = BacklightRanges(
        foreground_stops=(GROUND_STOPS, GROUND_STOPS),
        background_stops=(SKY_STOPS, SKY_STOPS),
        foreground_share=(GROUND_SHARE, GROUND_SHARE),
    )
    drawn = simulate_backlight(torch.from_numpy(photo).permute(2, 0, 1), torch.Generator().manual_seed(0), ranges)
    mask = drawn.mask[0].numpy()
    backlit = np.ascontiguousarray(drawn.photo.permute(1, 2, 0).numpy())
    return backlit, mask >= min(0.9, mask.max()), mask <= max(0.1, mask.min())


def mean_of_known(values: Sequence[float]) -> float | None:
    """The mean without the NaN, None where nothing else is there."""
    known = [value for value in values if not np.isnan(value)]
    return round(float(np.mean(known)), 4) if known else None


def exposed(photo: np.ndarray, stops: float) -> np.ndarray:
    """The photo (H,W,3) float32 with 2 ** stops times the light, cut at 1."""
    import torch

    from data.backlight import linear_to_srgb, srgb_to_linear

    return linear_to_srgb((srgb_to_linear(torch.from_numpy(photo)) * 2.0**stops).clamp(0, 1)).numpy()


def _hue(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from skimage.color import rgb2hsv

    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    return rgb2hsv(image)[..., 0] * 360, spread > COLOURED * 255
