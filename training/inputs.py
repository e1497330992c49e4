"""What the UNet is trained on: backlit photos, with their ground truths where there are any,
and well-lit photos among them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from configs.schema import TrainConfig, TrainData
from data.augment import training_augmentation
from data.backlight import BacklightRanges, RandomBacklight
from data.folders import MixedInputs, PairedPhotos, PhotoArray, ResizedPhotos
from data.listing import list_images
from data.low_key import LOW_KEY, RandomLowKey, low_key_part
from metrics.pairing import Pair, pair

DIM_SHARE = 1 / 3  # of the well-lit photos that count as dim, the darkest


def check_truths(config: TrainConfig) -> None:
    """Raises UserError where the supervised loss stands alone and some inputs have no ground truth to compare with."""
    loss, data = config.loss, config.data
    alone = loss.pixel and not loss.residual and not loss.identity_guided
    if alone and data.pairs is None and data.simulated_backlight.shares < 1:
        raise UserError(
            "data.pairs: expected a folder of ground truths, as loss.pixel stands alone (or "
            "data.simulated_backlight.share, dim and low_key of together 1), found nothing (null)"
        )


def truth_pairs(data: TrainData, backlit: Sequence[Path]) -> tuple[list[Pair], list[str]]:
    """The training photos that have a ground truth in `data.pairs`, and what is amiss.

    Raises UserError where none has.
    """
    if data.pairs is None:
        return [], []
    list_images(data.pairs, "data.pairs")
    wanted = set(backlit)
    found = pair(data.backlit_images_path, data.pairs)
    pairs = [p for p in found.pairs if p.enhanced in wanted]
    if not pairs:
        raise UserError(
            "data.pairs: expected ground truths named as photos of data.backlit_images_path, "
            f"found none in {data.pairs}"
        )
    known = {path.relative_to(data.backlit_images_path).as_posix() for path in wanted}
    notes = [f"data.pairs: {name} is left out: {reason}" for name, reason in found.problems if name in known]
    if lonely := len(wanted) - len(pairs) - len(notes):
        notes.append(f"data.pairs: {lonely} backlit photos have no ground truth of their name and are left out")
    return pairs, notes


def unet_inputs(
    data: TrainData, cache: str, backlit: Sequence[Path], well_lit: Sequence[Path], truths: Sequence[Pair]
) -> ResizedPhotos | MixedInputs:
    """Photos at `data.image_size`, as `data` mixes them. Raises UserError where a folder has none that can be read."""
    augmentation = training_augmentation() if data.augment else None

    def read(paths: Sequence[Path]) -> ResizedPhotos:
        return ResizedPhotos(paths, data.image_size, cache, augmentation, limits=data.limits, leave_out_uniform=True)

    simulated = data.simulated_backlight
    if not (truths or simulated.shares):
        return read(backlit)
    if truths:
        inputs, targets = read([p.enhanced for p in truths]), read([p.truth for p in truths])
        places = [{path: row for row, path in enumerate(photos.paths)} for photos in (inputs, targets)]
        both = [p for p in truths if p.enhanced in places[0] and p.truth in places[1]]
        if not both:
            raise UserError("data.pairs: expected pairs that can be read, found none")
        rows = [(places[0][p.enhanced], places[1][p.truth]) for p in both]
        photos, skipped = PairedPhotos(inputs, targets, rows, augmentation), [*inputs.skipped, *targets.skipped]
        uniform = [*inputs.uniform, *targets.uniform]
    else:
        photos = read(backlit)
        skipped, uniform = photos.skipped, photos.uniform
    if not simulated.shares:
        return MixedInputs(photos, skipped=skipped, uniform=uniform)
    lit = read(well_lit)
    ranges = BacklightRanges(**{name: tuple(getattr(simulated, name)) for name in BacklightRanges.__dataclass_fields__})
    darken = RandomBacklight(ranges, simulated.untouched, augmentation, even=simulated.even)
    others = [(simulated.share, PhotoArray(lit.pixels, darken))]
    if simulated.dim:
        dim, bright = _by_brightness(lit.pixels)
        keep = RandomBacklight(ranges, 1.0, augmentation)
        others = [(simulated.share, PhotoArray(bright, darken)), (simulated.dim, PhotoArray(dim, keep))]
    if simulated.low_key:
        others.append((simulated.low_key, PhotoArray(_with_low_key(lit), RandomLowKey(augmentation))))
    return MixedInputs(photos, others, [*skipped, *lit.skipped], [*uniform, *lit.uniform])


def _by_brightness(photos: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The darkest photos (at least one), and the others, in memory."""
    pixels = [np.array(photo) for photo in photos]
    order = np.argsort([photo.mean() for photo in pixels], kind="stable")
    count = max(1, round(DIM_SHARE * len(pixels)))
    return [pixels[i] for i in order[:count]], [pixels[i] for i in order[count:] if len(pixels) > 1] or [
        pixels[order[0]]
    ]


def _with_low_key(photos: PhotoArray) -> list[np.ndarray]:
    """The photos that have a low-key part, in memory. Raises UserError where none has."""
    found = [np.array(photos.pixels[i]) for i in range(len(photos)) if low_key_part(photos[i]) is not None]
    if not found:
        raise UserError(
            "data.simulated_backlight.low_key: expected well-lit photos with dark parts (of a mean below "
            f"{LOW_KEY:g}), found none among {len(photos)}"
        )
    return found
