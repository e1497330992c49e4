"""TIFF and BigTIFF files: up to 8 bits by Pillow, more, which Pillow would cut, by tifffile.

Both decoders fill what a damaged file lacks with black or white and go on; so what is missing is looked for here.
"""

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.images import tags
from data.images.colour import unpremultiplied
from data.images.jpeg import gaps_in_part, read_iptc
from data.images.photo import FILLER, ImageError, Limits, Metadata, Raster, holes, lost, written_size
from data.images.pillow import PIXELS_A_ZERO, flat, full_range

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 254, 256, 257, 258, 259, 262, 277, 284
_STRIPS, _ROWS, _STRIP_SIZES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 273, 278, 279, 322, 323, 324, 325
_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_JPEG_TABLES, _SAMPLE_FORMAT = 347, 339
_YCBCR = 6
_PLAIN = 1  # compression
_DEFLATE = (8, 32946)
_RATIOS = {
    _PLAIN: 1,
    5: 1400,
    8: 1032,
    32946: 1032,
    32773: 64,
}  # bytes out of one, at most: none, LZW, Deflate, PackBits
_FAX = (2, 3, 4)
# Codecs of whole pictures (JPEG; JPEG 2000 and WebP, which Pillow's libtiff lacks), which fill what they lack
_JPEG, _LACKING = (6, 7), (33003, 33005, 34712, 50001)
# Beside these: LZMA and two numbers of Zstandard. Not JPEG XR, whose decoder crashes on damaged files, nor rare others.
_COMPRESSIONS = {*_RATIOS, *_FAX, *_JPEG, *_LACKING, 34925, 34926, 50000}
_OTHER_COMPRESSIONS = {22610: "JPEG XR", 34934: "JPEG XR", 34887: "LERC", 50002: "JPEG XL", 52546: "JPEG XL"}
_SIGNED = 2  # sample format
_COLOURS = {"MINISWHITE": 1, "MINISBLACK": 1, "RGB": 3, "SEPARATED": 4}


def decode_tiff(file: BinaryIO, size: int, limits: Limits) -> Raster:
    """The first page of a TIFF file of `size` bytes: picture, alpha and metadata.

    Raises ImageError without a path for a file that is refused, and what the decoders raise for a damaged one.
    """

    def read(offset: int, count: int) -> bytes:
        file.seek(min(offset, size))
        return file.read(count)

    directory, further, left_out = tags.parse(read, size)
    if (tags.number(directory, _SUBFILE) or 0) & 1:
        raise ImageError(
            "expected a photo, found a preview on its first page, as in camera raw files; develop it to TIFF or JPEG"
        )
    width, height = tags.number(directory, _WIDTH) or 0, tags.number(directory, _HEIGHT) or 0
    if width * height > limits.max_megapixels * 1e6:
        raise Image.DecompressionBombError
    bits = max(_integers(directory, _BITS) or [1])
    if _SIGNED in _integers(directory, _SAMPLE_FORMAT):  # which Pillow takes for unsigned
        raise ImageError(f"expected a TIFF with grey, RGB or CMYK at 8 or 16 bits, found signed numbers of {bits} bits")
    compression = tags.number(directory, _COMPRESSION) or _PLAIN
    # a tail of zeros is a black part of the picture where nothing is compressed
    notes = _check_data(directory, size if compression == _PLAIN else written_size(file), limits)
    notes += [left_out] if left_out else []
    if compression not in _COMPRESSIONS:
        raise ImageError(
            "expected a common compression inside TIFF, "
            f"found {_OTHER_COMPRESSIONS.get(compression, 'an unknown one')} (number {compression})"
        )
    missing = _gaps(directory, compression, size, read)
    if missing:
        if limits.incomplete == "refuse":
            raise ImageError(
                f"expected a complete photo, found that {lost(missing)} (--set data.incomplete=accept takes the rest)"
            )
        notes.append(lost(missing))
    image = _by_pillow(file) if bits <= 8 and compression not in _LACKING else None
    if compression in (*_JPEG, *_LACKING) and not _codecs_find_all(file):
        raise ImageError("expected a complete photo, found that data are missing inside its strips or tiles")
    raster = Raster(np.empty(0), "TIFF", exif=directory, frames=1 + further, notes=notes)
    raster.icc, raster.xmp = (_data(directory, tag) for tag in (_ICC, _XMP))
    raster.iptc = _data(directory, _IPTC) or read_iptc(_data(directory, _PHOTOSHOP) or b"")
    if image is None:
        raster.colour, raster.alpha = _by_tifffile(file)
        return raster
    if image.mode == "LAB":
        raster.icc = None  # it is its own profile, applied already
    raster.colour, raster.alpha = flat(image)
    raster.orientation = 1  # Pillow has turned it upright
    if compression in _FAX and not _fax_agrees(file, raster.colour):
        raise ImageError("expected a complete image, found damaged data (its fax lines cannot be followed)")
    return raster


