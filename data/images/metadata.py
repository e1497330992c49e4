"""What a file says about its photo beside the pixels."""

import re

from PIL import ExifTags

from data.images import tags
from data.images.photo import Metadata, Raster, one_line

_BASE = ExifTags.Base
# What the main EXIF directory says about the photo. The others describe the layout of the file they
# were in (strips, tiles, compression, orientation), and would be wrong, or even unreadable, in ours.
_KEPT_TAGS = frozenset({
    _BASE.ImageDescription, _BASE.Make, _BASE.Model, _BASE.XResolution, _BASE.YResolution, _BASE.ResolutionUnit,
    _BASE.Software, _BASE.DateTime, _BASE.Artist, _BASE.HostComputer, _BASE.Copyright,
    _BASE.Rating, _BASE.RatingPercent,
    _BASE.XPTitle, _BASE.XPComment, _BASE.XPAuthor, _BASE.XPKeywords, _BASE.XPSubject, tags.EXIF, tags.GPS,
})  # fmt: skip
_RESOLUTION, _NO_UNIT = (_BASE.XResolution, _BASE.YResolution, _BASE.ResolutionUnit), 1
GAIN_MAP = "HDR gain map left out, the standard picture is enhanced"  # a note
_LARGEST_TEXT = 1 << 20  # bytes of a text or packet that is kept
_XMP_ORIENTATION = re.compile(
    rb"""\stiff:Orientation\s*=\s*["'](\d)["']|<tiff:Orientation>\s*(\d)\s*</tiff:Orientation>"""
)
# In XMP: what is true of the source file alone, such as pictures behind the photo, which are not written again
_XMP_OF_THE_FILE = re.compile(
    rb"""\s(?:hdrgm|GCamera|HDRGainMap|xmpNote):\w+\s*=\s*(?:"[^"]*"|'[^']*')|<Container:Directory.*?</Container:Directory>"""
    rb"""|<(hdrgm|GCamera|HDRGainMap):(\w+)[^>]*>.*?</\1:\2>""",
    re.DOTALL,
)
_GAIN_MAP = re.compile(rb"hdrgm:Version|HDRGainMap:HDRGainMapVersion")


def settle(raster: Raster, modified: float | None) -> tuple[Metadata, int, tags.Directory]:
    """What is kept of a file's metadata, the orientation of the stored pixels, and the EXIF directory as it was.

    Notes of what could not be kept are added to the raster's. `block_for` makes the EXIF true for the pixels.
    """
    try:
        directory, note = (raster.exif, None) if isinstance(raster.exif, dict) else tags.unpack_noted(raster.exif)
        raster.notes += [note] if note else []
    except ValueError as error:  # a damaged block must not cost the photo
        directory = {}
        raster.notes.append(f"EXIF left out, it is damaged ({one_line(error)})")
    xmp = raster.xmp
    if xmp is not None and len(xmp) > _LARGEST_TEXT:
        xmp = None
        raster.notes.append("XMP left out, it is above 1 MB")
    found = _XMP_ORIENTATION.search(xmp or b"")
    orientation = raster.orientation or tags.number(directory, _BASE.Orientation)
    if orientation is None and found:
        orientation = int(found[1] or found[2])
    if xmp and _GAIN_MAP.search(xmp):
        raster.notes.append(GAIN_MAP)
    texts = {key: text for key, text in raster.texts.items() if text and len(text) <= _LARGEST_TEXT}
    if any(len(text) > _LARGEST_TEXT for text in raster.texts.values()):
        raster.notes.append("texts above 1 MB left out")
    if xmp:
        xmp = _XMP_OF_THE_FILE.sub(b"", _XMP_ORIENTATION.sub(b"", xmp))
    intent = raster.intent
    if intent is None and raster.icc and len(raster.icc) >= 68:
        intent = raster.icc[67] if raster.icc[67] <= 3 else None
    metadata = Metadata(None, xmp, raster.iptc, raster.dpi or _resolution(directory), texts, intent, modified)
    return metadata, orientation or 1, directory


def _resolution(directory: tags.Directory) -> tuple[float, float] | None:
    """Pixels an inch by EXIF; None where it has none or does not name the unit."""
    unit = {2: 1.0, 3: 2.54}.get(tags.number(directory, _BASE.ResolutionUnit))
    entries = [directory.get(tag) for tag in (_BASE.XResolution, _BASE.YResolution)]
    values = [value for entry in entries if isinstance(entry, tags.Entry) for value in entry.fractions()[:1]]
    return (values[0] * unit, values[1] * unit) if unit and len(values) == 2 and min(values) > 0 else None


def block_for(directory: tags.Directory, shape: tuple[int, ...]) -> bytes | None:
    """The EXIF block of an upright sRGB picture (H,W,...) out of what its file said."""
    kept = {tag: entry for tag, entry in directory.items() if tag in _KEPT_TAGS}
    if tags.number(kept, _BASE.ResolutionUnit) == _NO_UNIT:  # says nothing but that pixels are square
        kept = {tag: entry for tag, entry in kept.items() if tag not in _RESOLUTION}
    details = kept.get(tags.EXIF)
    if isinstance(details, dict):
        truth = {
            _BASE.ExifImageWidth: tags.long(shape[1]),
            _BASE.ExifImageHeight: tags.long(shape[0]),
            _BASE.ColorSpace: tags.short(1),
        }
        details = details | {tag: entry for tag, entry in truth.items() if tag in details}
        details.pop(tags.INTEROPERABILITY, None)  # may say Adobe RGB
        kept[tags.EXIF] = details
    return tags.block(kept)[0]


def with_resolution(directory: tags.Directory, dpi: tuple[float, float] | None) -> tags.Directory:
    """The directory with a resolution, where it has none and there is one."""
    if dpi is None or _BASE.XResolution in directory:
        return directory
    resolution = {_BASE.XResolution: tags.rational(dpi[0]), _BASE.YResolution: tags.rational(dpi[1])}
    return directory | resolution | {_BASE.ResolutionUnit: tags.short(2)}  # per inch
