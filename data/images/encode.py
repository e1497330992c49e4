"""Photo -> file."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from common.errors import UserError
from common.files import DiskFull, writing
from data.images import tags
from data.images.colour import over_white
from data.images.jpeg import iptc_segment
from data.images.metadata import with_resolution
from data.images.photo import Encoding, ImageError, Metadata, Photo, one_line, to_integers
from data.images.png import with_chunks
from data.images.tiff import write_tiff

WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
QUALITY = 95  # of JPEG and WebP, where the source says none
PNG_LEVEL = 2  # of zlib: a quarter of the time of level 6, its default, and files that are 5 % larger

_LARGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels to a side that libjpeg and WebP can hold
_SEGMENT = 65533  # bytes in one JPEG segment
_XMP_SEGMENT = _SEGMENT - 29  # without the name before it


def write_photo(
    path: str | Path,
    photo: Photo,
    quality: int | Literal["keep"] = QUALITY,
    metadata: Literal["all", "none"] = "all",
    png_level: int = PNG_LEVEL,
    finished: Callable[[Path], None] = lambda temporary: None,
) -> str | None:
    """Encode a photo in the format of the suffix (`WRITABLE`); folders are created.

    16-bit photos stay so in PNG and TIFF. A grey photo is written as grey, alpha wherever the format
    has it (in JPEG transparent parts become white).
    `quality` 1 to 100 is JPEG's (4:4:4) and WebP's; "keep" takes the tables and subsampling of a JPEG source, and else
    `QUALITY`. A lossless WebP source stays lossless in WebP. `png_level` 0 to 9: how long PNG's compression looks for
    repeats; pixels are the same.
    `metadata` "all" writes what the format can hold of EXIF, XMP, IPTC, resolution, texts, rendering intent and the
    time of the file's last change; "none" the pixels alone.
    The file appears complete or not at all; `finished` is called with it before it takes its name.
    Gives a note where metadata did not fit.
    Raises ImageError where it cannot be written, DiskFull where there is no room for it.
    """
    path = Path(path)
    kind = check_writable(path, *photo.rgb.shape[:2])
    dtype = np.uint16 if photo.bits == 16 and kind in ("PNG", "TIFF") else np.uint8
    pixels = to_integers(photo.rgb[..., :1] if photo.grey else photo.rgb, dtype)
    has_alpha = photo.alpha is not None and kind != "JPEG"
    if has_alpha:
        pixels = np.concatenate([pixels, to_integers(photo.alpha[..., None], dtype)], axis=2)
    elif photo.alpha is not None:
        pixels = over_white(pixels, to_integers(photo.alpha, np.uint8))
    kept = photo.metadata if metadata == "all" else Metadata()
    notes: list[str] = []
    try:
        with writing(path) as temporary:
            if kind == "TIFF":
                directory = with_resolution(tags.unpack(kept.exif), kept.dpi)
                write_tiff(temporary, pixels, has_alpha, kept, directory)
            else:
                encode = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}[kind]
                effort = png_level if kind == "PNG" else quality
                temporary.write_bytes(encode(pixels, kept, photo.encoding, effort, notes))
            if kept.modified is not None:
                os.utime(temporary, (kept.modified, kept.modified))
            finished(temporary)
    except DiskFull:
        raise  # the next photo would not find room either
    except UserError as error:
        raise ImageError(str(error)) from None
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise ImageError(f"{path}: cannot be written: {one_line(error)}") from None
    return "; ".join(notes) or None


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


def _png(pixels: np.ndarray, metadata: Metadata, encoding: Encoding, level: int, notes: list[str]) -> bytes:
    if pixels.dtype == np.uint8:
        return with_chunks(_by_pillow(pixels, "PNG", {"compress_level": level}), metadata)
    import imagecodecs

    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return with_chunks(imagecodecs.png_encode(pixels, level=level), metadata)


def _jpeg(pixels: np.ndarray, metadata: Metadata, encoding: Encoding, quality: int | str, notes: list[str]) -> bytes:
    options: dict = {"quality": QUALITY if quality == "keep" else quality, "subsampling": 0}
    grey = pixels.shape[2] == 1
    if quality == "keep" and encoding.tables and (grey or len(encoding.tables) > 1):
        options = {"qtables": encoding.tables, "progressive": encoding.progressive}
        options["subsampling"] = max(encoding.subsampling, 0)
    exif, dropped = tags.block(tags.unpack(metadata.exif), _SEGMENT)
    if dropped:
        notes.append(f"EXIF above 64 KB, which JPEG cannot hold: left out its largest parts ({_names(dropped)})")
    xmp, iptc = metadata.xmp, iptc_segment(metadata.iptc) if metadata.iptc else None
    if xmp and len(xmp) > _XMP_SEGMENT:
        xmp = None
        notes.append("XMP left out, it is above 64 KB, which JPEG cannot hold")
    if metadata.iptc and iptc is None:
        notes.append("IPTC left out, it is above 64 KB, which JPEG cannot hold")
    comment = metadata.texts.get("Comment", "").encode("utf-8", "replace")
    known = {"exif": exif, "xmp": xmp, "extra": iptc, "comment": comment[:_SEGMENT]}
    options |= {name: value for name, value in known.items() if value}
    if metadata.dpi and max(metadata.dpi) < 65536:
        options["dpi"] = tuple(max(1, round(value)) for value in metadata.dpi)
    return _by_pillow(pixels, "JPEG", options)


def _webp(pixels: np.ndarray, metadata: Metadata, encoding: Encoding, quality: int | str, notes: list[str]) -> bytes:
    options: dict = {"quality": QUALITY if quality == "keep" else quality}
    options |= {"lossless": encoding.lossless, "exact": True}  # exact: colour under full transparency is kept
    exif = tags.block(with_resolution(tags.unpack(metadata.exif), metadata.dpi))[0]
    options |= {name: value for name, value in (("exif", exif), ("xmp", metadata.xmp)) if value}
    return _by_pillow(pixels, "WEBP", options)


def _by_pillow(pixels: np.ndarray, kind: str, options: dict) -> bytes:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _names(dropped: list[int]) -> str:
    return ", ".join(ExifTags.TAGS.get(tag, f"tag {tag}") for tag in dropped)
