"""Photo -> file."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import DiskFull, writing
from data.images.metadata import load_exif, raw_texts
from data.images.photo import ImageError, Photo, one_line, to_integers
from data.images.tiff import encode_tiff16

WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}

_LARGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels to a side that libjpeg and WebP can hold
_JPEG_EXIF_LIMIT = 65533  # bytes in one JPEG segment


def write_photo(path: str | Path, photo: Photo, quality: int = 95) -> None:
    """Encode a photo in the format of the suffix (`WRITABLE`); folders are created.

    16-bit photos stay so in PNG and TIFF. A grey photo is written as grey, alpha wherever the format
    has it (in JPEG transparent parts become white), EXIF in all (16-bit TIFF: the texts of its main
    directory; JPEG: up to 64 KB).
    `quality` 1 to 100 is JPEG's (4:4:4) and WebP's. The file appears complete or not at all.
    Raises ImageError where it cannot be written, DiskFull where there is no room for it.
    """
    path = Path(path)
    kind = check_writable(path, *photo.rgb.shape[:2])
    deep = photo.bits == 16 and kind in ("PNG", "TIFF")
    dtype = np.uint16 if deep else np.uint8
    pixels = to_integers(photo.rgb[..., :1] if photo.grey else photo.rgb, dtype)
    has_alpha = photo.alpha is not None and kind != "JPEG"
    if has_alpha:
        pixels = np.concatenate([pixels, to_integers(photo.alpha[..., None], dtype)], axis=2)
    elif photo.alpha is not None:
        alpha = to_integers(photo.alpha[..., None], np.uint8).astype(np.uint16)
        pixels = ((pixels * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    try:
        if not deep:
            data = _encode_pillow(pixels, kind, photo.exif, quality)
        elif kind == "PNG":
            data = _encode_png16(pixels, photo.exif)
        else:
            data = encode_tiff16(pixels, has_alpha, photo.exif)
        with writing(path) as temporary:
            temporary.write_bytes(data)
    except DiskFull:
        raise  # the next photo would not find room either
    except UserError as error:
        raise ImageError(str(error)) from None
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise ImageError(f"{path}: cannot be written: {one_line(error)}") from None


def check_writable(path: Path, height: int, width: int) -> str:
    """Pillow's name of the format that the suffix means.

    Raises ImageError for a suffix or a size (pixels) that cannot be written.
    """
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: expected a suffix out of {', '.join(WRITABLE)}, found '{path.suffix}'")
    limit = _LARGEST.get(kind)
    if limit is not None and max(height, width) > limit:
        raise ImageError(
            f"{path}: cannot be written: {kind} holds at most {limit} pixels to a side, found {width} x {height}; "
            "take PNG or TIFF"
        )
    return kind


def _encode_pillow(pixels: np.ndarray, kind: str, exif: bytes | None, quality: int) -> bytes:
    options: dict = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "exact": True},  # exact: colour under full transparency is kept
    }.get(kind, {})  # TIFF: uncompressed, as Pillow writes EXIF's inner directories only there
    if exif and not (kind == "JPEG" and len(exif) > _JPEG_EXIF_LIMIT):
        options["exif"] = raw_texts(load_exif(exif)) if kind == "TIFF" else exif
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _encode_png16(pixels: np.ndarray, exif: bytes | None) -> bytes:
    import imagecodecs

    data = imagecodecs.png_encode(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    if exif is None:
        return data
    chunk = b"eXIf" + exif.removeprefix(b"Exif\0\0")
    end_of_header = 33  # signature and IHDR have a fixed length
    return (
        data[:end_of_header]
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + data[end_of_header:]
    )
