"""Kinds of files that people have: what their colours mean, what they lack, claim, and say beside the pixels."""

import io
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from data.images import ImageError, Limits, Metadata, Photo, read_photo, read_rgb8, write_photo
from tests.data.test_images import camera_exif, display_p3, exif_of, noise, p3_to_srgb, smooth

ACCEPT = Limits(incomplete="accept")
BASE = ExifTags.Base


def blocky(height: int = 160, width: int = 200) -> np.ndarray:
    """Detail everywhere, none of it mid-grey."""
    coarse = noise(-(-height // 16), -(-width // 16), 3, seed=1)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    return png[:33] + chunk(kind, body) + png[33:]


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def refused(path: Path, **options) -> str:
    with pytest.raises(ImageError) as caught:
        read_photo(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.count(str(path)) == 1 and "\n" not in message
    return message


# --- colours ---


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_jpeg_2000_is_exact(tmp_path, channels):
    pixels = noise(24, 20, channels, dtype=np.uint16).squeeze()
    pixels[0, 0] = 65535
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2"))
    photo = read_photo(tmp_path / "a.jp2", integers=True)
    assert (photo.bits, photo.format) == (16, "JPEG2000")
    assert np.array_equal(photo.rgb, np.dstack([pixels] * 3) if channels == 1 else pixels[..., :3])
    assert channels < 4 or np.array_equal(photo.alpha, pixels[..., 3])


def test_12_bit_jpeg_2000_fills_the_range(tmp_path):
    pixels = np.array([[0, 2048, 4095]] * 16, np.uint16)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", bitspersample=12))
    assert read_photo(tmp_path / "a.jp2").rgb[0, :, 0] == pytest.approx([0, 2048 / 4095, 1], abs=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_linear_png_is_encoded_as_srgb(tmp_path, bits):
    linear = (smooth(16, 16).astype(np.uint16) * (1 if bits == 8 else 257)).astype(np.uint8 if bits == 8 else np.uint16)
    png = encoded(linear, "PNG") if bits == 8 else imagecodecs.png_encode(linear)
    (tmp_path / "a.png").write_bytes(with_chunk(png, b"gAMA", struct.pack(">I", 100000)))
    x = linear / (2**bits - 1)
    expected = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    assert np.abs(read_photo(tmp_path / "a.png").rgb - expected).max() < 1.5 / 255


def test_png_gamma_of_srgb_and_its_chromaticities_leave_pixels_exact(tmp_path):
    pixels = noise(9, 9, 3)
    png = with_chunk(encoded(pixels, "PNG"), b"gAMA", struct.pack(">I", 45455))
    points = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    (tmp_path / "a.png").write_bytes(with_chunk(png, b"cHRM", struct.pack(">8I", *points)))
    assert np.array_equal(read_rgb8(tmp_path / "a.png"), pixels)


def test_png_chromaticities_are_converted(tmp_path):
    pixels = noise(9, 9, 3)
    points = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)  # Display P3
    png = with_chunk(encoded(pixels, "PNG"), b"cHRM", struct.pack(">8I", *points))
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "b.png").write_bytes(with_chunk(encoded(pixels, "PNG"), b"cICP", bytes([12, 13, 0, 1])))
    ours = read_rgb8(tmp_path / "a.png").astype(int)
    assert np.abs(ours / 255 - p3_to_srgb(pixels / 255)).mean() < 0.02 and np.abs(ours - pixels).max() > 20
    assert np.abs(read_rgb8(tmp_path / "b.png") - ours).max() <= 1


def test_nclx_of_avif_is_converted(tmp_path):
    pixels = np.full((16, 16, 3), (200, 80, 40), np.uint8)
    for name, primaries in (("srgb", 1), ("p3", 12)):
        data = imagecodecs.avif_encode(pixels, level=100, primaries=primaries, transfer=13)
        (tmp_path / f"{name}.avif").write_bytes(data)
    plain, wide = (read_photo(tmp_path / f"{name}.avif") for name in ("srgb", "p3"))
    assert np.abs(plain.rgb * 255 - pixels).max() <= 2
    assert wide.rgb[0, 0, 0] * 255 > 210 and wide.note is None


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_noted(tmp_path, transfer, name):
    pixels = smooth(16, 16)
    (tmp_path / "a.png").write_bytes(with_chunk(encoded(pixels, "PNG"), b"cICP", bytes([9, transfer, 0, 1])))
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(pixels, level=100, primaries=9, transfer=transfer))
    for suffix in ("png", "avif"):
        assert f"HDR ({name})" in read_photo(tmp_path / f"a.{suffix}").note


def test_gain_maps_are_noted_and_their_claims_left_out(tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description hdrgm:Version="1.0" dc:title="T" tiff:Orientation="1"/></x:xmpmeta>'
    (tmp_path / "a.jpg").write_bytes(encoded(smooth(16, 16), "JPEG", xmp=xmp))
    photo = read_photo(tmp_path / "a.jpg")
    assert "gain map" in photo.note
    assert photo.metadata.xmp == b'<x:xmpmeta><rdf:Description dc:title="T"/></x:xmpmeta>'
    iso = with_segment(encoded(smooth(16, 16), "JPEG"), 0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0")
    (tmp_path / "b.jpg").write_bytes(iso)
    assert "gain map" in read_photo(tmp_path / "b.jpg").note


def test_the_profile_of_a_jpeg_in_several_segments_in_any_order(tmp_path):
    profile = display_p3()
    parts = [
        b"ICC_PROFILE\0" + bytes([n + 1, 2]) + profile[n * 300 : (n + 1) * 300 if n == 0 else None] for n in (0, 1)
    ]
    jpeg = encoded(blocky(), "JPEG", quality=95)
    (tmp_path / "a.jpg").write_bytes(with_segment(with_segment(jpeg, 0xE2, parts[0]), 0xE2, parts[1]))
    (tmp_path / "b.jpg").write_bytes(encoded(blocky(), "JPEG", quality=95, icc_profile=profile))
    assert np.array_equal(read_rgb8(tmp_path / "a.jpg"), read_rgb8(tmp_path / "b.jpg"))


# --- TIFF and BigTIFF ---


def camera_tiff(path: Path, pixels: np.ndarray, **options) -> None:
    """A TIFF with tags that are kept, and pointers to EXIF and GPS directories, by tifffile and by hand."""
    from data.images import tags

    tifffile.imwrite(path, pixels, photometric="rgb", resolution=(300, 300), resolutionunit=2, metadata=None, **options)
    with path.open("r+b") as file:
        tags.add_entries(file, {t: e for t, e in tags.unpack(camera_exif(1)).items() if t != BASE.Orientation})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bigtiff_is_read_with_its_tags(tmp_path, dtype):
    pixels = noise(8, 9, 3, dtype=dtype)
    tags = [(271, "s", 0, "Maker", True), (306, "s", 0, "2024:04:01 10:00:00", True), (274, "H", 1, 6, True)]
    options = {"extratags": tags, "resolution": (300, 300), "resolutionunit": 2}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", bigtiff=True, **options)
    photo = read_photo(tmp_path / "a.tif", integers=True)
    assert np.array_equal(photo.rgb, np.rot90(pixels, -1)) and photo.metadata.dpi == (300, 300)
    assert exif_of(photo)[BASE.Make] == "Maker" and exif_of(photo)[BASE.DateTime] == "2024:04:01 10:00:00"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_to_tiff_keeps_date_place_and_resolution(tmp_path, dtype):
    pixels = noise(8, 9, 3, dtype=dtype)
    camera_tiff(tmp_path / "a.tif", pixels)
    write_photo(tmp_path / "b.tif", read_photo(tmp_path / "a.tif"))
    with Image.open(tmp_path / "b.tif") as image:  # an independent reader
        exif = image.getexif()
        assert exif[BASE.Make] == "Maker" and exif[BASE.XResolution] == 300
        assert exif.get_ifd(ExifTags.IFD.Exif)[BASE.DateTimeOriginal] == "2024:04:01 10:00:00"
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)


# --- missing data ---


def cut_jpeg(share: float, **options) -> bytes:
    data = encoded(blocky(), "JPEG", quality=90, **options)
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_cut_jpeg_tells_how_much_is_missing(tmp_path, end):
    (tmp_path / "a.jpg").write_bytes(cut_jpeg(0.6) + end)
    message = refused(tmp_path / "a.jpg")
    assert (
        "the last 5" in message and "% of the photo is missing (--set data.incomplete=accept takes the rest)" in message
    )
    photo = read_photo(tmp_path / "a.jpg", limits=ACCEPT)
    assert photo.note.startswith("the last 5") and photo.rgb.shape == (160, 200, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_cut_jpeg_of_other_colours_is_noticed(tmp_path, mode):
    buffer = io.BytesIO()
    Image.fromarray(blocky()).convert(mode).save(buffer, "JPEG", quality=90)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 6 // 10] + b"\xff\xd9")
    assert "% of the photo is missing" in refused(tmp_path / "a.jpg")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_a_cut_progressive_jpeg_is_noticed(tmp_path, share):
    (tmp_path / "a.jpg").write_bytes(cut_jpeg(share, progressive=True) + b"\xff\xd9")
    message = refused(tmp_path / "a.jpg")
    assert "missing" in message or "damaged" in message


UNWRITTEN = {  # name -> kind and options; compressed photos
    "a.jpg": ("JPEG", {"quality": 90}),
    "progressive.jpg": ("JPEG", {"quality": 90, "progressive": True}),
    "restarts.jpg": ("JPEG", {"quality": 90, "restart_marker_rows": 1}),
    "a.webp": ("WEBP", {"quality": 90}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "a.avif": ("AVIF", {"quality": 90}),
    "a.jp2": ("JPEG2000", {}),
    "a.png": ("PNG", {}),
    "zip.tif": ("TIFF", {"compression": "tiff_deflate"}),
}


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("name", UNWRITTEN)
def test_a_file_whose_end_was_never_written_is_noticed(tmp_path, name, fill):
    """A broken-off copy has its full size, and zeros (on a failing card: ones) from somewhere on."""
    kind, options = UNWRITTEN[name]
    data = encoded(noise(128, 160, 3), kind, **options)
    share = int(len(data) * 0.6)
    (tmp_path / name).write_bytes(data[:share] + fill * (len(data) - share))
    assert len(data) - share > 4096
    refused(tmp_path / name)


@pytest.mark.parametrize("name", UNWRITTEN)
def test_a_complete_file_that_is_padded_is_read(tmp_path, name):
    kind, options = UNWRITTEN[name]
    data = encoded(noise(64, 80, 3), kind, **options)
    (tmp_path / name).write_bytes(data)
    whole = read_photo(tmp_path / name)
    (tmp_path / name).write_bytes(data + bytes(10_000))
    padded = read_photo(tmp_path / name)
    assert np.array_equal(padded.rgb, whole.rgb) and padded.note == whole.note


def test_zeros_that_are_a_picture_are_read(tmp_path):
    """A large WebP of one colour ends with many; without compression they are black pixels."""
    for name, options in (("black.webp", {}), ("black.bmp", {}), ("black.tif", {})):
        Image.new("RGB", (1200, 800)).save(tmp_path / name, **options)
        assert not read_rgb8(tmp_path / name).any()


HOLED = UNWRITTEN | {
    "grey.jpg": ("JPEG", {"quality": 95, "optimize": True}),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "zstd.tif": ("TIFF", {"compression": "zstd"}),
    "jpeg.tif": ("TIFF", {"compression": "jpeg", "quality": 95}),
}


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("name", HOLED)
def test_a_hole_in_a_compressed_file_is_noticed(tmp_path, name, fill):
    """Where a file system lost a piece of a file, it has zeros; where a card did, ones."""
    kind, options = HOLED[name]
    data = encoded(noise(160, 160, 3)[..., 0] if name.startswith("grey") else noise(160, 160, 3), kind, **options)
    middle = len(data) // 2
    (tmp_path / name).write_bytes(data[: middle - 2048] + fill * 4096 + data[middle + 2048 :])
    refused(tmp_path / name)
    if kind == "JPEG" and fill == b"\0":
        photo = read_photo(tmp_path / name, limits=ACCEPT)
        assert re.search(r"4,\d+ bytes inside its data are missing", photo.note) and photo.rgb.shape == (160, 160, 3)


def test_zeros_in_even_areas_are_no_hole(tmp_path):
    """Optimized tables have the code 0 for a block like the one before; deflate may store what it does not pack."""
    even = np.full((1200, 1200), 255, np.uint8)
    for name, options in (("a.jpg", {"optimize": True}), ("b.jpg", {"optimize": True, "quality": 5})):
        (tmp_path / name).write_bytes(encoded(even, "JPEG", **options))
    tifffile.imwrite(tmp_path / "a.tif", 0 * even, compression="zlib", compressionargs={"level": 0})
    for name in ("a.jpg", "b.jpg", "a.tif"):
        assert bytes(4096) in (tmp_path / name).read_bytes()
        assert len(np.unique(read_rgb8(tmp_path / name))) == 1


@pytest.mark.parametrize("row", [np.full((160, 3), 255), noise(1, 160, 3)[0]])
def test_a_lossless_webp_of_a_quick_encoder_has_long_zeros(tmp_path, row):
    """In areas of one colour, and where each row is like the one above."""
    picture = np.empty((240, 160, 3), np.uint8)
    picture[:40], picture[40:] = noise(40, 160, 3), row
    data = encoded(picture, "WEBP", lossless=True, method=0)
    assert bytes(4096) in data
    (tmp_path / "a.webp").write_bytes(data)
    assert np.array_equal(read_rgb8(tmp_path / "a.webp"), picture)
    (tmp_path / "a.webp").write_bytes(data[:6000] + bytes(4096) + data[10096:])
    refused(tmp_path / "a.webp")


def test_black_beside_noise_in_a_lossy_webp_is_no_hole(tmp_path):
    picture = np.zeros((1200, 1600, 3), np.uint8)
    picture[:300] = noise(300, 1600, 3)
    data = encoded(picture, "WEBP", quality=1, method=0)
    assert bytes(4096) in data
    (tmp_path / "a.webp").write_bytes(data)
    assert read_rgb8(tmp_path / "a.webp")[400:].max() < 8


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_zeros_in_metadata_are_no_hole(tmp_path, kind):
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0\x7c\x92\7\0" + struct.pack("<II", 9000, 26) + bytes(9004)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(9000)
    for options in ({"exif": exif}, {"icc_profile": profile}):
        data = encoded(noise(64, 80, 3), kind, **options)
        assert bytes(9000) in data
        (tmp_path / "a").write_bytes(data)
        assert read_rgb8(tmp_path / "a").shape == (64, 80, 3)


def test_zeros_that_are_no_part_of_a_jpeg_are_no_hole(tmp_path):
    data = encoded(noise(64, 80, 3), "JPEG")
    others = (encoded(np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8), "JPEG") for seed in range(5000))
    for whole in (data, next(other for other in others if other[-3] == 0)):  # the second one's own data end in a zero
        (tmp_path / "a.jpg").write_bytes(whole[:-2] + bytes(5000) + b"\xff\xd9")
        assert read_photo(tmp_path / "a.jpg").note is None


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_complete(tmp_path, progressive):
    data = encoded(blocky(), "JPEG", quality=90, progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "b.jpg").write_bytes(data[:-2])
    photo = read_photo(tmp_path / "b.jpg")
    assert photo.note == "the end mark of the file is missing, the picture is complete"
    assert np.array_equal(photo.rgb, read_photo(tmp_path / "a.jpg").rgb)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_grey_jpeg_is_complete(tmp_path, progressive):
    (tmp_path / "a.jpg").write_bytes(encoded(np.full((64, 64, 3), 128, np.uint8), "JPEG", progressive=progressive))
    assert read_photo(tmp_path / "a.jpg").note is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_strips_without_bytes_are_missing(tmp_path, dtype, compression):
    pixels = noise(48, 20, 3, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=4, compression=compression)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        sizes = tiff.pages[0].tags[279]
    width = (sizes.dtype.name == "SHORT" and 2) or 4
    data[sizes.valueoffset + 4 * width : sizes.valueoffset + 12 * width] = bytes(8 * width)
    (tmp_path / "a.tif").write_bytes(data)
    assert "the last 67 % of the photo is missing" in refused(tmp_path / "a.tif")
    if dtype == np.uint16:
        photo = read_photo(tmp_path / "a.tif", integers=True, limits=ACCEPT)
        assert "67 %" in photo.note and np.array_equal(photo.rgb[:16], pixels[:16]) and not photo.rgb[16:].any()


def test_raw_tiff_with_fewer_rows_than_claimed(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 20, 3), photometric="rgb", rowsperstrip=40)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        height, rows = (tiff.pages[0].tags[tag].valueoffset for tag in (257, 278))
    for offset in (height, rows):
        data[offset : offset + 2] = struct.pack("<H", 60)
    (tmp_path / "a.tif").write_bytes(data)
    assert "of the photo is missing" in refused(tmp_path / "a.tif")


def test_jpeg_xr_inside_tiff_is_refused(tmp_path):
    """Its decoder fills what a cut file lacks, and crashes on damaged ones."""
    tifffile.imwrite(tmp_path / "a.tif", blocky(64, 64), photometric="rgb", compression="jpegxr")
    assert "expected a common compression inside TIFF, found JPEG XR (number 34934)" in refused(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp"])
def test_cut_pictures_inside_tiff(tmp_path, compression):
    pixels = blocky(64, 64)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression=compression, rowsperstrip=64)
    assert read_rgb8(tmp_path / "a.tif").shape == (64, 64, 3)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        sizes, size = tiff.pages[0].tags[279].valueoffset, tiff.pages[0].databytecounts[0]
    data[sizes : sizes + 4] = struct.pack("<I", size * 2 // 3)
    (tmp_path / "a.tif").write_bytes(data)
    assert "complete" in refused(tmp_path / "a.tif")


def test_bad_fax_lines_inside_tiff(tmp_path):
    picture = Image.fromarray(blocky()).convert("1")
    picture.save(tmp_path / "a.tif", compression="group4")
    assert np.array_equal(read_rgb8(tmp_path / "a.tif")[..., 0], np.asarray(picture.convert("L")))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = noise(200).tobytes()
    (tmp_path / "a.tif").write_bytes(data)
    assert "damaged" in refused(tmp_path / "a.tif")


def test_cut_icns(tmp_path):
    Image.fromarray(blocky(64, 64)).save(tmp_path / "a.icns", sizes=[(32, 32), (64, 64)])
    data = (tmp_path / "a.icns").read_bytes()
    (tmp_path / "a.icns").write_bytes(data[: len(data) * 9 // 10])
    assert "the last 10 % of its data are missing" in refused(tmp_path / "a.icns")


# --- claims ---


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(smooth(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_of_size(width: int, height: int, samples: int = 4) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise(2, 2, samples, dtype=np.uint16), photometric="separated", compression="zlib")
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tags = tiff.pages[0].tags
    for tag, value in ((256, width), (257, height), (278, height)):
        data[tags[tag].valueoffset : tags[tag].valueoffset + 4] = struct.pack("<I", value)[
            : 4 if tags[tag].dtype == 4 else 2
        ]
    return bytes(data)


def png_of_size(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(3 * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", jpeg_of_size(9000, 9000)),
        ("a.tif", tiff_of_size(13000, 13000)),
        ("a.png", png_of_size(9000, 9000)),
        ("a.bmp", b"BM" + struct.pack("<IIIIIIHHIIIIII", 54, 0, 54, 40, 9000, 9000, 1, 24, 0, 0, 0, 0, 0, 0)),
        ("a.ppm", b"P6 9000 9000 255 "),
        ("a.gif", encoded(noise(8, 8), "GIF").replace(struct.pack("<HH", 8, 8), struct.pack("<HH", 9000, 9000))),
        ("a.qoi", b"qoif" + struct.pack(">II", 9000, 9000) + b"\3\0" + bytes(100)),
    ],
)
def test_a_header_that_claims_more_than_the_file_can_hold(tmp_path, name, data):
    import tracemalloc

    (tmp_path / name).write_bytes(data)
    tracemalloc.start()
    message = refused(tmp_path / name)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "expected" in message and used < 4e6


def test_a_progressive_jpeg_of_hundreds_of_scans(tmp_path):
    data = encoded(blocky(64, 64), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    scan = data[first : data.index(b"\xff\xda", first + 2)]
    last = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:first] + scan + last * 300 + b"\xff\xd9")
    assert "expected at most 100 scans, found 301" in refused(tmp_path / "a.jpg")


def test_comments_without_end_are_read_once(tmp_path):
    body = b"Exif\0\0" + bytes(65000)
    data = encoded(blocky(64, 64), "JPEG")
    many = (b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + b"\xff\xfe\xff\xff" + bytes(65533)) * 400
    (tmp_path / "a.jpg").write_bytes(data[:2] + many + data[2:])
    photo = read_photo(tmp_path / "a.jpg", integers=True)
    (tmp_path / "b.jpg").write_bytes(data)
    assert np.array_equal(photo.rgb, read_rgb8(tmp_path / "b.jpg"))


# --- content chooses the decoder ---


def test_no_program_is_started_for_a_photo(tmp_path, monkeypatch):
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch '{called}'\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "a.jpg").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
    )
    photo = str(tmp_path / "a.jpg")
    code = f"from data.images import read_photo\ntry: read_photo({photo!r})\nexcept Exception as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": "."},
    )  # fmt: skip
    assert "expected an image in a format" in done.stdout and not called.exists()


def test_a_name_says_nothing_about_the_content(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(smooth(8, 8), "PNG"))
    (tmp_path / "b.png").write_bytes(encoded(smooth(8, 8), "BMP"))
    for name, kind in (("a.jpg", "PNG"), ("b.png", "BMP")):
        photo = read_photo(tmp_path / name)
        assert photo.format == kind and np.array_equal(np.rint(photo.rgb * 255), smooth(8, 8))


def test_multi_picture_files_give_their_first_picture(tmp_path):
    Image.fromarray(blocky()).save(tmp_path / "a.mpo", save_all=True, append_images=[Image.new("RGB", (200, 160))])
    assert np.abs(read_rgb8(tmp_path / "a.mpo").astype(int) - blocky()).mean() < 8


# --- metadata ---


XMP = b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta>%s</x:xmpmeta><?xpacket end="w"?>'
IPTC = b"\x1c\x02\x50" + struct.pack(">H", 6) + b"Author"


def described(**options) -> Photo:
    metadata = Metadata(camera_exif(1), XMP % b"title", IPTC, (300.0, 300.0), {"Comment": "Größe"}, 1, 1.7e9)
    return Photo(smooth(16, 24), metadata=replace(metadata, **options), bits=options.get("bits", 8))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_what_a_format_can_hold_is_kept(tmp_path, suffix, bits):
    path = tmp_path / f"a.{suffix}"
    assert write_photo(path, replace(described(), bits=bits)) is None
    assert path.stat().st_mtime == 1.7e9
    back = read_photo(path).metadata
    assert back.xmp == XMP % b"title" and back.dpi == pytest.approx((300, 300), rel=1e-3)
    assert back.iptc == (IPTC if suffix in ("jpg", "tif") else None)
    assert back.texts.get("Comment") == ("Größe" if suffix in ("jpg", "png") else None)
    assert back.intent == (1 if suffix == "png" else None)
    with Image.open(path) as image:  # an independent reader
        assert image.getexif()[BASE.Make] == "Maker"
        if suffix in ("jpg", "png"):
            assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
        assert suffix == "tif" or image.info["xmp"] == XMP % b"title"


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_no_metadata_where_none_is_wanted(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_photo(path, described(), metadata="none")
    back = read_photo(path).metadata
    assert (back.xmp, back.iptc, back.dpi, back.texts, back.intent) == (None, None, None, {}, None)
    assert back.exif is None and path.stat().st_mtime > 1.75e9


def test_metadata_of_other_writers_is_found(tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "Ann", zip=True)
    texts.add_itxt("Title", "Größe", zip=True)
    Image.fromarray(smooth(8, 8)).save(tmp_path / "a.png", pnginfo=texts, dpi=(96, 96))
    metadata = read_photo(tmp_path / "a.png").metadata
    assert metadata.texts == {"Author": "Ann", "Title": "Größe"} and metadata.dpi == pytest.approx((96, 96), rel=1e-3)
    Image.fromarray(smooth(8, 8)).save(tmp_path / "a.jpg", dpi=(240, 240), comment=b"Hello")
    metadata = read_photo(tmp_path / "a.jpg").metadata
    assert (metadata.dpi, metadata.texts) == ((240, 240), {"Comment": "Hello"})
    Image.fromarray(smooth(8, 8)).save(tmp_path / "b.jpg", icc_profile=display_p3())
    assert read_photo(tmp_path / "b.jpg").metadata.intent == display_p3()[67]


def test_orientation_in_xmp_alone_is_applied_and_left_out(tmp_path):
    pixels = noise(4, 6, 3)
    (tmp_path / "a.png").write_bytes(
        with_chunk(
            encoded(pixels, "PNG"), b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP % b'<d tiff:Orientation="6"/>'
        )
    )
    photo = read_photo(tmp_path / "a.png", integers=True)
    assert np.array_equal(photo.rgb, np.rot90(pixels, -1)) and b"Orientation" not in photo.metadata.xmp


def test_long_exif_loses_its_largest_parts_only(tmp_path):
    exif = Image.Exif()
    exif[BASE.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif).update({BASE.MakerNote: bytes(70000), BASE.DateTimeOriginal: "2024:04:01 10:00:00"})
    photo = Photo(smooth(16, 16), metadata=Metadata(exif.tobytes()))
    note = write_photo(tmp_path / "a.jpg", photo)
    assert "largest parts (MakerNote)" in note
    back = exif_of(read_photo(tmp_path / "a.jpg"))
    assert back[BASE.Make] == "Maker"
    assert dict(back.get_ifd(ExifTags.IFD.Exif)) == {BASE.DateTimeOriginal: "2024:04:01 10:00:00"}


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_travels_byte_for_byte(tmp_path, order):
    """A fraction, a signed fraction, and a text that is not Latin-1, in both byte orders."""
    ifd = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II" if order == "<" else b"MM")
    exif = Image.Exif()
    exif.endian = order
    exif[BASE.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {BASE.ExposureTime: 0.004, BASE.ExposureBiasValue: -1.5, BASE.ISOSpeedRatings: 200}
    )
    assert ifd is not None
    Image.fromarray(smooth(8, 8)).save(tmp_path / "a.jpg", exif=exif.tobytes())
    write_photo(tmp_path / "b.tif", read_photo(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "b.tif") as image:
        details = image.getexif().get_ifd(ExifTags.IFD.Exif)
    assert details[BASE.ExposureTime] == pytest.approx(0.004) and details[BASE.ExposureBiasValue] == -1.5
    assert details[BASE.ISOSpeedRatings] == 200


# --- compression like the source's ---


@pytest.mark.parametrize(("quality", "subsampling", "progressive"), [(60, 2, True), (90, 1, False)])
def test_jpeg_quality_and_subsampling_of_the_source(tmp_path, quality, subsampling, progressive):
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    Image.fromarray(smooth(32, 32)).save(tmp_path / "a.jpg", **options)
    write_photo(tmp_path / "b.jpg", read_photo(tmp_path / "a.jpg"), quality="keep")
    with Image.open(tmp_path / "a.jpg") as one, Image.open(tmp_path / "b.jpg") as other:
        assert one.quantization == other.quantization and one.layer == other.layer
        assert one.info.get("progressive") == other.info.get("progressive")
    write_photo(tmp_path / "c.jpg", Photo(smooth(32, 32)), quality="keep")  # of no JPEG: the standard
    with Image.open(tmp_path / "c.jpg") as image:
        assert image.layer[0][1:3] == (1, 1)


@pytest.mark.parametrize("lossless", [True, False])
def test_lossless_webp_stays_lossless(tmp_path, lossless):
    Image.fromarray(noise(16, 16, 3)).save(tmp_path / "a.webp", lossless=lossless, exif=camera_exif(1))
    photo = read_photo(tmp_path / "a.webp", integers=True)
    write_photo(tmp_path / "b.webp", photo)
    assert np.array_equal(read_rgb8(tmp_path / "b.webp"), photo.rgb) == lossless


# --- HEIC ---


def test_heic_with_exif_and_profile(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="requirements-formats.txt is not installed")
    pixels = np.full((64, 48, 3), (200, 80, 40), np.uint8)
    file = pillow_heif.from_bytes("RGB", (48, 64), pixels.tobytes())
    options = {"quality": -1, "exif": camera_exif(1), "icc_profile": display_p3()}
    file.save(tmp_path / "a.heic", **options)
    photo = read_photo(tmp_path / "a.heic")
    assert photo.format == "HEIF" and exif_of(photo)[BASE.Make] == "Maker"
    assert np.abs(photo.rgb[32, 24] - p3_to_srgb(pixels[0, 0] / 255)).max() < 3 / 255


def test_memory_of_conversions_stays_in_proportion(tmp_path):
    """Beside the picture itself, colours are converted in strips."""
    import tracemalloc

    import data.images.colour as colour

    cmyk = np.zeros((3000, 2000, 4), np.uint8)
    profile = imagecodecs.cms_profile("adobergb")
    steps = [
        (lambda: colour.cmyk_to_rgb(cmyk), 3),
        (lambda: colour.unpremultiplied(cmyk[..., :3], cmyk[..., 3]), 3),
        (lambda: colour.to_srgb(cmyk[..., :3], profile), 3),
    ]
    for step, size in steps:
        tracemalloc.start()
        step()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < (size * 6 + 60) * 1e6


def test_srgb_profile_object_is_not_needed(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.webp", lossless=True, icc_profile=srgb)
    assert np.array_equal(read_rgb8(tmp_path / "a.webp"), noise(8, 8, 3))


@pytest.mark.parametrize("compression", ["webp", "jpeg2000", "zstd"])
def test_tiff_of_codecs_that_pillow_lacks(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", smooth(32, 32), photometric="rgb", compression=compression)
    expected = tifffile.imread(tmp_path / "a.tif")
    assert np.array_equal(read_rgb8(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_texts_and_profiles_that_unpack_without_end(tmp_path, kind):
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(24)) + packer.flush()
    (tmp_path / "a.png").write_bytes(with_chunk(encoded(smooth(8, 8), "PNG"), kind, b"Comment\0\0" + bomb))
    photo = read_photo(tmp_path / "a.png", integers=True)
    assert np.array_equal(photo.rgb, smooth(8, 8)) and photo.metadata.texts == {}
    assert photo.note == (
        "texts left out, together they are above 16 MB" if kind == b"zTXt" else "colour profile ignored, it is damaged"
    )


def test_what_is_no_picture_is_told_by_its_beginning(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert refused(tmp_path / "a.jpg").endswith("found a text file that begins with 'version https://'")
    (tmp_path / "d.jpg").write_bytes(b"FUJIFILMCCD-RAW 0201" + bytes(20))
    assert refused(tmp_path / "d.jpg").endswith("found a file that begins with b'FUJIFILMCCD-RAW '")
    twelve_bits = encoded(smooth(8, 8), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c")
    (tmp_path / "c.jpg").write_bytes(twelve_bits)
    assert "found a JPEG file that is damaged, or of a kind that it does not read" in refused(tmp_path / "c.jpg")
    (tmp_path / "b.jpg").write_bytes(jpeg_of_size(16, 0))
    assert refused(tmp_path / "b.jpg").endswith("found a JPEG file of 16 x 0 pixels")
