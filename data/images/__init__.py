"""Photos on disk: the only place of decode and encode.

Pillow reads and writes. It cuts 16-bit colour to 8 bits, so PNG and TIFF files of more than 8 bits
are decoded and encoded by imagecodecs and tifffile, with Pillow still reading their metadata.

Arrays: H height, W width in pixels, after the EXIF orientation has been applied. Colour is sRGB.
"""

from data.images.decode import read_photo, read_rgb8
from data.images.encode import WRITABLE, check_writable, write_photo
from data.images.photo import ImageError, Photo

__all__ = ["WRITABLE", "ImageError", "Photo", "check_writable", "read_photo", "read_rgb8", "write_photo"]
