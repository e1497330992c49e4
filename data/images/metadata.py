"""What a file says about its photo beside the pixels."""

from PIL import ExifTags, Image

_BASE = ExifTags.Base
# What the main EXIF directory says about the photo. The others describe the layout of the file they
# were in (strips, tiles, compression, orientation), and would be wrong, or even unreadable, in ours.
_KEPT_TAGS = frozenset({
    _BASE.ImageDescription, _BASE.Make, _BASE.Model, _BASE.XResolution, _BASE.YResolution, _BASE.ResolutionUnit,
    _BASE.Software, _BASE.DateTime, _BASE.Artist, _BASE.HostComputer, _BASE.Copyright, _BASE.Rating, _BASE.RatingPercent,
    _BASE.XPTitle, _BASE.XPComment, _BASE.XPAuthor, _BASE.XPKeywords, _BASE.XPSubject, _BASE.ExifOffset, _BASE.GPSInfo,
})  # fmt: skip


def exif_block(exif: Image.Exif, shape: tuple[int, ...]) -> bytes | None:
    """What the EXIF says about the photo, as bytes, true for an upright sRGB picture of this shape."""
    for tag in set(exif) - _KEPT_TAGS:
        del exif[tag]
    if not len(exif):
        return None
    raw_texts(exif)
    if _BASE.ExifOffset in exif:
        details = exif.get_ifd(ExifTags.IFD.Exif)
        truth = {_BASE.ExifImageWidth: shape[1], _BASE.ExifImageHeight: shape[0], _BASE.ColorSpace: 1}
        details.update({tag: value for tag, value in truth.items() if tag in details})
        details.pop(ExifTags.IFD.Interop, None)  # may say Adobe RGB
    return exif.tobytes()


def raw_texts(exif: Image.Exif) -> Image.Exif:
    """Texts of the main directory as the file's own bytes: Pillow would write "?" for a © or an umlaut."""
    for tag, text in list(exif.items()):
        if isinstance(text, str):
            exif[tag] = text.encode("latin-1", "replace")
    return exif


def load_exif(block: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block or b"")
    return exif
