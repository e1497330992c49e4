"""File -> photo."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from common.errors import UserError
from common.files import open_file
from data.images.colour import camera_profile, cmyk_to_rgb, to_srgb
from data.images.metadata import exif_block
from data.images.photo import ImageError, Photo, one_line, to_float
from data.images.raster import decode_pillow, decode_png16
from data.images.tiff import decode_tiff

_ICC_TAG, _BITS_TAG, _SUBFILE_TAG = 34675, 258, 254  # of TIFF
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATIONS = {  # EXIF value -> what turns the stored pixels upright
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@dataclass
class _Decoded:
    colour: np.ndarray  # (H,W) grey or (H,W,3) sRGB, uint8 or uint16
    alpha: np.ndarray | None  # (H,W), the same type
    exif: bytes | None
    format: str
    note: str | None


def read_photo(path: str | Path, *, integers: bool = False) -> Photo:
    """Decode a photo: EXIF orientation applied, colour profile converted to sRGB, 16 bits kept.

    `integers`: `rgb` and `alpha` stay uint8 or uint16, a quarter or half of the memory (`rgb` may be a
    read-only view); otherwise they are float32 in [0, 1].

    Reads what Pillow reads, with 8 or 16 bits a channel; of an animation, the first frame. 16-bit
    colour is read in full from PNG and TIFF, and at 8 bits from other formats.
    Raises ImageError (one line) for anything else: missing, empty, truncated, not an image, 32 bits,
    or a header that claims more than twice Pillow's `MAX_IMAGE_PIXELS`.
    """
    decoded = _decode(Path(path))
    colour = decoded.colour
    rgb, alpha = (a if a is None or integers else to_float(a) for a in (colour, decoded.alpha))
    if rgb.ndim == 2:
        rgb = np.broadcast_to(rgb[..., None], (*rgb.shape, 3)) if integers else np.repeat(rgb[..., None], 3, axis=2)
    return Photo(
        rgb=rgb,
        alpha=alpha,
        bits=8 * colour.itemsize,
        grey=colour.ndim == 2,
        exif=decoded.exif,
        format=decoded.format,
        note=decoded.note,
    )


def read_rgb8(path: str | Path) -> np.ndarray:
    """Decode to (H,W,3) uint8 sRGB, as `read_photo` does but at 8 bits and without alpha. Raises ImageError."""
    colour = _decode(Path(path)).colour
    if colour.dtype == np.uint16:
        colour = ((colour.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(colour[..., None], 3, axis=2) if colour.ndim == 2 else colour)


def _decode(path: Path) -> _Decoded:
    try:
        # Pillow warns about large panoramas, which are welcome, and about odd metadata, which we drop
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # not catch_warnings: photos are also read from threads
        with open_file(path) as file:
            return _decode_file(path, file)
    except (ImageError, MemoryError):
        raise
    except UserError as error:
        raise ImageError(str(error)) from None
    except UnidentifiedImageError:
        found = "an empty file" if path.stat().st_size == 0 else "something else"
        raise ImageError(f"{path}: expected an image in a format that Pillow reads, found {found}") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS / 1e6
        raise ImageError(f"{path}: expected at most {limit:.0f} megapixels, found a header that claims more") from None
    except Exception as error:  # decoders meet damaged files with every kind of exception
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"{path}: expected a readable file, found: {error.strerror}") from None
        raise ImageError(f"{path}: expected a complete image, found damaged data ({one_line(error)})") from None


def _decode_file(path: Path, file: BinaryIO) -> _Decoded:
    header = file.read(26)
    file.seek(0)
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        if header[:4] not in _TIFF_SIGNATURES:
            raise
        image = None  # a TIFF layout that Pillow lacks, such as 16-bit grey with alpha
    notes = []
    if image is not None and image.format == "TIFF" and image.tag_v2.get(_SUBFILE_TAG, 0) & 1:
        raise ImageError(
            f"{path}: expected a photo, found a preview on its first page, as in camera raw files; "
            "develop it to TIFF or JPEG"
        )
    if image is None or (image.format == "TIFF" and np.max(image.tag_v2.get(_BITS_TAG, 1)) > 8):
        colour, alpha, frames = decode_tiff(path, file)
        file.seek(0)
        exif = Image.Exif()
        exif.load_from_fp(file)
        profile = exif.get(_ICC_TAG)
        kind = "TIFF"
    else:
        kind = image.format
        frames = getattr(image, "n_frames", 1)  # before load: it reads the tags of a TIFF anew
        if kind == "PNG" and header[24] == 16:
            file.seek(0)
            colour, alpha = decode_png16(file.read())
            file.seek(0)
        else:
            colour, alpha = decode_pillow(path, image)
        # LAB is its own profile, applied already
        profile = None if image.mode == "LAB" else image.info.get("icc_profile")
        try:
            exif = image.getexif()  # after load, which turns a TIFF upright and forgets its orientation
        except Exception as error:  # a damaged block must not cost the photo
            exif = Image.Exif()
            notes.append(f"EXIF left out, it is damaged ({one_line(error)})")
    if frames > 1 and kind in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):  # an MPO's further frames are previews
        what, parts = ("several pages", "pages") if kind == "TIFF" else ("animated", "frames")
        notes.append(f"{what}: first of {frames} {parts}")
    profile = profile or camera_profile(exif)
    if profile:
        colour, note = to_srgb(colour, bytes(profile))
        notes += [note] if note else []
    if colour.ndim == 3 and colour.shape[2] == 4:
        colour = cmyk_to_rgb(colour)
    upright = _ORIENTATIONS.get(exif.get(ExifTags.Base.Orientation), np.asarray)
    colour, alpha = upright(colour), None if alpha is None else upright(alpha)
    try:
        block = exif_block(exif, colour.shape)
    except Exception as error:
        block = None
        notes.append(f"EXIF left out, it is damaged ({one_line(error)})")
    return _Decoded(colour, alpha, block, kind, "; ".join(notes) or None)
