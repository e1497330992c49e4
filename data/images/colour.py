"""Colours of files -> sRGB."""

import numpy as np
from PIL import ExifTags

from data.images import tags
from data.images.photo import Coding, one_line, strips

_SPACES = {b"RGB ": ("rgb", 3), b"GRAY": ("gray", 1), b"CMYK": ("cmyk", 4)}  # ICC header -> lcms name, channels
# EXIF ColorSpace and interoperability index by which cameras mark Adobe RGB (DCF 2.0, optional colour space)
_UNCALIBRATED, _ADOBE_RGB = 0xFFFF, b"R03"
_D65 = (0.3127, 0.3290)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ABSOLUTE = 3  # ICC rendering intent
# ITU-T H.273: white, red, green and blue, and exponents, by code point. Others mean sRGB, or nearly.
_PRIMARIES = {
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_HDR = {16: "PQ", 18: "HLG"}
# gAMA, either way up: screens, film and H.273 have exponents from 1 to 2.8; beyond this pictures are black or white
_MOST_GAMMA = 4
_LEAST_SHARE = 1e-3  # of a primary in white; known colour spaces have above 0.2
_LEAST_GAMUT = 0.01  # twice the area between the primaries; sRGB has 0.22
_BLACK, _WHITE = 1 / 16, 15 / 16  # mean of all colours by a profile, above and below which it is plausible
_NEAR_SRGB = 0.05  # libpng's own threshold: writers put gAMA 1/2.2 beside sRGB, as the PNG specification asks


def coded(primaries: int, transfer: int) -> tuple[Coding | None, str | None]:
    """The meaning of H.273 code points (cICP of PNG, nclx of AVIF and HEIF), and a note where it is not converted."""
    if transfer in _HDR:
        return (
            None,
            f"HDR ({_HDR[transfer]}): taken as it is, for a standard picture; brightness and colours may be off",
        )
    return Coding(_PRIMARIES.get(primaries), _GAMMAS.get(transfer)), None


def png_coding(gamma: int | None, chromaticities: tuple[int, ...] | None) -> tuple[Coding | None, list[str]]:
    """The meaning of a PNG file's gAMA and cHRM, in their units of 1/100000, and notes of what is ignored."""
    notes = []
    if gamma is not None and not 1 / _MOST_GAMMA <= gamma / 100000 <= _MOST_GAMMA:
        notes.append(f"gamma ignored, {gamma / 100000:g} is implausible")
        gamma = None
    exponent = 100000 / gamma if gamma else None
    if exponent is not None and abs(exponent / 2.2 - 1) < _NEAR_SRGB:
        exponent = None
    points = tuple(value / 100000 for value in chromaticities) if chromaticities else None
    if points and max(abs(a - b) for a, b in zip(points, _SRGB, strict=True)) < 0.002:
        points = None
    if points and not _possible(points):
        notes.append("colours of the file (cHRM) ignored, they are impossible")
        points = None
    return Coding(points, exponent) if points or exponent is not None else None, notes


def _possible(points: tuple[float, ...]) -> bool:
    """Whether white, of chromaticities x, y, is a mixture of red, green and blue."""
    if min(points[1::2]) <= 0:
        return False
    white, *primaries = ((x, y, 1 - x - y) for x, y in zip(points[::2], points[1::2], strict=True))
    mixing = np.array(primaries).T
    if abs(np.linalg.det(mixing)) < _LEAST_GAMUT:  # nearly on a line
        return False
    return bool(np.linalg.solve(mixing, white).min() > _LEAST_SHARE)


def coding_profile(coding: Coding, grey: bool) -> bytes | None:
    """An ICC profile of these colours; None where they are sRGB's. Raises ValueError for impossible ones."""
    if coding.primaries is None and coding.gamma is None:
        return None
    import imagecodecs  # here, as below: most photos do not need it, and it takes 0.1 s

    points = coding.primaries or _SRGB
    table = {"gamma": coding.gamma} if coding.gamma is not None else {"transferfunction": _srgb_curve()}
    if grey:
        return imagecodecs.cms_profile("gray", whitepoint=[*points[:2], 1.0], **table)
    primaries = [value for x, y in zip(points[2::2], points[3::2], strict=True) for value in (x, y, 1.0)]
    return imagecodecs.cms_profile("rgb", whitepoint=[*points[:2], 1.0], primaries=primaries, **table)


def _srgb_curve() -> np.ndarray:
    """IEC 61966-2-1 decoding as a table."""
    x = np.linspace(0, 1, 4096)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * 65535).astype(np.uint16)


