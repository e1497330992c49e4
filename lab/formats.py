"""What is kept of a photo in each format, found by trying: python -m lab.formats

Files of each format are made by other programs' encoders, read here, and compared with other decoders; then written and
read by those. The outcome goes into docs/results/formats.json, from which the table of docs/enhance.md is made.
"""

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from common.cli import EXIT_OK, ArgumentParser, run
from common.files import write_text
from common.paths import REPO_ROOT
from common.provenance import provenance
from data.images import ImageError, Metadata, Photo, heif_installed, read_photo, write_photo

OUT = REPO_ROOT / "docs" / "results" / "formats.json"
PROPERTIES = ("8 bit", "16 bit", "alpha", "profile", "EXIF", "DPI", "XMP")
MAKE, DPI, XMP = 271, 300.0, b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>title</x:xmpmeta>"
LOSSY = 3  # levels of 255 by which two decoders of a lossy file may differ (chroma upsampling, rounding)


@dataclass(frozen=True)
class Format:
    """One kind of file. encode: pixels and what goes with them -> bytes; raises TypeError for what it cannot hold."""

    name: str
    suffix: str
    encode: Callable[..., bytes]
    decode: Callable[[bytes], np.ndarray] | None = None  # by another program than the one that reads it here
    written: bool = False  # here
    lossless: bool = True


def by_pillow(kind: str, holds: str = "", **options) -> Callable[..., bytes]:
    """An encoder that takes the metadata named in `holds`."""

    def encode(pixels: np.ndarray, **what) -> bytes:
        if pixels.dtype != np.uint8 or not set(what) <= set(holds.split()):
            raise TypeError
        buffer = io.BytesIO()
        if "dpi" in what:
            what["dpi"] = (what["dpi"],) * 2
        Image.fromarray(pixels).save(buffer, kind, **options, **what)
        return buffer.getvalue()

    return encode


def png(pixels: np.ndarray, **what) -> bytes:
    if pixels.dtype == np.uint16:
        if what:
            raise TypeError
        return imagecodecs.png_encode(pixels)
    if "xmp" in what:
        from PIL import PngImagePlugin

        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", what.pop("xmp").decode())
        what["pnginfo"] = texts
    return by_pillow("PNG", "exif dpi icc_profile pnginfo")(pixels, **what)


def tiff(pixels: np.ndarray, *, big: bool = False, **what) -> bytes:
    buffer = io.BytesIO()
    extra = [(MAKE, "s", 0, "Maker", True)] if "exif" in what else []
    extra += [(700, "B", len(XMP), XMP, True)] if "xmp" in what else []
    options = {"resolution": (DPI, DPI), "resolutionunit": 2} if "dpi" in what else {}
    options |= {"iccprofile": what["icc_profile"]} if "icc_profile" in what else {}
    options |= {"extrasamples": ["unassalpha"]} if pixels.shape[2] == 4 else {}
    tifffile.imwrite(buffer, pixels, photometric="rgb", bigtiff=big, extratags=extra, metadata=None, **options)
    return buffer.getvalue()


def jpeg2000(pixels: np.ndarray, **what) -> bytes:
    if what:
        raise TypeError
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2")


def mpo(pixels: np.ndarray, **what) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(buffer, "MPO", save_all=True, append_images=[image], quality=95, **what)
    return buffer.getvalue()


def heif(pixels: np.ndarray, **what) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return by_pillow("HEIF", "exif icc_profile xmp", quality=-1, chroma=444, matrix_coefficients=0)(pixels, **what)


def avif(pixels: np.ndarray, **what) -> bytes:
    if pixels.dtype == np.uint16:
        return imagecodecs.avif_encode(pixels >> 6, level=100, bitspersample=10)
    return by_pillow("AVIF", "exif icc_profile xmp", quality=100, subsampling="4:4:4")(pixels, **what)


def ppm(pixels: np.ndarray, **what) -> bytes:
    if what or pixels.shape[2] != 3:
        raise TypeError
    height, width = pixels.shape[:2]
    header = f"P6 {width} {height} {np.iinfo(pixels.dtype).max}\n"
    return header.encode() + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()


def formats() -> list[Format]:
    """Those that are written here, and what phones, scanners and programs give."""
    jpeg = by_pillow("JPEG", "exif dpi icc_profile xmp", quality=95)
    webp = by_pillow("WEBP", "exif icc_profile xmp", lossless=True, exact=True)
    rows = [
        Format("PNG", ".png", png, imagecodecs.png_decode, written=True),
        Format("TIFF", ".tif", tiff, imagecodecs.tiff_decode, written=True),
        Format("JPEG", ".jpg", jpeg, imagecodecs.jpeg8_decode, True, False),
        Format("WebP", ".webp", webp, imagecodecs.webp_decode, written=True),
        Format("BigTIFF", ".tif", lambda pixels, **what: tiff(pixels, big=True, **what), imagecodecs.tiff_decode),
        Format("MPO", ".mpo", mpo, imagecodecs.jpeg8_decode, lossless=False),
        Format("JPEG 2000", ".jp2", jpeg2000),
        Format("AVIF", ".avif", avif, imagecodecs.avif_decode, lossless=False),
        Format("BMP", ".bmp", by_pillow("BMP", "dpi"), imagecodecs.bmp_decode),
        Format("QOI", ".qoi", by_pillow("QOI"), imagecodecs.qoi_decode),
        Format("TGA", ".tga", by_pillow("TGA")),
        Format("PPM", ".ppm", ppm),
    ]  # fmt: skip
    return rows + ([Format("HEIC", ".heic", heif, lossless=False)] if heif_installed() else [])


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON (default: docs/results/formats.json)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = {kind.name: tried(kind, Path(folder)) for kind in formats()}
    result = {"command": "python -m lab.formats", "rows": rows, **provenance()}
    write_text(args.out, json.dumps(result, indent=1) + "\n")
    print(f"written: {args.out}")
    return EXIT_OK


