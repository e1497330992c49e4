"""Files -> the channels that they hold, not yet in sRGB or upright: by Pillow, and PNG at 16 bits by imagecodecs."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from data.images.photo import ImageError


def decode_pillow(path: Path, image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
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


def decode_png16(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    import imagecodecs  # here, as below: most photos do not need it, and it takes 0.1 s

    pixels = imagecodecs.png_decode(data)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    channels = pixels.shape[2]
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return (pixels[..., 0] if channels < 3 else pixels[..., :3]), alpha
