"""Photos on disk: the only place of decode and encode.

Pillow reads and writes most. tifffile and imagecodecs take over where Pillow would cut 16-bit colour to 8 bits. What a
file claims and what it lacks is checked here, as decoders fill what is missing without a word.

Arrays: H height, W width in pixels, after the EXIF orientation has been applied. Colour is sRGB.
"""

from data.images.decode import from_pillow, read_all, read_photo, read_rgb8
from data.images.encode import PNG_LEVEL, WRITABLE, check_writable, write_photo
from data.images.photo import STANDARD, ImageError, Limits, Metadata, Photo
from data.images.pillow import heif_installed

__all__ = [
    "PNG_LEVEL",
    "STANDARD",
    "WRITABLE",
    "ImageError",
    "Limits",
    "Metadata",
    "Photo",
    "check_writable",
    "from_pillow",
    "heif_installed",
    "read_all",
    "read_photo",
    "read_rgb8",
    "write_photo",
]
