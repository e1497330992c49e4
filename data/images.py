"""Photos on disk: the only place of decode and encode.

Pillow reads and writes. It cuts 16-bit colour to 8 bits, so PNG and TIFF files of more than 8 bits
are decoded and encoded by imagecodecs and tifffile, with Pillow still reading their metadata.

Arrays: H height, W width in pixels, after the EXIF orientation has been applied. Colour is sRGB.
"""

import io
import logging
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from errors import UserError
from files import write_atomically

WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}

_ICC_TAG, _BITS_TAG, _SUBFILE_TAG = 34675, 258, 254  # of TIFF
_UNCALIBRATED, _ADOBE_RGB = (
    0xFFFF,
    "R03",
)  # EXIF ColorSpace and interoperability index by which cameras mark Adobe RGB (DCF)
_LARGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels to a side that libjpeg and WebP can hold
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_EXIF_LIMIT = 65533  # bytes in one JPEG segment
_SPACES = {b"RGB ": ("rgb", 3), b"GRAY": ("gray", 1), b"CMYK": ("cmyk", 4)}  # ICC header -> lcms name, channels
_ORIENTATIONS = {  # EXIF value -> what turns the stored pixels upright
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
_BASE = ExifTags.Base
# What the main EXIF directory says about the photo. The others describe the layout of the file they
# were in (strips, tiles, compression, orientation), and would be wrong, or even unreadable, in ours.
_KEPT_TAGS = frozenset({
    _BASE.ImageDescription, _BASE.Make, _BASE.Model, _BASE.XResolution, _BASE.YResolution, _BASE.ResolutionUnit, _BASE.Software,
    _BASE.DateTime, _BASE.Artist, _BASE.HostComputer, _BASE.Copyright, _BASE.Rating, _BASE.RatingPercent, _BASE.XPTitle,
    _BASE.XPComment, _BASE.XPAuthor, _BASE.XPKeywords, _BASE.XPSubject, _BASE.ExifOffset, _BASE.GPSInfo,
})  # fmt: skip


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


@dataclass
class _Decoded:
    colour: np.ndarray  # (H,W) grey or (H,W,3) sRGB, uint8 or uint16
    alpha: np.ndarray | None  # (H,W), the same type
    exif: bytes | None
    format: str
    note: str | None


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


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
    rgb, alpha = (a if a is None or integers else _to_float(a) for a in (colour, decoded.alpha))
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
        with path.open("rb") as file:
            return _decode_file(path, file)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        found = "an empty file" if path.stat().st_size == 0 else "something else"
        raise ImageError(f"{path}: expected an image in a format that Pillow reads, found {found}") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS / 1e6
        raise ImageError(f"{path}: expected at most {limit:.0f} megapixels, found a header that claims more") from None
    except Exception as error:  # decoders meet damaged files with every kind of exception
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"{path}: expected a readable file, found: {error.strerror}") from None
        raise ImageError(f"{path}: expected a complete image, found damaged data ({_one_line(error)})") from None


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
            f"{path}: expected a photo, found a preview on its first page, as in camera raw files; develop it to TIFF or JPEG"
        )
    if image is None or (image.format == "TIFF" and np.max(image.tag_v2.get(_BITS_TAG, 1)) > 8):
        colour, alpha, frames = _decode_tiff(path, file)
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
            colour, alpha = _decode_png16(file.read())
            file.seek(0)
        else:
            colour, alpha = _decode_pillow(path, image)
        profile = (
            None if image.mode == "LAB" else image.info.get("icc_profile")
        )  # LAB is its own profile, applied already
        try:
            exif = image.getexif()  # after load, which turns a TIFF upright and forgets its orientation
        except Exception as error:  # a damaged block must not cost the photo
            exif = Image.Exif()
            notes.append(f"EXIF left out, it is damaged ({_one_line(error)})")
    if frames > 1 and kind in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):  # an MPO's further frames are previews
        notes.append(
            f"{'several pages' if kind == 'TIFF' else 'animated'}: first of {frames} {'pages' if kind == 'TIFF' else 'frames'}"
        )
    profile = profile or _camera_profile(exif)
    if profile:
        colour, note = _to_srgb(colour, bytes(profile))
        notes += [note] if note else []
    if colour.ndim == 3 and colour.shape[2] == 4:
        colour = _cmyk_to_rgb(colour)
    upright = _ORIENTATIONS.get(exif.get(_BASE.Orientation), np.asarray)
    colour, alpha = upright(colour), None if alpha is None else upright(alpha)
    try:
        block = _exif_block(exif, colour.shape)
    except Exception as error:
        block = None
        notes.append(f"EXIF left out, it is damaged ({_one_line(error)})")
    return _Decoded(colour, alpha, block, kind, "; ".join(notes) or None)


