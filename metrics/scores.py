"""Results of methods and of other programs, scored alike against ground truths.

Photos, results and ground truths are (H,W,3) sRGB, uint8 where nothing else is said.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from data.images import read_rgb8
from data.images.photo import to_integers
from data.listing import list_images
from metrics.full_reference import RGB_WINDOW, psnr_rgb, ssim_rgb
from metrics.harm import Method, change, hue_error, mean_of_known, newly_clipped
from metrics.pairing import pair

PROBED_SIDE = 192  # pixels, the longer side of ground truths that are darkened and simulated


@dataclass(frozen=True)
class Row:
    """A row: a method, or what another program made of each photo."""

    method: Method | None  # (H,W,3) float32 in [0, 1] -> the same
    results: dict[Path, Path] = field(default_factory=dict)

    def has(self, photos: list[Path]) -> bool:
        """Whether it has a result of each."""
        return self.method is not None or all(photo in self.results for photo in photos)

    def __call__(self, path: Path, photo: np.ndarray) -> np.ndarray:
        """The result, uint8, of a photo (H,W,3) uint8. Raises UserError for a result of another size."""
        if self.method:
            return to_integers(self.method(photo.astype(np.float32) / 255), np.uint8)
        result = read_rgb8(self.results[path])
        check_size(self.results[path], result, photo.shape)
        return result

    def change(self, path: Path) -> float:
        """`metrics.harm.change` of a photo that should stay as it is."""
        photo = read_rgb8(path)
        return change(photo, self(path, photo))


def check_size(path: Path, result: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises UserError where a result of another program is not of its photo's shape."""
    if result.shape != shape:
        raise UserError(f"--other: expected {_size(shape)} pixels, found {_size(result.shape)}: {path}")


def other_results(items: list[str], key: str, folder: str | None, photos: list[Path]) -> dict[str, dict[Path, Path]]:
    """Name -> photo -> its result, of `NAME=FOLDER`; photos of `folder` and results are paired by name.

    Raises UserError where a photo has no result.
    """
    found = {}
    for item in items:
        name, _, results = item.partition("=")
        if not name or not results or folder is None:
            expected = "NAME=FOLDER" if folder else "--well-lit with it"
            raise UserError(f"{key}: expected {expected}, found {item}")
        if name in found:
            raise UserError(f"{key}: expected a name for each folder, found {name} twice")
        list_images(results, key, results=True)
        found[name] = {p.truth: p.enhanced for p in pair(results, folder).pairs}
        missing = [photo.name for photo in photos if photo not in found[name]]
        if missing:
            raise UserError(
                f"{key}: expected a result of each of {len(photos)} photos, found none of {len(missing)} in {results}, "
                f"for instance {missing[0]}"
            )
        found[name] = {photo: found[name][photo] for photo in photos}
    return found


def unfit(truth: Path, pixels: np.ndarray | None, shape: tuple[int, ...] | None, failures: list[str]) -> bool:
    """Whether a ground truth cannot be compared with a photo of a shape; None for what could not be read, and was told.

    Adds to `failures` where the sizes differ, or are too small for SSIM.
    """
    if pixels is None or shape is None:
        return True
    if pixels.shape != shape:
        failures.append(f"{truth}: expected {_size(shape)} pixels as its photo, found {_size(pixels.shape)}")
    elif min(shape[:2]) < RGB_WINDOW:
        failures.append(f"{truth}: expected at least {RGB_WINDOW} pixels a side, found {_size(shape)}")
    else:
        return False
    return True


def _size(shape: tuple[int, ...]) -> str:
    """Of (H,W,3): width and height."""
    return f"{shape[1]} x {shape[0]}"


def score(row: Row, path: Path, backlit: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Figures of one photo and its result; NaN for what it has not."""
    start = time.perf_counter()
    result = row(path, backlit)
    seconds = time.perf_counter() - start if row.method else float("nan")
    return {
        "psnr": psnr_rgb(result, truth),
        "ssim": ssim_rgb(result, truth),
        "clipped": newly_clipped(backlit, result),
        "hue_error": hue_error(result, truth),
        "seconds_per_photo": seconds,
        "seconds_per_megapixel": seconds / (backlit.shape[0] * backlit.shape[1] / 1e6),
    }


def low_key_parts(paths: Iterable[Path]) -> list[np.ndarray]:
    """The darkest part (h,w,3) uint8 of each photo that has a low-key one (`data.low_key`): as dark as photos that have
    to be lifted, and on purpose.
    """
    import torch

    from data.low_key import low_key_part

    photos = (torch.from_numpy(read_rgb8(path)).permute(2, 0, 1).float() / 255 for path in paths)  # one at a time
    parts = (low_key_part(photo) for photo in photos)
    return [to_integers(part.permute(1, 2, 0).numpy(), np.uint8) for part in parts if part is not None]


def reduced(photo: np.ndarray) -> np.ndarray:
    """(H,W,3) uint8 -> float32 in [0, 1], the longer side at most `PROBED_SIDE`."""
    picture = Image.fromarray(photo)
    picture.thumbnail((PROBED_SIDE, PROBED_SIDE), Image.Resampling.BOX)
    return np.asarray(picture, np.float32) / 255


def means(scores: list[dict[str, float]]) -> dict[str, float | None]:
    """Means; of what not every photo has (a hue), over those that have it, None where none has."""
    return {key: mean_of_known([score[key] for score in scores]) for key in scores[0]}


def clahe(photo: np.ndarray) -> np.ndarray:
    """scikit-image's, with its defaults: on V of HSV."""
    from skimage.exposure import equalize_adapthist

    return equalize_adapthist(photo)


def start_map(photo: np.ndarray) -> np.ndarray:
    """What `unet_model.first_map: retinex` teaches the network before it is guided, without a network."""
    import torch

    from models.retinex import enhance, first_illumination

    images = torch.from_numpy(photo).permute(2, 0, 1)[None]
    return enhance(images, first_illumination(images))[0].permute(1, 2, 0).numpy()