def _by_pillow(file: BinaryIO) -> Image.Image | None:
    file.seek(0)
    try:
        return Image.open(file, formats=["TIFF"])
    except UnidentifiedImageError:
        return None  # a layout that Pillow lacks


def _by_tifffile(file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour and alpha as `flat` gives them."""
    with _open(file) as tiff:
        import tifffile

        page = tiff.pages[0]
        bits, layout = page.bitspersample, tifffile.PHOTOMETRIC(page.photometric).name
        colours = _COLOURS.get(layout)
        known = page.dtype is not None and page.dtype.kind == "u" and bits <= 16 and colours is not None
        if not known or page.axes not in ("YX", "YXS", "SYX"):
            raise ImageError(
                "expected a TIFF with grey, RGB or CMYK at 8 or 16 bits, "
                f"found {layout.lower()} of type {page.dtype}, {bits} bits"
            )
        pixels = page.asarray()
        axes, extras = page.axes, [int(extra) for extra in page.extrasamples]
    pixels = np.moveaxis(pixels, 0, -1) if axes == "SYX" else pixels[..., None] if axes == "YX" else pixels
    if pixels.ndim != 3 or pixels.shape[2] < colours:
        raise ImageError(
            f"expected a TIFF with {colours} channels of {layout.lower()}, found an array of shape {pixels.shape}"
        )
    pixels = full_range(pixels, bits)
    colour = pixels[..., 0] if colours == 1 else pixels[..., :colours]
    if layout == "MINISWHITE":
        colour = np.iinfo(colour.dtype).max - colour
    index = next((i for i, extra in enumerate(extras) if extra in (1, 2)), None)  # other extra channels are not alpha
    if index is None:
        return colour, None
    alpha = pixels[..., colours + index]
    return (unpremultiplied(colour, alpha) if extras[index] == 1 else colour), alpha


def _open(file: BinaryIO):
    import tifffile  # here: most photos do not need it, and it takes 0.1 s

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs each odd tag; what matters becomes our one line
    file.seek(0)
    return tifffile.TiffFile(file)


def _check_data(directory: tags.Directory, size: int, limits: Limits) -> list[str]:
    """Compare what the directory claims with what a file of `size` bytes holds, before anything is decoded.

    Raises ImageError where data are missing and that is not accepted; gives the notes otherwise.
    """
    width, height = tags.number(directory, _WIDTH) or 0, tags.number(directory, _HEIGHT) or 0
    bits, samples = max(_integers(directory, _BITS) or [1]), tags.number(directory, _SAMPLES) or 1
    tiled = _TILES in directory
    offsets = np.array(_integers(directory, _TILES if tiled else _STRIPS), np.uint64)
    sizes = np.array(_integers(directory, _TILE_SIZES if tiled else _STRIP_SIZES), np.uint64)
    across = tags.number(directory, _TILE_WIDTH) or width if tiled else width
    rows = (tags.number(directory, _TILE_HEIGHT) if tiled else tags.number(directory, _ROWS)) or height
    rows = rows if tiled else min(rows, height)
    if not (width and height and across and rows and 0 < bits <= 64 and 0 < samples <= 64):
        raise ImageError(f"expected a complete image, found a TIFF of {width} x {height} pixels")
    planes = samples if tags.number(directory, _PLANAR) == 2 else 1
    down = -(-height // rows)
    count = planes * down * -(-width // across)
    if len(offsets) < count:
        raise ImageError(f"expected a complete photo, found {len(offsets)} of {count} strips or tiles")
    offsets = offsets[:count]
    compression = tags.number(directory, _COMPRESSION) or _PLAIN
    # subsampled YCbCr has at least one byte a pixel
    depth = bits * (1 if tags.number(directory, _PHOTOMETRIC) == _YCBCR else samples // planes)
    needed = np.full(count, rows * ((across * depth + 7) // 8), np.float64)
    if not tiled:
        needed[down - 1 :: down] = (height - (down - 1) * rows) * ((across * depth + 7) // 8)
    if not len(sizes) and compression == _PLAIN:  # old writers leave them out
        sizes = needed.astype(np.uint64)
    if len(sizes) < count:
        raise ImageError(f"expected the sizes of {count} strips or tiles, found {len(sizes)}")
    sizes = sizes[:count]
    ratio = _RATIOS.get(compression, np.inf)
    short = (offsets == 0) | (sizes == 0) | (offsets.astype(float) + sizes > size) | (sizes * ratio + 64 < needed)
    if compression == _PLAIN:
        short |= sizes < needed
    if not short.any():
        return []
    percent = max(1, round(100 * float(needed[short].sum() / needed.sum())))
    last = planes == 1 and short[np.argmax(short) :].all()
    text = f"{'the last ' if last else ''}{percent} % of the photo is missing"
    if limits.incomplete == "refuse" or short.all():
        raise ImageError(f"expected a complete photo, found that {text} (--set data.incomplete=accept takes the rest)")
    return [text]


def _gaps(
    directory: tags.Directory, compression: int, size: int, read: Callable[[int, int], bytes]
) -> list[tuple[int, int]]:
    """Holes in compressed strips or tiles, of a file of `size` bytes, that are no picture."""
    if compression in (_PLAIN, *_FAX):  # black; fill
        return []
    tiled = _TILES in directory
    offsets = _integers(directory, _TILES if tiled else _STRIPS)
    sizes = _integers(directory, _TILE_SIZES if tiled else _STRIP_SIZES)
    even = (tags.number(directory, _WIDTH) or 0) * (tags.number(directory, _HEIGHT) or 0) // PIXELS_A_ZERO
    tables = _data(directory, _JPEG_TABLES) or b""
    found, left = [], 2 * size  # strips that lie in each other, which only a hostile file has, are not read without end
    for offset, count in sorted(set(zip(offsets, sizes, strict=False))):
        part = read(offset, min(count, left))
        left -= len(part)
        gaps = holes(part)
        if gaps and compression in _DEFLATE and _inflates(part):
            gaps = []  # the rest of an even area
        elif gaps and compression in _JPEG:
            gaps = gaps_in_part(tables, part)
        elif compression in _LACKING:
            gaps = [(start, end) for start, end in gaps if end - start > even]
        found += gaps  # of LZW, PackBits and others: none writes zeros for an even area
    return found


def _inflates(part: bytes) -> bool:
    """Whether deflated data are whole by their checksum."""
    unpacker = zlib.decompressobj()
    try:
        while part:
            unpacker.decompress(part, 1 << 24)  # piece by piece, for memory
            part = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return unpacker.eof


def _codecs_find_all(file: BinaryIO) -> bool:
    """Whether the strips or tiles decode to the same picture whatever follows them, as complete ones do."""
    with _open(file) as tiff:
        page = tiff.pages[0]
        for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
            file.seek(offset)
            data = file.read(size)
            # a JPEG stream says where it ends; what it lacks is taken from before that mark
            end = data.rfind(b"\xff\xd9") if page.compression in _JPEG else len(data)
            end = len(data) if end < 0 else end
            first, second = (
                page.decode(data[:end] + filler + data[end:], index, jpegtables=page.jpegtables)[0]
                for filler in (b"", FILLER)
            )
            if first is None or not np.array_equal(first, second):
                return False
    return True


def _fax_agrees(file: BinaryIO, grey: np.ndarray) -> bool:
    """Whether another decoder of fax lines sees the same: of damaged lines each makes something else."""
    try:
        with _open(file) as tiff:
            other = tiff.pages[0].asarray()
    except Exception:  # a variety of fax that it lacks
        return True
    same = other.astype(bool) == (grey > 127) if other.shape == grey.shape else np.ones(1, bool)
    return bool(same.all() or not same.any())


def _integers(directory: tags.Directory, tag: int) -> list[int]:
    entry = directory.get(tag)
    return entry.integers() if isinstance(entry, tags.Entry) else []


def _data(directory: tags.Directory, tag: int) -> bytes | None:
    """The value of bytes; None where there are none."""
    entry = directory.get(tag)
    return entry.data if isinstance(entry, tags.Entry) and entry.type in (1, 7) else None


def write_tiff(path: Path, pixels: np.ndarray, has_alpha: bool, metadata: Metadata, directory: tags.Directory) -> None:
    """Write (H,W,C) uint8 or uint16 with the entries of an EXIF directory; 16 bits are compressed without loss."""
    import tifffile

    tifffile.imwrite(
        path,
        pixels[..., 0] if pixels.shape[2] == 1 else pixels,
        photometric="rgb" if pixels.shape[2] > 2 else "minisblack",
        planarconfig="contig" if pixels.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if has_alpha else None,
        compression="zlib" if pixels.dtype == np.uint16 else None,
        predictor=pixels.dtype == np.uint16,
        metadata=None,  # tifffile's own description of the array
        software=False,
    )
    more = dict(directory)
    more |= {tag: tags.Entry(1, len(data), data) for tag, data in ((_XMP, metadata.xmp),) if data}
    more |= {tag: tags.Entry(7, len(data), data) for tag, data in ((_IPTC, metadata.iptc),) if data}
    with path.open("r+b") as file:
        tags.add_entries(file, more)