def tried(kind: Format, folder: Path) -> dict[str, dict[str, str]]:
    """For each property, of reading and writing: "yes", "no", "8 bit" (cut from 16), or "-": not for this format."""
    pixels = picture(np.uint8)
    deep = picture(np.uint16)
    alpha = np.dstack([pixels, pixels[..., 0]])
    exif = Image.Exif()
    exif[MAKE] = "Maker"
    what: dict[str, dict] = {"profile": {"icc_profile": display_p3()}, "EXIF": {"exif": exif.tobytes()}}
    what |= {"DPI": {"dpi": DPI}, "XMP": {"xmp": XMP}}
    sources = {"8 bit": (pixels, {}), "16 bit": (deep, {}), "alpha": (alpha, {})} | {
        name: (pixels, given) for name, given in what.items()
    }
    rows = {}
    for name in PROPERTIES:
        source, given = sources[name]
        path = folder / f"in{kind.suffix}"
        rows[name] = {"read": "-", "written": "-"}
        try:
            path.write_bytes(kind.encode(source, **given))
            other = kind.decode(path.read_bytes()) if kind.decode else source
        except (TypeError, ValueError, KeyError, OSError, RuntimeError):
            other = None
        if other is not None and other.shape[2] >= source.shape[2]:
            rows[name]["read"] = found(kind, name, path, other)
        if kind.written and name != "profile":  # results are sRGB
            rows[name]["written"] = kept(kind, name, folder / f"out{kind.suffix}", source)
    return rows


def found(kind: Format, name: str, path: Path, other: np.ndarray) -> str:
    """What reading here makes of a file, beside what another decoder gives."""
    try:
        photo = read_photo(path, integers=True)
    except ImageError:
        return "no"
    if name == "16 bit" and photo.bits == 8:
        return "8 bit"
    values = photo.rgb.astype(int)
    if name == "profile":
        srgb, p3 = ImageCms.createProfile("sRGB"), io.BytesIO(display_p3())
        other = np.asarray(ImageCms.profileToProfile(Image.fromarray(other[..., :3]), p3, srgb, outputMode="RGB"))
    limit = (1 if name == "profile" else 0) if kind.lossless else LOSSY
    if np.abs(values - other[..., :3]).max() > limit:
        return "no"
    exif = Image.Exif()
    exif.load(photo.metadata.exif or b"")
    holds = {
        "alpha": lambda: photo.alpha is not None and np.abs(photo.alpha.astype(int) - other[..., 3]).max() <= limit,
        "EXIF": lambda: exif.get(MAKE) == "Maker",
        "DPI": lambda: photo.metadata.dpi is not None and abs(photo.metadata.dpi[0] - DPI) < 1,
        "XMP": lambda: photo.metadata.xmp == XMP,
    }
    return "yes" if holds.get(name, lambda: True)() else "no"


def kept(kind: Format, name: str, path: Path, source: np.ndarray) -> str:
    """What another program finds in a file that was written here."""
    exif = Image.Exif()
    exif[MAKE] = "Maker"
    given = {"EXIF": Metadata(exif=exif.tobytes()), "DPI": Metadata(dpi=(DPI, DPI)), "XMP": Metadata(xmp=XMP)}
    alpha = source[..., 3] if name == "alpha" else None
    bits = 8 * source.itemsize
    write_photo(path, Photo(source[..., :3], alpha, bits, metadata=given.get(name, Metadata())), 100)
    other = kind.decode(path.read_bytes())
    if other.dtype != source.dtype:
        return "8 bit"
    if name == "alpha" and other.shape[2] != 4:
        return "no"
    lossy = kind.name in ("JPEG", "WebP")  # at the quality that is written
    if np.abs(other[..., :3].astype(int) - source[..., :3]).mean() > (LOSSY if lossy else 0):
        return "no"
    with Image.open(path) as image:
        info, tags = image.info, image.getexif()
        if name == "EXIF" and tags.get(MAKE) != "Maker":
            return "no"
        resolution = info.get("dpi", (tags.get(282, 0),))[0]
        if name == "DPI" and abs(float(resolution) - DPI) > 1:
            return "no"
        xmp = info.get("xmp") or (image.tag_v2.get(700) if kind.name == "TIFF" else None)
        if name == "XMP" and xmp != XMP:
            return "no"
    return "yes"


def picture(dtype: type) -> np.ndarray:
    """(48,64,3) with smooth and sharp parts."""
    y, x = np.mgrid[0:48, 0:64]
    values = np.stack([255 * y / 47, 255 * x / 63, 40 + 100 * (x > 32)], axis=-1)
    return (values * (257 if dtype == np.uint16 else 1)).astype(dtype)


def display_p3() -> bytes:
    primaries = [0.680, 0.320, 1.0, 0.265, 0.690, 1.0, 0.150, 0.060, 1.0]
    return imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.3290, 1.0], primaries=primaries, gamma=2.2)


if __name__ == "__main__":
    run(main)
