"""TIFF files of more than 8 bits a channel, which Pillow would cut."""

import io
import logging
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from data.images.metadata import load_exif
from data.images.photo import ImageError


def decode_tiff(path: Path, file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None, int]:
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
                f"{path}: expected a TIFF with grey, RGB or CMYK at 8 or 16 bits, "
                f"found {layout.lower()} of type {page.dtype}, {bits} bits"
            )
        if page.imagewidth * page.imagelength > 2 * Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        pixels = page.asarray()
        pixels = (
            np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels[..., None] if page.axes == "YX" else pixels
        )
        if pixels.ndim != 3 or pixels.shape[2] < colours:
            raise ImageError(
                f"{path}: expected a TIFF with {colours} channels of {layout.lower()}, "
                f"found an array of shape {pixels.shape}"
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


def encode_tiff16(pixels: np.ndarray, has_alpha: bool, exif: bytes | None) -> bytes:
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
            for tag, text in load_exif(exif).items()
            if isinstance(text, str)
        ],
    )
    return buffer.getvalue()
