"""File -> photo."""

import codecs
import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.errors import UserError
from common.files import open_file
from data.images.colour import camera_profile, cmyk_to_rgb, coding_profile, to_srgb
from data.images.jpeg import START, decode_jpeg
from data.images.metadata import block_for, settle
from data.images.photo import STANDARD, ImageError, Limits, Photo, Raster, one_line, to_float, written_size
from data.images.pillow import beside_pixels, decode_other, flat
from data.images.png import SIGNATURE, decode_png
from data.images.tiff import SIGNATURES, decode_tiff

_MAGICS = {START: "JPEG", SIGNATURE: "PNG", **dict.fromkeys(SIGNATURES, "TIFF")}  # for errors
_ORIENTATIONS = {  # EXIF value -> what turns the stored pixels upright
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def read_photo(path: str | Path, *, integers: bool = False, limits: Limits = STANDARD) -> Photo:
    """Decode a photo: EXIF orientation applied, colours converted to sRGB, 16 bits kept.

    `integers`: `rgb` and `alpha` stay uint8 or uint16, a quarter or half of the memory (`rgb` may be a
    read-only view); otherwise they are float32 in [0, 1].

    The content of a file, not its name, says what it is: a picture of pixels that Pillow opens, with 8 or 16 bits a
    channel; of an animation, the first frame. 16-bit colour is read in full from PNG, TIFF and JPEG 2000, and at
    8 bits from other formats. Colours are converted from ICC profiles, from PNG's gAMA, cHRM and cICP, from nclx of
    AVIF and HEIF, and from Adobe RGB as cameras mark it; HDR is read as it is, with a note.
    Raises ImageError (one line) for anything else: missing, empty, not an image, 32 bits, more pixels than `limits`
    allow or than the file can hold, or with data missing.
    """
    return _shaped(_decode(Path(path), limits), integers)


def _shaped(decoded: "_Decoded", integers: bool) -> Photo:
    """The photo with colour (H,W,3), floats unless `integers`."""
    colour = decoded.colour
    rgb, alpha = (a if a is None or integers else to_float(a) for a in (colour, decoded.alpha))
    if rgb.ndim == 2:
        rgb = np.broadcast_to(rgb[..., None], (*rgb.shape, 3)) if integers else np.repeat(rgb[..., None], 3, axis=2)
    return replace(decoded.photo, rgb=rgb, alpha=alpha)


def from_pillow(image: Image.Image) -> Photo:
    """A picture in memory: integers, upright by its EXIF, in sRGB by its ICC profile; other hints at colours, such as
    PNG's gAMA, count only in files (`read_photo`). One that was turned by hand must not say any more that it has to be.

    Raises ImageError without a path for 32 bits a channel, and for a file that turns out to be damaged.
    """
    try:
        colour, alpha = flat(image)  # first: a TIFF is turned, and says so, when it is loaded
    except (OSError, SyntaxError) as error:
        raise ImageError(f"expected a complete image, found damaged data ({one_line(error)})") from None
    raster = beside_pixels(image)
    raster.exif = raster.exif or (image.getexif().tobytes() if image.getexif() else None)
    raster.colour, raster.alpha = colour, alpha
    return _shaped(_settled(raster, None), integers=True)


def read_all(
    paths: Iterable[Path], failures: list[str], *, limits: Limits = STANDARD
) -> Iterator[tuple[Path, np.ndarray]]:
    """Each path and its pixels as `read_rgb8` gives them; for what cannot be read, the reasons go to `failures`."""
    for path in paths:
        try:
            pixels = read_rgb8(path, limits=limits)
        except ImageError as error:
            failures.append(str(error))
        except MemoryError:
            failures.append(f"{path}: expected a photo that fits into memory, found a larger one")
        else:
            yield path, pixels


def read_rgb8(path: str | Path, *, limits: Limits = STANDARD) -> np.ndarray:
    """Decode to (H,W,3) uint8 sRGB, as `read_photo` does but at 8 bits and without alpha. Raises ImageError."""
    colour = _decode(Path(path), limits).colour
    if colour.dtype == np.uint16:
        narrow = np.empty(colour.shape, np.uint8)
        for row in range(len(colour)):  # row by row, for memory
            narrow[row] = (colour[row].astype(np.uint32) * 255 + 32767) // 65535
        colour = narrow
    return np.ascontiguousarray(np.repeat(colour[..., None], 3, axis=2) if colour.ndim == 2 else colour)


@dataclass
class _Decoded:
    colour: np.ndarray  # (H,W) grey or (H,W,3) sRGB, uint8 or uint16
    alpha: np.ndarray | None  # (H,W), the same type
    photo: Photo  # what goes with the pixels


def _beginning(start: bytes) -> str:
    """What a file seems to be that is no picture, by its first bytes; binary formats have control characters there."""
    with contextlib.suppress(UnicodeDecodeError):
        words = codecs.getincrementaldecoder("utf-8")().decode(start).split()  # the last character may be cut
        if words and all(word.isprintable() for word in words):
            return f"a text file that begins with '{' '.join(words)[:16]}'"
    return f"a file that begins with {start[:16]!r}"


def _decode(path: Path, limits: Limits) -> _Decoded:
    try:
        # Pillow warns about large panoramas, which are welcome, and about odd metadata, which we drop
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # not catch_warnings: photos are also read from threads
        Image.MAX_IMAGE_PIXELS = int(limits.max_megapixels * 5e5)  # Pillow refuses twice of it
        with open_file(path) as file:
            start = file.read(512)
            file.seek(0)
            raster = _raster(file, limits)
            return _settled(raster, os.fstat(file.fileno()).st_mtime)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except UserError as error:  # which names the path
        raise ImageError(str(error)) from None
    except MemoryError:
        raise
    except UnidentifiedImageError:
        kind = next((kind for magic, kind in _MAGICS.items() if start.startswith(magic)), None)
        if kind:
            found = f"a {kind} file that is damaged, or of a kind that it does not read"
        else:
            found = _beginning(start) if start else "an empty file"
        raise ImageError(f"{path}: expected an image in a format that is read here, found {found}") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{path}: expected at most {limits.max_megapixels:g} megapixels (data.max_megapixels), "
            "found a header that claims more"
        ) from None
    except Exception as error:  # decoders meet damaged files with every kind of exception
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"{path}: expected a readable file, found: {error.strerror}") from None
        raise ImageError(f"{path}: expected a complete image, found damaged data ({one_line(error)})") from None


