"""Photos in memory: any kind that Python users have, as an array, and back."""

import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from data.images import Photo, from_pillow, read_photo
from data.images.photo import to_integers

# of Pillow's `info`: what is in the pixels of a result, or of a result only as it became
_SETTLED = ("transparency", "icc_profile", "exif", "xmp", "XML:com.adobe.xmp")
OVERSHOOT = 0.25  # how far floats may leave [0, 1]; Lanczos resampling left up to 0.249 at the corner of a white square
AnyPhoto = Image.Image | np.ndarray | str | os.PathLike


def opened(photo: AnyPhoto) -> tuple[np.ndarray, Callable[[np.ndarray], Image.Image | np.ndarray]]:
    """A photo as (H,W,3) uint8, uint16 or float32, and what makes its kind out of a result of that shape and type.

    Pictures are upright by their EXIF and sRGB by their profile, as files are.
    Raises TypeError for anything else than a PIL image, an array or a path, ValueError for arrays of other types, and
    ImageError for a file that is not a photo or an image of 32 bits a channel.
    """
    if isinstance(photo, np.ndarray):
        if photo.dtype.kind == "f" and photo.dtype != np.float32 and is_rgb(photo):  # others are told by their type
            with np.errstate(over="ignore"):  # what is no number then is told
                floats = photo.astype(np.float32)
            return floats, lambda result: result.astype(photo.dtype)
        if photo.dtype.kind == "u" and not photo.dtype.isnative:
            return photo.astype(photo.dtype.newbyteorder("=")), lambda result: result.astype(photo.dtype)
        return photo, lambda result: result
    if isinstance(photo, Image.Image):
        content = from_pillow(photo)
        info = {name: value for name, value in photo.info.items() if name not in _SETTLED}
        return content.rgb, lambda result: _picture(result, content, info)
    if isinstance(photo, str | os.PathLike):
        content = read_photo(photo, integers=True)
        info = {"dpi": content.metadata.dpi} if content.metadata.dpi else {}
        return content.rgb, lambda result: _picture(to_integers(result, np.uint8), content, info)
    raise TypeError(f"photo: expected a PIL image, an array (H, W, 3) or a path, found {type(photo).__name__}")


def is_rgb(photo: np.ndarray) -> bool:
    """Whether an array is (H,W,3) with a pixel or more."""
    return photo.ndim == 3 and photo.shape[2] == 3 and photo.size > 0


def check_photo(rgb: np.ndarray) -> None:
    """Raises ValueError for what is no photo."""
    if not is_rgb(rgb) or rgb.dtype not in (np.float32, np.uint8, np.uint16):
        hint = "; drop its alpha channel: rgb[..., :3]" if rgb.ndim == 3 and rgb.shape[2] == 4 else ""
        raise ValueError(f"photo: expected (H, W, 3) float32, uint8 or uint16, found {rgb.shape} {rgb.dtype}{hint}")
    if rgb.dtype == np.float32:
        low, high = rgb.min(), rgb.max()  # NaN where there is one, which would spread to all the map
        if not np.isfinite([low, high]).all():
            raise ValueError("photo: expected values in [0, 1], found NaN or infinity")
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            raise ValueError(f"photo: expected values in [0, 1], found {low:g} to {high:g}")


def _picture(rgb: np.ndarray, photo: Photo, info: dict) -> Image.Image:
    """The result of a photo, with its alpha and EXIF; `info`: what else Pillow is to know of it."""
    pixels = rgb[..., 0] if photo.grey else rgb
    if photo.alpha is not None:
        pixels = np.dstack([pixels, to_integers(photo.alpha, pixels.dtype)])
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    exif = {"exif": photo.metadata.exif} if photo.metadata.exif else {}
    picture.info = info | exif
    return picture
