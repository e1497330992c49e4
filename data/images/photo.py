"""What a photo is, decoded and still as its file holds it, and the one error of reading and writing it."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import numpy as np

from common.errors import UserError

BLOCK = 4096  # bytes, in which file systems give room
_NOT_ZEROS, _NOT_ONES = re.compile(rb"[^\0]"), re.compile(rb"[^\xff]")
# something other than a picture for a decoder that goes on reading where data are missing
FILLER = bytes(range(1, 0xFF)) * 16
LAST = 16  # bytes at the end of compressed data, of which something is in a complete picture
LUMA = (0.299, 0.587, 0.114)  # of R, G, B: ITU-R BT.601
STRIP = 1 << 21  # pixels; conversions go through a photo in strips of about so many, for memory


class ImageError(UserError):
    """A photo that cannot be read or written; one line, "PATH: expected ..., found ..."."""


@dataclass(frozen=True)
class Limits:
    """What is read at all."""

    max_megapixels: float = 300.0
    """Larger photos are refused, by their header."""
    incomplete: Literal["refuse", "accept"] = "refuse"
    """Photos whose file lacks data: an error, or what is there with a note. JPEG and TIFF; others always are."""


STANDARD = Limits()


@dataclass(frozen=True)
class Metadata:
    """What a file says about its photo beside the pixels, true for an upright sRGB picture."""

    exif: bytes | None = None
    """EXIF block (with its `Exif\\0\\0` prefix) without the orientation, which the pixels have already."""
    xmp: bytes | None = None
    """XMP packet, without the orientation."""
    iptc: bytes | None = None
    """IPTC-IIM records."""
    dpi: tuple[float, float] | None = None
    """Pixels an inch, across and down, where the format says so outside EXIF."""
    texts: dict[str, str] = field(default_factory=dict)
    """Texts by keyword, such as PNG's; a comment without one has the keyword "Comment"."""
    intent: int | None = None
    """Rendering intent, 0 to 3 as in ICC profiles."""
    modified: float | None = None
    """When the file was last changed, in seconds since 1970."""


@dataclass(frozen=True)
class Encoding:
    """How a file was compressed, for a result that is compressed alike."""

    lossless: bool = False
    """A WebP file without loss."""
    tables: dict[int, list[int]] | None = None
    """Quantization tables of a JPEG file, as Pillow takes them."""
    subsampling: int = -1
    """Chroma subsampling of a JPEG file, as Pillow numbers it; -1: none that it can write."""
    progressive: bool = False


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
    metadata: Metadata = Metadata()
    format: str = ""
    """Pillow's name of the source format, such as "JPEG"."""
    encoding: Encoding = Encoding()
    note: str | None = None
    """What a user should know, such as "animated: first of 12 frames"."""


@dataclass(frozen=True)
class Coding:
    """What colours mean where no ICC profile says it. None: as in sRGB."""

    primaries: tuple[float, ...] | None = None
    """Chromaticities x, y of white, red, green and blue."""
    gamma: float | None = None
    """Light is the value to this power."""


@dataclass
class Raster:
    """What a file holds, as it is stored: colours not yet sRGB, perhaps not upright."""

    colour: np.ndarray
    """(H,W) grey, (H,W,3) RGB or (H,W,4) CMYK, uint8 or uint16."""
    format: str
    alpha: np.ndarray | None = None
    """(H,W), of the same type."""
    orientation: int | None = None
    """EXIF's; None: as EXIF or XMP say."""
    exif: "bytes | dict | None" = None
    """An EXIF block, or the directory of a TIFF file (`data.images.tags`)."""
    xmp: bytes | None = None
    iptc: bytes | None = None
    icc: bytes | None = None
    coding: Coding | None = None
    dpi: tuple[float, float] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    intent: int | None = None
    frames: int = 1
    encoding: Encoding = Encoding()
    notes: list[str] = field(default_factory=list)


def written_size(file: BinaryIO) -> int:
    """Bytes of a file without a tail of zeros or ones of `BLOCK` bytes or more; its position stays as it was.

    Such a tail has room on the disk and no content: a copy or a download was broken off, or a card has failed.
    """
    position, end = file.tell(), file.seek(0, os.SEEK_END)
    at, last = end, b""
    while at:
        start = max(0, at - BLOCK)
        file.seek(start)
        data = file.read(at - start)
        last = last or data[-1:]
        kept = len(data.rstrip(last)) if last in (b"\0", b"\xff") else len(data)
        at = start + kept
        if kept:
            break
    file.seek(position)
    return at if end - at >= BLOCK else end


def holes(data: bytes) -> list[tuple[int, int]]:
    """Start and end of each run of `BLOCK` zeros or ones or more: what a file system or a card has lost of a file.

    In compressed data only large areas of one colour look like that, if anything does; how large: see each format.
    """
    found = []
    for lost_block, other in ((b"\0" * BLOCK, _NOT_ZEROS), (b"\xff" * BLOCK, _NOT_ONES)):
        at = data.find(lost_block)
        while at >= 0:
            following = other.search(data, at)
            end = following.start() if following else len(data)
            found.append((at, end))
            at = data.find(lost_block, end)
    return found


def lost(gaps: list[tuple[int, int]]) -> str:
    """What a user is told of them."""
    return f"{sum(end - start for start, end in gaps):,} bytes inside its data are missing"


def matters(
    data: bytes, gaps: list[tuple[int, int]], colour: np.ndarray, decode: Callable[[bytes], np.ndarray]
) -> bool:
    """Whether `data` give another picture than `colour`, or none, with other bytes in the gaps: these belong to it."""
    other = bytearray(data)
    for start, end in gaps:
        other[start:end] = (FILLER * (1 + (end - start) // len(FILLER)))[: end - start]
    try:
        return not np.array_equal(decode(bytes(other)), colour)
    except Exception:  # decoders meet damaged files with every kind of exception
        return True


def strips(array: np.ndarray, multiple: int = 1) -> Iterator[slice]:
    """Rows of (H,W,...) in strips of about `STRIP` pixels, each but the last of a multiple of `multiple` rows."""
    step = max(1, STRIP // max(1, array.shape[1] * multiple)) * multiple
    for top in range(0, array.shape[0], step):
        yield slice(top, top + step)


def to_float(values: np.ndarray) -> np.ndarray:
    """Integers of either depth -> float32 in [0, 1]."""
    result = values.astype(np.float32)
    result /= np.iinfo(values.dtype).max
    return np.ascontiguousarray(result)


def to_integers(values: np.ndarray, dtype: type) -> np.ndarray:
    """Floats in [0, 1], rounded, or integers of either depth -> integers; the same array where nothing changes."""
    if values.dtype == dtype:
        return values
    result = np.empty(values.shape, dtype)
    for rows in strips(values):
        part = values[rows]
        part = np.clip(to_float(part) if part.dtype.kind == "u" else part, 0, 1)
        part *= np.float32(np.iinfo(dtype).max)
        result[rows] = np.rint(part, out=part)
    return result


def one_line(error: BaseException) -> str:
    """The text of an exception on one line, or its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
