"""What Pillow opens beside JPEG, PNG and TIFF, and its pictures as arrays."""

import importlib.util
import io
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

from data.images.boxes import coding_of
from data.images.photo import LAST, Encoding, ImageError, Limits, Raster, holes, lost, matters

# Pictures of pixels that no other program is started for: not EPS (Ghostscript), WMF, PDF, or stubs such as HDF5.
# Those that anything may pass for, without a signature at the start, come last.
FORMATS = (
    "JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "HEIF", "JPEG2000", "PPM", "PSD", "ICO", "ICNS", "QOI", "DDS",
    "DIB", "SGI", "SUN", "PCX", "DCX", "CUR", "FITS", "MSP", "XBM", "XPM", "XVTHUMB", "BLP", "FTEX", "GBR", "FLI", "IM",
    "PIXAR", "MCIDAS", "PCD", "SPIDER", "TGA",
)  # fmt: skip
# Pixels that one byte of a file can hold at most. Formats whose codecs are not bounded so, such as WebP, are missing.
_PIXELS_A_BYTE = {
    "BMP": 128, "DIB": 128, "PPM": 8, "PCX": 504, "SGI": 128, "TGA": 128, "QOI": 62, "SUN": 128, "PSD": 1024, "DDS": 4,
    "GIF": 4096, "MSP": 2048, "XBM": 8, "FITS": 8, "XVTHUMB": 1, "IM": 8, "PIXAR": 1, "MCIDAS": 1, "SPIDER": 1,
}  # fmt: skip
_COMPRESSED = ("WEBP", "AVIF", "HEIF")  # without a checksum: decoders go on through data that were never written
PIXELS_A_ZERO = 4096  # the data of a WebP file of one colour have a zero for each 10,000 pixels
_PIXELS_A_LOSSY_ZERO = 8  # a quick encoder spends a zero on 41 pixels of black beside noise
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_ANIMATED = ("GIF", "WEBP", "AVIF")  # where several frames are one picture that moves


def heif_installed() -> bool:
    """Whether pillow-heif is there, which reads HEIC (requirements-formats.txt)."""
    return importlib.util.find_spec("pillow_heif") is not None


