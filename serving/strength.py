"""How far a photo is brightened: by its own statistics, and by one decision for a scene.

`auto` goes by m, the mean of min(X, 1/2) with X the largest channel: cut at 1/2, a bright sky does not make up for dark
ground. Of 107 backlit training photos 95 % lie below 0.22, of 330 well-lit ones 95 % above 0.35, and the 40 darkest
well-lit ones, dim on purpose, above 0.31. In between the strength falls smoothly.

A series (a burst, a panorama, a time-lapse) flickers where each photo gets a decision of its own: the network sees the
whole frame too. So of a scene all photos are brightened by the same number of stops.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from data.images import STANDARD, ImageError, Limits, read_photo
from data.images.photo import strips
from serving.finish import unit

if TYPE_CHECKING:
    from serving.enhancer import Enhancer
    from serving.jobs import Job

FULL, NONE = 0.22, 0.32  # m up to which `auto` is 1, and from which it is 0
SIDE = 256  # pixels, the longer side at which the photos of a scene are compared
MOST = 2.0  # power of the map that one photo may get for the scene's sake

Strength = float | Literal["auto"]


def auto_strength(light: float) -> float:
    """m of a photo (`mean_light`) -> strength in [0, 1]: 1 up to `FULL`, 0 from `NONE`, a smooth step between."""
    x = float(np.clip((NONE - light) / (NONE - FULL), 0, 1))
    return x * x * (3 - 2 * x)


def mean_light(rgb: np.ndarray) -> float:
    """m of a photo (H,W,3) of any type, in [0, 1/2]."""
    sums = sum(float(np.minimum(unit(rgb[rows]).max(axis=2), 0.5).sum(dtype=np.float64)) for rows in strips(rgb))
    return sums / (rgb.shape[0] * rgb.shape[1])


def check_strength(strength: Strength) -> None:
    """Raises ValueError for what is no strength of a photo."""
    try:
        known = strength == "auto" or 0 <= strength <= 1
    except TypeError:
        raise ValueError(f"strength: expected a number or 'auto', found {strength!r}") from None
    if not known:
        raise ValueError(f"strength: expected 0 to 1 or 'auto', found {strength}")


def resolved(strength: Strength, rgb: np.ndarray) -> float:
    """The strength of one photo by itself."""
    return auto_strength(mean_light(rgb)) if strength == "auto" else strength


def shared(strength: Strength, light: Sequence[float], stops: Sequence[float]) -> list[float]:
    """The strengths at which all photos of a scene are brightened alike, at most `MOST`.

    light: m of each photo; stops: how far each would be brightened at strength 1, the mean of -log2 M. Their medians
    decide for all.
    """
    whole = auto_strength(float(np.median(light))) if strength == "auto" else strength
    common = whole * float(np.median(stops))
    return [min(MOST, common / own) if own > 0 and common > 0 else whole for own in stops]


def of_scenes(
    jobs: Iterable["Job"], enhancer: "Enhancer", strength: Strength, limits: Limits = STANDARD
) -> dict[Path, float]:
    """Photo -> its strength, where the photos of each folder are one scene. Photos that cannot be read are left out."""
    from PIL import Image

    from data.images.photo import to_integers

    folders: dict[Path, list[Path]] = defaultdict(list)
    for job in jobs:
        folders[job.source.parent].append(job.source)
    found = {}
    for photos in folders.values():
        known, light, stops = [], [], []
        for path in photos:
            try:
                picture = Image.fromarray(to_integers(read_photo(path, integers=True, limits=limits).rgb, np.uint8))
            except (ImageError, MemoryError):
                continue  # its turn comes, and then the reason is told
            picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
            rgb = np.asarray(picture)
            known.append(path)
            light.append(mean_light(rgb))
            stops.append(-float(np.log2(np.clip(enhancer.illumination(rgb), 1e-3, None)).mean()))
        found |= dict(zip(known, shared(strength, light, stops) if known else [], strict=True))
    return found
