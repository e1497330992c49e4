"""Photos in memory: any kind that Python users have, as an array, and back."""

import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from data.images import read_photo
from data.images.photo import to_integers
from data.images.pillow import flat

AnyPhoto = Image.Image | np.ndarray | str | os.PathLike


def opened(photo: AnyPhoto) -> tuple[np.ndarray, Callable[[np.ndarray], Image.Image | np.ndarray]]:
    """A photo as (H,W,3) uint8, uint16 or float32, and what makes its kind out of a result of that shape and type.

    Raises TypeError for anything else than a PIL image, an array or a path, ValueError for arrays of other types, and
    ImageError for a file that is not a photo or an image of 32 bits a channel.
    """
    if isinstance(photo, np.ndarray):
        if photo.dtype.kind == "f" and photo.dtype != np.float32 and is_rgb(photo):  # others are told by their type
            return photo.astype(np.float32), lambda result: result.astype(photo.dtype)
        return photo, lambda result: result
    if isinstance(photo, Image.Image):
        colour, alpha = flat(photo if photo.mode != "CMYK" else photo.convert("RGB"))
        info = {name: value for name, value in photo.info.items() if name != "transparency"}  # it is in `alpha`
        rgb = np.broadcast_to(colour[..., None], (*colour.shape, 3)) if colour.ndim == 2 else colour
        return rgb, lambda result: _picture(result, alpha, grey=colour.ndim == 2, info=info)
    if isinstance(photo, str | os.PathLike):
        file = read_photo(photo, integers=True)
        alpha = None if file.alpha is None else to_integers(file.alpha, np.uint8)
        return file.rgb, lambda result: _picture(to_integers(result, np.uint8), alpha, grey=file.grey, info={})
    raise TypeError(f"photo: expected a PIL image, an array (H, W, 3) or a path, found {type(photo).__name__}")


def is_rgb(photo: np.ndarray) -> bool:
    """Whether an array is (H,W,3) with a pixel or more."""
    return photo.ndim == 3 and photo.shape[2] == 3 and photo.size > 0


def _picture(rgb: np.ndarray, alpha: np.ndarray | None, *, grey: bool, info: dict) -> Image.Image:
    pixels = rgb[..., 0] if grey else rgb
    if alpha is not None:
        pixels = np.dstack([pixels, alpha])
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.info = dict(info)
    return picture