def flat(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour (H,W) grey, (H,W,3) RGB or (H,W,4) CMYK, and alpha; uint8, or uint16 for deep grey.

    Raises ImageError without a path for 32 bits a channel.
    """
    image.load()
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # a 16-bit PGM, which Pillow scales to 65535
        return np.asarray(image).astype(np.uint16), None
    if mode in ("I", "F"):
        raise ImageError(f"expected 8 or 16 bits a channel, found 32-bit {'floats' if mode == 'F' else 'integers'}")
    alpha = None
    target = "L" if mode in ("1", "L", "LA", "La") else "CMYK" if mode == "CMYK" else "RGB"
    if mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    elif image.has_transparency_data and target != "CMYK":
        image = image.convert(target + "A")
        alpha = _pixels(image.getchannel("A"))
    return _pixels(image if image.mode == target else image.convert(target)), alpha


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels (H,W) or (H,W,C) uint8, copied in bands: `np.asarray(image)` holds them twice more while it copies."""
    bands = len(image.getbands())
    pixels = np.empty((image.height, image.width, bands) if bands > 1 else (image.height, image.width), np.uint8)
    for top in range(0, image.height, 256):
        bottom = min(top + 256, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def decode_other(file: BinaryIO, size: int, limits: Limits) -> Raster:
    """A file of `size` bytes in another format that Pillow opens: its picture and metadata.

    Raises ImageError without a path for a file that is refused, and what Pillow raises for a damaged one.
    """
    header = file.read(32)
    boxed = header[4:8] == b"ftyp"
    if boxed and header[8:12] in _HEIF_BRANDS and heif_installed():
        from pillow_heif import register_heif_opener

        register_heif_opener()
    if header[:4] == b"icns" and int.from_bytes(header[4:8], "big") > size:
        missing = round(100 * (1 - size / int.from_bytes(header[4:8], "big")))
        raise ImageError(f"expected a complete photo, found that the last {max(1, missing)} % of its data are missing")
    file.seek(0)
    Image.init()  # all plug-ins
    image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    kind = image.format
    if image.width * image.height > limits.max_megapixels * 1e6:
        raise Image.DecompressionBombError
    if image.width * image.height > _PIXELS_A_BYTE.get(kind, 1 << 62) * size:
        raise ImageError(f"expected data for {image.width} x {image.height} pixels, found {size} bytes")
    lossless, webp_end = _webp_data(file) if kind == "WEBP" else (False, 0)
    raster = beside_pixels(image)
    raster.frames = getattr(image, "n_frames", 1) if kind in _ANIMATED else 1
    raster.encoding = Encoding(lossless=lossless)
    if boxed:
        raster.coding, notes = coding_of(file)
        raster.notes += notes
    deep = kind == "JPEG2000" and _deep_jpeg2000(file)
    raster.colour, raster.alpha = deep or flat(image)
    if kind in (*_COMPRESSED, "JPEG2000"):
        _refuse_holes(file, kind, raster, lossless, webp_end)
    return raster


def beside_pixels(image: Image.Image) -> Raster:
    """What Pillow knows of a picture beside its pixels, which are empty here."""
    info = image.info
    return Raster(
        np.empty(0),
        image.format or "",
        exif=info["exif"] if isinstance(info.get("exif"), bytes) else None,
        xmp=_bytes(info["xmp"]) if isinstance(info.get("xmp"), bytes | str) else None,
        # LAB is its own profile, applied already
        icc=None if image.mode == "LAB" else info.get("icc_profile"),
        dpi=_pair(info.get("dpi")),
        texts={"Comment": _text(info["comment"])} if isinstance(info.get("comment"), bytes | str) else {},
    )


def _refuse_holes(file: BinaryIO, kind: str, raster: Raster, lossless: bool, webp_end: int) -> None:
    """Raises ImageError where data of the picture are missing: holes that are larger than an even area makes them.

    webp_end: where the picture's data end in a WebP file, in which long zeros may be areas of one colour or of columns.
    Where a lost piece looks like that, it is longer in pixels than what was lost: the last data are left over.
    """

    def picture(colour: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
        return np.dstack([colour, alpha]) if lossless and alpha is not None else colour  # else alpha is apart

    def decode(data: bytes) -> np.ndarray:
        deep = kind == "JPEG2000" and _deep_jpeg2000(io.BytesIO(data))
        return picture(*(deep or flat(Image.open(io.BytesIO(data), formats=[kind]))))

    file.seek(0)
    data = file.read()
    most = 0 if lossless else raster.colour.shape[0] * raster.colour.shape[1] // PIXELS_A_ZERO
    gaps = [(start, end) for start, end in holes(data) if end - start > most]
    if not gaps:
        return
    known = picture(raster.colour, raster.alpha)
    inside = [(start + LAST, end - LAST) for start, end in gaps]  # zeros beside them may be of sizes of boxes
    if matters(data, inside, known, decode):
        needed = max(end - start for start, end in gaps) * (1 if lossless else _PIXELS_A_LOSSY_ZERO)
        even = webp_end and needed <= _longest_run(known)
        if not even or not matters(data, [(webp_end - LAST, webp_end)], known, decode):
            raise ImageError(f"expected a complete photo, found that {lost(gaps)}")


def _longest_run(colour: np.ndarray) -> int:
    """Pixels, row after row, that are like the one before them or the one above, as a quick encoder predicts them."""
    pixels = colour.reshape(*colour.shape[:2], -1)
    new = np.ones(colour.shape[:2], bool)
    new[:, 1:] = (pixels[:, 1:] != pixels[:, :-1]).any(axis=2)
    new[1:] &= (pixels[1:] != pixels[:-1]).any(axis=2)
    return int(np.diff(np.flatnonzero(new), append=new.size).max())


def _webp_data(file: BinaryIO) -> tuple[bool, int]:
    """Whether the first picture chunk of a WebP file is the lossless one, and where it ends; 0: there is none."""
    file.seek(12)
    for _ in range(16):
        kind, size = file.read(4), int.from_bytes(file.read(4), "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L", file.tell() + size
        if not kind:
            break
        if kind == b"ANMF":
            size = 16  # its picture chunk lies inside
        file.seek(size + size % 2, 1)
    return False, 0


def _deep_jpeg2000(file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Colour and alpha of a JPEG 2000 file of more than 8 bits, of which Pillow makes white black; None for others."""
    file.seek(0)
    data = file.read()
    at = data.find(b"\xff\x4f\xff\x51")  # where the codestream starts, with its sizes
    count = int.from_bytes(data[at + 40 : at + 42], "big")
    depths = [(byte & 127) + 1 for byte in data[at + 42 : at + 42 + 3 * count : 3]]
    if at < 0 or not depths or max(depths) <= 8:
        return None
    bits, space = max(depths), data.find(b"colr", 0, at)
    enumerated = int.from_bytes(data[space + 7 : space + 11], "big") if space > 0 and data[space + 4] == 1 else 16
    if bits > 16 or min(depths) != bits or count > 4 or enumerated not in (16, 17):
        raise ImageError(f"expected JPEG 2000 with grey or RGB at 8 or 16 bits, found {count} channels of {bits} bits")
    import imagecodecs

    pixels = full_range(imagecodecs.jpeg2k_decode(data), bits)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    alpha = pixels[..., -1] if count in (2, 4) else None
    return (pixels[..., 0] if count < 3 else pixels[..., :3]), alpha


def full_range(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Values of 9 to 15 bits, as of scanners and cameras, in 16; others as they are."""
    if bits in (8, 16):
        return pixels
    if bits < 8:
        return (pixels.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
    top, result = 2**bits - 1, np.empty(pixels.shape, np.uint16)
    for row in range(len(pixels)):  # row by row, for memory
        result[row] = (np.minimum(pixels[row], top).astype(np.uint32) * 65535 + top // 2) // top
    return result


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode("utf-8", "replace") if isinstance(value, str) else value


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _pair(dpi: object) -> tuple[float, float] | None:
    """Pillow's resolution, if it is two sensible numbers."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