def to_srgb(colour: np.ndarray, profile: bytes) -> tuple[np.ndarray, str | None]:
    """Convert pixels from an ICC profile to sRGB with lcms, by the profile's own rendering intent.

    Gives the pixels and, where the profile does not fit and is ignored, a note.
    """
    import imagecodecs

    space, channels = _SPACES.get(profile[16:20], ("unknown", 0))
    grey = colour.ndim == 2
    tripled = grey and space == "rgb"  # grey files often carry an RGB profile
    if channels != (3 if tripled else 1 if grey else colour.shape[2]):
        if profile[36:40] != b"acsp":  # ICC.1, the signature of every profile
            return colour, "colour profile ignored, it is damaged (no signature)"
        return colour, f"colour profile ignored, it is for other colours ({space})"
    srgb = imagecodecs.cms_profile("srgb")
    # an absolute intent would show the white of paper or screen as a tint
    intent = profile[67] if len(profile) > 67 and profile[67] < _ABSOLUTE else None

    def transform(values: np.ndarray) -> np.ndarray:
        # lcms's shortcut for 16 bits is a coarse table, off by up to 20 of 255 levels in dark tones
        flags = imagecodecs.CMS.FLAGS.NOOPTIMIZE if values.dtype == np.uint16 else None
        values = np.ascontiguousarray(values)
        options = {"colorspace": space, "outcolorspace": "rgb", "intent": intent, "flags": flags}
        return imagecodecs.cms_transform(values, profile, srgb, **options)

    try:
        axis = np.linspace(0, 65535, 17).astype(np.uint16)
        probe = np.stack(np.meshgrid(*[axis] * channels), axis=-1).reshape(1, -1, channels)
        seen = transform(probe[..., 0] if space == "gray" else probe).astype(np.int64)
        if not _BLACK < seen.mean() / 65535 < _WHITE:
            return colour, "colour profile ignored, it is damaged (it makes everything black or white)"
        if space != "cmyk":
            change = seen - probe
            if np.abs(change).max() <= 128:  # half an 8-bit step: sRGB itself, whose pixels must stay as they are
                return colour, None
        converted = np.empty(colour.shape if grey else (*colour.shape[:2], 3), colour.dtype)
        for rows in strips(colour):
            part = transform(np.stack([colour[rows]] * 3, axis=-1) if tripled else colour[rows])
            converted[rows] = part[..., 1] if grey else part
    except (imagecodecs.CmsError, ValueError) as error:
        return colour, f"colour profile ignored, it is damaged ({one_line(error)})"
    return converted, None


def camera_profile(exif: tags.Directory) -> bytes | None:
    """The profile that a camera means by its EXIF alone: Adobe RGB, or None for sRGB."""
    details = exif.get(tags.EXIF)
    if not isinstance(details, dict) or tags.number(details, ExifTags.Base.ColorSpace) != _UNCALIBRATED:
        return None
    index = details.get(tags.INTEROPERABILITY, {}).get(ExifTags.Interop.InteropIndex)
    if index is None or index.data.rstrip(b"\0 ") != _ADOBE_RGB:
        return None
    import imagecodecs

    return imagecodecs.cms_profile("adobergb")


def cmyk_to_rgb(cmyk: np.ndarray) -> np.ndarray:
    """Without a profile: (1 - ink) (1 - black), as Pillow does."""
    top = np.iinfo(cmyk.dtype).max
    wide = np.uint16 if top == 255 else np.uint32  # holds the product of two values
    rgb = np.empty((*cmyk.shape[:2], 3), cmyk.dtype)
    for rows in strips(cmyk):
        light = (top - cmyk[rows]).astype(wide)
        rgb[rows] = (light[..., :3] * light[..., 3:] + wide(top // 2)) // wide(top)
    return rgb


def unpremultiplied(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour (H,W) or (H,W,3) that was multiplied by alpha (H,W) -> the colour itself; integers of one type."""
    top = np.iinfo(alpha.dtype).max
    result = np.empty(colour.shape, colour.dtype)
    for rows in strips(alpha):
        scale = np.float32(top) / np.maximum(alpha[rows], 1, dtype=np.float32)
        scaled = colour[rows] * (scale if colour.ndim == 2 else scale[..., None])
        result[rows] = np.minimum(np.rint(scaled, out=scaled), top, out=scaled)
    return result


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour (H,W,C) seen through alpha (H,W) on white, all uint8."""
    result = np.empty(colour.shape, np.uint8)
    for rows in strips(alpha):
        share = alpha[rows, :, None].astype(np.uint16)
        result[rows] = (colour[rows] * share + 255 * (255 - share) + 127) // 255
    return result