def _raster(file: BinaryIO, limits: Limits) -> Raster:
    """The file's picture as it is stored, by the decoder that its first bytes ask for."""
    size = os.fstat(file.fileno()).st_size
    header = file.read(8)
    file.seek(0)
    if header.startswith(START):
        return decode_jpeg(file.read(written_size(file)), limits)
    if header == SIGNATURE:
        return decode_png(file.read(), limits)
    if header[:4] in SIGNATURES:
        return decode_tiff(file, size, limits)
    return decode_other(file, size, limits)


def _settled(raster: Raster, modified: float | None) -> _Decoded:
    """The picture in sRGB and upright, with its metadata."""
    colour, alpha, notes = raster.colour, raster.alpha, raster.notes
    if raster.frames > 1:
        what, parts = ("several pages", "pages") if raster.format == "TIFF" else ("animated", "frames")
        notes.insert(0, f"{what}: first of {raster.frames} {parts}")
    metadata, orientation, directory = settle(raster, modified)
    profile = raster.icc or camera_profile(directory)
    if not profile and raster.coding and (colour.ndim == 2 or colour.shape[2] == 3):
        profile = coding_profile(raster.coding, colour.ndim == 2)
    if profile:
        colour, note = to_srgb(colour, bytes(profile))
        notes += [note] if note else []
    if colour.ndim == 3 and colour.shape[2] == 4:
        colour = cmyk_to_rgb(colour)
    upright = _ORIENTATIONS.get(orientation, np.asarray)
    colour, alpha = upright(colour), None if alpha is None else upright(alpha)
    metadata = replace(metadata, exif=block_for(directory, colour.shape))
    photo = Photo(
        rgb=np.empty(0),
        bits=8 * colour.itemsize,
        grey=colour.ndim == 2,
        metadata=metadata,
        format=raster.format,
        encoding=raster.encoding,
        note="; ".join(dict.fromkeys(notes)) or None,
    )
    return _Decoded(colour, alpha, photo)