def _decode_pillow(path: Path, image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour (H,W) grey, (H,W,3) RGB or (H,W,4) CMYK, and alpha; uint8, or uint16 for deep grey."""
    image.load()
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # a 16-bit PGM, which Pillow scales to 65535
        return np.asarray(image).astype(np.uint16), None
    if mode in ("I", "F"):
        raise ImageError(
            f"{path}: expected 8 or 16 bits a channel, found 32-bit {'floats' if mode == 'F' else 'integers'}"
        )
    alpha = None
    flat = "L" if mode in ("1", "L", "LA", "La") else "CMYK" if mode == "CMYK" else "RGB"
    if mode == "LAB":
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    elif image.has_transparency_data and flat != "CMYK":
        image = image.convert(flat + "A")
        alpha = np.asarray(image.getchannel("A"))
    return _pixels(image if image.mode == flat else image.convert(flat)), alpha


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels (H,W) or (H,W,C) uint8, copied in bands: `np.asarray(image)` holds them twice more while it copies."""
    bands = len(image.getbands())
    pixels = np.empty((image.height, image.width, bands) if bands > 1 else (image.height, image.width), np.uint8)
    for top in range(0, image.height, 256):
        bottom = min(top + 256, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _decode_png16(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    import imagecodecs  # here, as below: most photos do not need it, and it takes 0.1 s

    pixels = imagecodecs.png_decode(data)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    channels = pixels.shape[2]
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return (pixels[..., 0] if channels < 3 else pixels[..., :3]), alpha


def _decode_tiff(path: Path, file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None, int]:
    """First page of a TIFF: colour and alpha as `_decode_pillow` gives them, and the number of pages."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs each odd tag; what matters becomes our one line
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        bits, layout = page.bitspersample, tifffile.PHOTOMETRIC(page.photometric).name
        colours = {"MINISWHITE": 1, "MINISBLACK": 1, "RGB": 3, "SEPARATED": 4}.get(layout)
        if (
            page.dtype is None
            or page.dtype.kind != "u"
            or bits > 16
            or colours is None
            or page.axes not in ("YX", "YXS", "SYX")
        ):
            raise ImageError(
                f"{path}: expected a TIFF with grey, RGB or CMYK at 8 or 16 bits, found {layout.lower()} of type {page.dtype}, {bits} bits"
            )
        if page.imagewidth * page.imagelength > 2 * Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        pixels = page.asarray()
        pixels = (
            np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels[..., None] if page.axes == "YX" else pixels
        )
        if pixels.ndim != 3 or pixels.shape[2] < colours:
            raise ImageError(
                f"{path}: expected a TIFF with {colours} channels of {layout.lower()}, found an array of shape {pixels.shape}"
            )
        pages, extras = len(tiff.pages), [int(extra) for extra in page.extrasamples]
    if bits not in (8, 16):  # 10, 12 and 14 bits of scanners and cameras
        pixels = ((pixels.astype(np.uint32) * 65535 + (2**bits - 1) // 2) // (2**bits - 1)).astype(np.uint16)
    colour = pixels[..., 0] if colours == 1 else pixels[..., :colours]
    if layout == "MINISWHITE":
        colour = np.iinfo(colour.dtype).max - colour
    index = next((i for i, extra in enumerate(extras) if extra in (1, 2)), None)  # other extra channels are not alpha
    if index is None:
        return colour, None, pages
    alpha = pixels[..., colours + index]
    if extras[index] == 1:  # premultiplied
        scale = np.iinfo(alpha.dtype).max / np.maximum(alpha, 1, dtype=np.float64)
        colour = np.minimum(
            np.rint(colour * (scale if colours == 1 else scale[..., None])), np.iinfo(alpha.dtype).max
        ).astype(alpha.dtype)
    return colour, alpha, pages


def _to_srgb(colour: np.ndarray, profile: bytes) -> tuple[np.ndarray, str | None]:
    """Convert pixels from an embedded ICC profile to sRGB with lcms; a profile that does not fit is ignored, with a note."""
    import imagecodecs

    space, channels = _SPACES.get(profile[16:20], ("unknown", 0))
    grey = colour.ndim == 2
    pixels = (
        np.stack([colour] * 3, axis=-1) if grey and space == "rgb" else colour
    )  # grey files often carry an RGB profile
    if channels != (1 if pixels.ndim == 2 else pixels.shape[2]):
        return colour, f"colour profile ignored, it is for other colours ({space})"
    srgb = imagecodecs.cms_profile("srgb")

    def transform(values: np.ndarray) -> np.ndarray:
        # lcms's shortcut for 16 bits is a coarse table, off by up to 20 of 255 levels in dark tones
        flags = imagecodecs.CMS.FLAGS.NOOPTIMIZE if values.dtype == np.uint16 else None
        values = np.ascontiguousarray(values)
        return imagecodecs.cms_transform(values, profile, srgb, colorspace=space, outcolorspace="rgb", flags=flags)

    try:
        if space != "cmyk":
            axis = np.linspace(0, 65535, 17).astype(np.uint16)
            probe = (
                axis[None] if space == "gray" else np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3)
            )
            change = transform(probe).astype(np.int64) - (probe[..., None] if space == "gray" else probe)
            if np.abs(change).max() <= 128:  # half an 8-bit step: sRGB itself, whose pixels must stay as they are
                return colour, None
        converted = transform(pixels)
    except (imagecodecs.CmsError, ValueError) as error:
        return colour, f"colour profile ignored, it is damaged ({_one_line(error)})"
    return (converted[..., 1] if grey else converted), None


def _camera_profile(exif: Image.Exif) -> bytes | None:
    """The profile that a camera means by its EXIF alone: Adobe RGB, or None for sRGB (DCF 2.0, optional colour space)."""
    try:
        # asked first, as get_ifd would make an empty directory
        if _BASE.ExifOffset not in exif or exif.get_ifd(ExifTags.IFD.Exif).get(_BASE.ColorSpace) != _UNCALIBRATED:
            return None
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # a damaged block, which is told elsewhere
        return None
    if not isinstance(index, str) or index.rstrip("\0 ") != _ADOBE_RGB:
        return None
    import imagecodecs

    return imagecodecs.cms_profile("adobergb")


def _cmyk_to_rgb(cmyk: np.ndarray) -> np.ndarray:
    """Without a profile: (1 - ink) (1 - black), as Pillow does."""
    top = np.iinfo(cmyk.dtype).max
    light = (top - cmyk).astype(np.uint64)
    return ((light[..., :3] * light[..., 3:] + top // 2) // top).astype(cmyk.dtype)


def _exif_block(exif: Image.Exif, shape: tuple[int, ...]) -> bytes | None:
    """What the EXIF says about the photo, as bytes, true for an upright sRGB picture of this shape."""
    for tag in set(exif) - _KEPT_TAGS:
        del exif[tag]
    if not len(exif):
        return None
    _raw_texts(exif)
    if _BASE.ExifOffset in exif:
        details = exif.get_ifd(ExifTags.IFD.Exif)
        truth = {_BASE.ExifImageWidth: shape[1], _BASE.ExifImageHeight: shape[0], _BASE.ColorSpace: 1}
        details.update({tag: value for tag, value in truth.items() if tag in details})
        details.pop(ExifTags.IFD.Interop, None)  # may say Adobe RGB
    return exif.tobytes()


def _raw_texts(exif: Image.Exif) -> Image.Exif:
    """Texts of the main directory as the file's own bytes: Pillow would write "?" for a © or an umlaut."""
    for tag, text in list(exif.items()):
        if isinstance(text, str):
            exif[tag] = text.encode("latin-1", "replace")
    return exif


def _load_exif(block: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block or b"")
    return exif


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def write_photo(path: str | Path, photo: Photo, quality: int = 95) -> None:
    """Encode a photo in the format of the suffix (`WRITABLE`); folders are created.

    16-bit photos stay so in PNG and TIFF. A grey photo is written as grey, alpha wherever the format
    has it (in JPEG transparent parts become white), EXIF in all (16-bit TIFF: the texts of its main
    directory; JPEG: up to 64 KB).
    `quality` 1 to 100 is JPEG's (4:4:4) and WebP's. The file appears complete or not at all.
    Raises ImageError where it cannot be written.
    """
    path = Path(path)
    kind = check_writable(path, *photo.rgb.shape[:2])
    deep = photo.bits == 16 and kind in ("PNG", "TIFF")
    dtype = np.uint16 if deep else np.uint8
    pixels = _to_integers(photo.rgb[..., :1] if photo.grey else photo.rgb, dtype)
    has_alpha = photo.alpha is not None and kind != "JPEG"
    if has_alpha:
        pixels = np.concatenate([pixels, _to_integers(photo.alpha[..., None], dtype)], axis=2)
    elif photo.alpha is not None:
        alpha = _to_integers(photo.alpha[..., None], np.uint8).astype(np.uint16)
        pixels = ((pixels * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    try:
        if not deep:
            data = _encode_pillow(pixels, kind, photo.exif, quality)
        elif kind == "PNG":
            data = _encode_png16(pixels, photo.exif)
        else:
            data = _encode_tiff16(pixels, has_alpha, photo.exif)
        write_atomically(path, lambda temporary: temporary.write_bytes(data))
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
        raise ImageError(f"{path}: cannot be written: {reason}") from None


def check_writable(path: Path, height: int, width: int) -> str:
    """Pillow's name of the format that the suffix means. Raises ImageError for a suffix or a size (pixels) that cannot be written."""
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: expected a suffix out of {', '.join(WRITABLE)}, found '{path.suffix}'")
    limit = _LARGEST.get(kind)
    if limit is not None and max(height, width) > limit:
        raise ImageError(
            f"{path}: cannot be written: {kind} holds at most {limit} pixels to a side, found {width} x {height}; take PNG or TIFF"
        )
    return kind


def _encode_pillow(pixels: np.ndarray, kind: str, exif: bytes | None, quality: int) -> bytes:
    options: dict = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "exact": True},  # exact: colour under full transparency is kept
    }.get(kind, {})  # TIFF: uncompressed, as Pillow writes EXIF's inner directories only there
    if exif and not (kind == "JPEG" and len(exif) > _JPEG_EXIF_LIMIT):
        options["exif"] = _raw_texts(_load_exif(exif)) if kind == "TIFF" else exif
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


def _encode_tiff16(pixels: np.ndarray, has_alpha: bool, exif: bytes | None) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels[..., 0] if pixels.shape[2] == 1 else pixels,
        photometric="rgb" if pixels.shape[2] > 2 else "minisblack",
        planarconfig="contig" if pixels.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if has_alpha else None,
        compression="zlib",
        predictor=True,
        metadata=None,  # tifffile's own description of the array
        software=False,
        extratags=[
            (tag, "s", 0, text.encode("latin-1", "replace"), True)
            for tag, text in _load_exif(exif).items()
            if isinstance(text, str)
        ],
    )
    return buffer.getvalue()


def _to_float(values: np.ndarray) -> np.ndarray:
    result = values.astype(np.float32)
    result /= np.iinfo(values.dtype).max
    return np.ascontiguousarray(result)


def _to_integers(values: np.ndarray, dtype: type) -> np.ndarray:
    """Floats in [0, 1], rounded, or integers of either depth -> integers; the same array where nothing changes."""
    if values.dtype == dtype:
        return values
    values = np.clip(_to_float(values) if values.dtype.kind == "u" else values, 0, 1)
    values *= np.float32(np.iinfo(dtype).max)
    return np.rint(values, out=values).astype(dtype)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
