"""Colours of files -> sRGB."""

import numpy as np
from PIL import ExifTags, Image

from data.images.photo import one_line

_SPACES = {b"RGB ": ("rgb", 3), b"GRAY": ("gray", 1), b"CMYK": ("cmyk", 4)}  # ICC header -> lcms name, channels
# EXIF ColorSpace and interoperability index by which cameras mark Adobe RGB (DCF)
_UNCALIBRATED, _ADOBE_RGB = 0xFFFF, "R03"


def to_srgb(colour: np.ndarray, profile: bytes) -> tuple[np.ndarray, str | None]:
    """Convert pixels from an embedded ICC profile to sRGB with lcms.

    Gives the pixels and, where the profile does not fit and is ignored, a note.
    """
    import imagecodecs

    space, channels = _SPACES.get(profile[16:20], ("unknown", 0))
    grey = colour.ndim == 2
    # grey files often carry an RGB profile
    pixels = np.stack([colour] * 3, axis=-1) if grey and space == "rgb" else colour
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
        return colour, f"colour profile ignored, it is damaged ({one_line(error)})"
    return (converted[..., 1] if grey else converted), None


def camera_profile(exif: Image.Exif) -> bytes | None:
    """The profile a camera means by its EXIF alone: Adobe RGB (DCF 2.0, optional colour space), or None for sRGB."""
    try:
        # asked first, as get_ifd would make an empty directory
        if (
            ExifTags.Base.ExifOffset not in exif
            or exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) != _UNCALIBRATED
        ):
            return None
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # a damaged block, which is told elsewhere
        return None
    if not isinstance(index, str) or index.rstrip("\0 ") != _ADOBE_RGB:
        return None
    import imagecodecs

    return imagecodecs.cms_profile("adobergb")


def cmyk_to_rgb(cmyk: np.ndarray) -> np.ndarray:
    """Without a profile: (1 - ink) (1 - black), as Pillow does."""
    top = np.iinfo(cmyk.dtype).max
    light = (top - cmyk).astype(np.uint64)
    return ((light[..., :3] * light[..., 3:] + top // 2) // top).astype(cmyk.dtype)
