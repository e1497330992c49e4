"""Attacks by files that claim to be photos, one per seed. Each says how it was survived."""

import contextlib
import io
import random
import struct
from functools import cache
from pathlib import Path

from lab.chaos.harness import Failure


def image(seed: int, folder: Path) -> str:
    """A photo with flipped bits, cut off, with a piece doubled, removed or zeroed, or another file's piece inside."""
    chance = random.Random(seed)
    name = chance.choice(sorted(originals()))
    data = bytearray(originals()[name])
    for _ in range(chance.choice((1, 1, 2, 8))):
        damage(data, chance)
    return _read(folder / f"image{Path(name).suffix}", bytes(data))


def tiff(seed: int, folder: Path) -> str:
    """A TIFF one to three of whose tags have another type, count or value."""
    chance = random.Random(seed)
    names = [name for name in sorted(originals()) if name.endswith(".tif")]
    data = bytearray(originals()[chance.choice(names)])
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for _ in range(chance.randint(1, 3)):
        at = start + 2 + 12 * chance.randrange(count)
        field, size = chance.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "I")))
        top = 2 ** (8 * struct.calcsize(size)) - 1
        value = chance.choice((0, 1, 2, 3, 255, 256, 65535, len(data), 2**31, top, top - 1, chance.randint(0, top)))
        struct.pack_into(f"{order}{size}", data, at + field, min(value, top))
    return _read(folder / "tags.tif", bytes(data))


def _read(path: Path, data: bytes) -> str:
    from data.images import ImageError, read_photo

    path.write_bytes(data)
    try:
        photo = read_photo(path)
    except ImageError as error:
        if "\n" in str(error):
            raise Failure("crashed", f"more than one line: {error!r}") from None
        return "refused in one line"
    if photo.rgb.ndim != 3 or photo.rgb.shape[2] != 3 or not photo.rgb.size:
        raise Failure("lost", f"an array of shape {photo.rgb.shape}")
    return "read, with a note" if photo.note else "read"


@cache
def originals() -> dict[str, bytes]:
    """Small files of all formats that people have."""
    import numpy as np
    import tifffile
    from PIL import Image

    noise = np.random.default_rng(0)
    smooth = np.clip(np.linspace(0, 200, 64)[None, :, None] + noise.integers(0, 40, (48, 64, 4)), 0, 255).astype(
        np.uint8
    )
    rgb, rgba = Image.fromarray(smooth[..., :3]), Image.fromarray(smooth)
    exif = Image.Exif()
    exif.update({271: "maker", 274: 6, 306: "2020:01:01 00:00:00"})
    saved = {
        "a.jpg": (rgb, {"quality": 90, "exif": exif}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "grey.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "a.png": (rgba, {}),
        "palette.png": (rgb.quantize(), {}),
        "interlaced.png": (rgb, {"interlace": 1}),
        "a.webp": (rgba, {}),
        "lossless.webp": (rgb, {"lossless": True}),
        "a.gif": (rgb.quantize(), {"save_all": True, "append_images": [rgb.quantize()]}),
        "a.bmp": (rgb, {}),
        "a.ppm": (rgb, {}),
        "a.tga": (rgb, {}),
        "a.jp2": (rgb, {}),
        "a.ico": (rgba.resize((32, 32)), {}),
        "a.avif": (rgb, {}),
        "raw.tif": (rgb, {"exif": exif}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "deflate.tif": (rgba, {"compression": "tiff_deflate"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "group4.tif": (rgb.convert("1"), {"compression": "group4"}),
    }
    made = {}
    for name, (picture, options) in saved.items():
        buffer = io.BytesIO()
        with contextlib.suppress(KeyError, OSError):  # a Pillow without this format
            picture.save(buffer, Image.registered_extensions()[Path(name).suffix], **options)
            made[name] = buffer.getvalue()
    deep = smooth[..., :3].astype(np.uint16) * 257
    for name, options in (
        ("deep.tif", {}),
        ("deep_zip.tif", {"compression": "zlib", "predictor": True, "tile": (16, 16)}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, deep, photometric="rgb", **options)
        made[name] = buffer.getvalue()
    return made


def damage(data: bytearray, chance: random.Random) -> None:
    """One change in place."""
    if not data:
        return
    at, length = chance.randrange(len(data)), chance.choice((1, 4, 16, 200))
    head = chance.randrange(min(len(data), 200))
    what = chance.randrange(7)
    if what == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif what == 1:  # most of what a file claims is in its head
        data[head] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    elif what == 2:
        del data[at:]
    elif what == 3:
        del data[at : at + length]
    elif what == 4:
        data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
    elif what == 5:
        data[at : at + length] = bytes(len(data[at : at + length]))
    else:
        other = chance.choice(sorted(originals().values()))
        data[at : at + length] = other[: chance.choice((8, 64, len(other)))]
