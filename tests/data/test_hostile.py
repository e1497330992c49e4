"""Files made to take time or memory without end, or to show a picture that they do not hold."""

import struct
import time
import tracemalloc
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile

from common.errors import UserError
from common.files import remove_stale
from data.images import read_photo, tags
from data.listing import list_images
from tests.data.test_formats import chunk, encoded, refused, with_chunk
from tests.data.test_images import noise, smooth

IMPOSSIBLE = struct.pack(">8I", 31270, 32900, *[64000, 33000] * 3)


def overlapping(count: int, size: int) -> bytes:
    """A TIFF directory whose values of `size` bytes all lie in the same place, after one that lies on its own."""
    fields, values = struct.pack("<HHII", 271, 2, 6, 10 + 12 * (count + 1) + 4), 10 + 12 * (count + 1) + 10
    fields += b"".join(struct.pack("<HHII", 40000 + number, 7, size, values) for number in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count + 1) + fields + bytes(4) + b"Maker\0" + bytes(size)


def peak(action) -> int:
    """The most bytes that Python took meanwhile."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_chunks_without_end_take_time_in_proportion(tmp_path):
    png = encoded(smooth(8, 8), "PNG")
    (tmp_path / "a.png").write_bytes(png[:33] + chunk(b"tEXt", b"") * 200_000 + png[33:])
    start = time.process_time()
    assert np.array_equal(read_photo(tmp_path / "a.png", integers=True).rgb, smooth(8, 8))
    assert time.process_time() - start < 5  # it took minutes


def test_values_of_exif_that_lie_in_each_other_take_no_more_than_the_file_has(tmp_path):
    exif = overlapping(2000, 40_000)
    (tmp_path / "a.png").write_bytes(with_chunk(encoded(smooth(8, 8), "PNG"), b"eXIf", exif))
    photos = []
    assert peak(lambda: photos.append(read_photo(tmp_path / "a.png"))) < 8e6
    assert "1999 values of EXIF or TIFF tags left out" in photos[0].note
    assert tags.unpack(photos[0].metadata.exif)[271].data == b"Maker\0"


def test_values_of_a_tiff_that_lie_in_each_other_take_no_more_than_the_file_has(tmp_path):
    pixels = noise(8, 8, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    data = (tmp_path / "a.tif").read_bytes()
    value = tags.Entry(7, 1_000_000, bytes(1_000_000))
    with (tmp_path / "a.tif").open("r+b") as file:
        tags.add_entries(file, {40000: value} | {40001 + number: tags.long(number) for number in range(100)})
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = data.find(struct.pack("<HHI", 40000, 7, 1_000_000))
    for number in range(100):  # each of the others is now the first
        at = data.find(struct.pack("<HHI", 40001 + number, 4, 1))
        data[at + 2 : at + 12] = data[first + 2 : first + 12]
    (tmp_path / "a.tif").write_bytes(data)
    photos = []
    assert peak(lambda: photos.append(read_photo(tmp_path / "a.tif", integers=True))) < 20e6
    assert np.array_equal(photos[0].rgb, pixels) and photos[0].note.startswith("100 values of EXIF or TIFF tags")


def test_texts_that_unpack_to_too_much_together(tmp_path):
    png = encoded(smooth(8, 8), "PNG")
    packed = zlib.compress(bytes(4 << 20), 9)
    texts = b"".join(chunk(b"zTXt", b"%d\0\0" % number + packed) for number in range(30))
    (tmp_path / "a.png").write_bytes(png[:33] + chunk(b"tEXt", b"Title\0Here") + texts + png[33:])
    photos = []
    assert peak(lambda: photos.append(read_photo(tmp_path / "a.png"))) < 80e6
    assert photos[0].metadata.texts == {"Title": "Here"}
    assert photos[0].note == "texts left out, together they are above 16 MB; texts above 1 MB left out"


def black_profile() -> bytes:
    """A profile whose red, green and blue are all black."""
    profile = bytearray(imagecodecs.cms_profile("adobergb"))
    for name in (b"rXYZ", b"gXYZ", b"bXYZ"):
        at = profile.find(name)
        offset, size = struct.unpack(">II", profile[at + 4 : at + 12])
        profile[offset + 8 : offset + size] = bytes(size - 8)
    return bytes(profile)


@pytest.mark.parametrize(
    ("kind", "body", "note"),
    [
        (b"cHRM", IMPOSSIBLE, "colours of the file (cHRM) ignored, they are impossible"),
        (b"gAMA", struct.pack(">I", 1), "gamma ignored, 1e-05 is implausible"),
        (b"gAMA", struct.pack(">I", 2**31 - 1), "gamma ignored, 21474.8 is implausible"),
        (
            b"iCCP",
            b"x\0\0" + zlib.compress(black_profile()),
            "colour profile ignored, it is damaged (it makes everything black or white)",
        ),
    ],
    ids=["cHRM", "gAMA low", "gAMA high", "iCCP"],
)
def test_colours_that_cannot_be_are_ignored_with_a_note(tmp_path, kind, body, note):
    (tmp_path / "a.png").write_bytes(with_chunk(encoded(smooth(8, 8), "PNG"), kind, body))
    photo = read_photo(tmp_path / "a.png", integers=True)
    assert np.array_equal(photo.rgb, smooth(8, 8)) and photo.note == note


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_signed_tiffs_are_refused(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", noise(8, 8).astype(dtype), photometric="minisblack")
    assert f"found signed numbers of {8 * np.dtype(dtype).itemsize} bits" in refused(tmp_path / "a.tif")


def test_kinds_that_are_not_read_are_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpegls_encode(noise(16, 16, 3)))
    assert refused(tmp_path / "a.jpg").endswith("found JPEG-LS")
    header = struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(6))), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    assert refused(tmp_path / "a.png").endswith("found a PNG file without its palette")


@pytest.mark.parametrize(
    ("number", "name"),
    [(50002, "JPEG XL (number 50002)"), (34887, "LERC (number 34887)"), (9, "an unknown one (number 9)")],
)
def test_compressions_inside_tiff_that_are_not_read_are_named(tmp_path, number, name):
    tifffile.imwrite(tmp_path / "a.tif", noise(16, 16, 3), photometric="rgb", compression="zlib")
    data = (tmp_path / "a.tif").read_bytes()
    known = struct.pack("<HHIH", 259, 3, 1, 8)
    assert data.count(known) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(known, known[:-2] + struct.pack("<H", number)))
    assert refused(tmp_path / "a.tif").endswith(f"expected a common compression inside TIFF, found {name}")


@pytest.mark.filterwarnings("error")
def test_folders_are_closed(tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    with warnings.catch_warnings(), pytest.raises(UserError, match="found none"):
        warnings.simplefilter("error")
        list_images(tmp_path, "key")
    assert remove_stale(tmp_path) == []
