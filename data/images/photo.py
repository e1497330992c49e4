"""What a decoded photo is, and the one error of reading and writing it."""

from dataclasses import dataclass

import numpy as np

from common.errors import UserError


class ImageError(UserError):
    """A photo that cannot be read or written; one line, "PATH: expected ..., found ..."."""


@dataclass
class Photo:
    """A decoded photo."""

    rgb: np.ndarray
    """(H,W,3) sRGB, float32 in [0, 1] or the file's own uint8 or uint16; a grey photo has three equal channels."""
    alpha: np.ndarray | None = None
    """(H,W), as `rgb`, not premultiplied; None: opaque."""
    bits: int = 8
    """Bits a channel of the file: 8 or 16."""
    grey: bool = False
    """The file holds one channel; it is written that way again."""
    exif: bytes | None = None
    """EXIF block (with its `Exif\\0\\0` prefix) without the orientation, which `rgb` has already."""
    format: str = ""
    """Pillow's name of the source format, such as "JPEG"."""
    note: str | None = None
    """What a user should know, such as "animated: first of 12 frames"."""


def to_float(values: np.ndarray) -> np.ndarray:
    result = values.astype(np.float32)
    result /= np.iinfo(values.dtype).max
    return np.ascontiguousarray(result)


def to_integers(values: np.ndarray, dtype: type) -> np.ndarray:
    """Floats in [0, 1], rounded, or integers of either depth -> integers; the same array where nothing changes."""
    if values.dtype == dtype:
        return values
    values = np.clip(to_float(values) if values.dtype.kind == "u" else values, 0, 1)
    values *= np.float32(np.iinfo(dtype).max)
    return np.rint(values, out=values).astype(dtype)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
