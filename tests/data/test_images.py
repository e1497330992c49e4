"""Every kind of file that a user may bring: what is read, what is written, what is refused."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps

from common.files import DiskFull
from data.images import PNG_LEVEL, ImageError, Limits, Metadata, Photo, read_photo, read_rgb8, write_photo
from tests.faults import as_nobody, room_for

LOSSLESS = ["png", "tif"]


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that lossy formats keep well, with four different corners."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / (height - 1), 255 * x / (width - 1), 40 + 0 * x], axis=-1).astype(np.uint8)


def display_p3() -> bytes:
    primaries = [0.680, 0.320, 1.0, 0.265, 0.690, 1.0, 0.150, 0.060, 1.0]
    return imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.3290, 1.0], primaries=primaries, gamma=2.2)


def camera_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Copyright] = "© Ö. Person".encode()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {ExifTags.Base.DateTimeOriginal: "2024:04:01 10:00:00", ExifTags.Base.ExifImageWidth: 24}
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif.tobytes()


def one_line(path: Path) -> str:
    """The message with which `path` is refused: one line that starts with the path."""
    with pytest.raises(ImageError) as caught:
        read_photo(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    with pytest.raises(ImageError):
        read_rgb8(path)
    return message


# --- what is read ---


def test_plain_png(tmp_path):
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.rgb.dtype == np.float32 and np.array_equal(photo.rgb, (pixels / 255).astype(np.float32))
    assert (photo.alpha, photo.bits, photo.grey, photo.metadata.exif, photo.format, photo.note) == (
        None,
        8,
        False,
        None,
        "PNG",
        None,
    )
    assert np.array_equal(read_rgb8(tmp_path / "a.png"), pixels)


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "a.png")
    assert read_rgb8(tmp_path / "a.png").tolist() == [[[10, 20, 30]]]
    write_photo(tmp_path / "b.jpg", read_photo(tmp_path / "a.png"))
    assert read_rgb8(tmp_path / "b.jpg").shape == (1, 1, 3)


def test_cmyk_jpeg_without_profile(tmp_path):
    Image.fromarray(smooth(16, 24)).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert Image.open(tmp_path / "a.jpg").mode == "CMYK"
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert np.abs(read_rgb8(tmp_path / "a.jpg").astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparent_colour_of_png(tmp_path, mode):
    pixels = np.array([[[255, 0, 255], [202, 209, 215]]], np.uint8)[..., : len(mode)].squeeze()[None]
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=(255, 0, 255) if mode == "RGB" else int(pixels[0, 0]))
    photo = read_photo(tmp_path / "a.png")
    assert photo.rgb.shape == (1, 2, 3) and np.array_equal(
        np.rint(photo.rgb * 255), np.broadcast_to(pixels.reshape(1, 2, -1), (1, 2, 3))
    )
    assert photo.alpha.tolist() == [[0, 1]]


def test_adobe_rgb_told_by_exif_alone_is_converted(tmp_path):
    exif = Image.Exif()
    interop = {ExifTags.Interop.InteropIndex: "R03"}
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ColorSpace: 0xFFFF, ExifTags.IFD.Interop: interop})
    image = Image.fromarray(smooth(16, 24))
    image.save(tmp_path / "camera.jpg", exif=exif, quality=100, subsampling=0)
    image.save(tmp_path / "profile.jpg", icc_profile=imagecodecs.cms_profile("adobergb"), quality=100, subsampling=0)
    photo = read_photo(tmp_path / "camera.jpg")
    assert np.array_equal(photo.rgb, read_photo(tmp_path / "profile.jpg").rgb)
    assert np.abs(photo.rgb * 255 - smooth(16, 24)).max() > 10
    assert exif_of(photo).get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] == 1
    assert ExifTags.IFD.Interop not in exif_of(photo).get_ifd(ExifTags.IFD.Exif)


def test_exif_without_details_gets_none(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    Image.fromarray(smooth(8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert dict(exif_of(read_photo(tmp_path / "a.jpg"))) == {ExifTags.Base.Make: "Maker"}


def test_a_camera_raw_file_is_no_photo_though_its_preview_opens(tmp_path):
    tifffile.imwrite(tmp_path / "a.dng", smooth(8, 9), photometric="rgb", subfiletype=1)
    with pytest.raises(ImageError, match=r"a\.dng: expected a photo, found a preview on its first page"):
        read_photo(tmp_path / "a.dng")


@pytest.mark.parametrize(("name", "width"), [("a.jpg", 65501), ("a.webp", 16384)])
def test_a_size_that_the_format_cannot_hold_is_told(tmp_path, name, width):
    with pytest.raises(
        ImageError, match=rf"holds at most {width - 1} pixels to a side, found {width} x 1; take PNG or TIFF"
    ):
        write_photo(tmp_path / name, Photo(np.zeros((1, width, 3), np.float32)))


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=b"\xff\x80\x00")
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.alpha, np.array([[255, 128], [0, 128]], np.float32) / 255)
    assert photo.rgb.tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]]]


def test_animation_gives_first_frame_and_a_note(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / "a.gif")
    assert photo.note == "animated: first of 3 frames"
    assert np.array_equal(photo.rgb, np.broadcast_to(np.float32([1, 0, 0]), (3, 4, 3)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "YCbCr", "LAB", "HSV"])
def test_other_modes(tmp_path, mode):
    source = Image.fromarray(smooth(6, 8))
    if mode == "LAB":
        source = ImageCms.profileToProfile(
            source, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    source = source if mode == "LAB" else source.convert(mode)
    path = tmp_path / ("a.tif" if mode in ("YCbCr", "LAB") else "a.png")
    (source.convert("RGB") if mode == "HSV" else source).save(path)
    photo = read_photo(path)
    assert photo.grey == (mode in ("1", "L", "LA")) and (photo.alpha is not None) == mode.endswith("A")
    expected = smooth(6, 8) if mode == "LAB" else np.asarray(source.convert("RGB"))
    error = np.abs(photo.rgb * 255 - expected)
    assert photo.note is None and (
        error.mean() < 2 if mode == "LAB" else error.max() < 1e-3
    )  # LAB: 8 bits are coarse in dark tones


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_orientation_is_applied_to_pixels_and_alpha(tmp_path, bits, orientation):
    pixels = noise(4, 6, 4, dtype=np.uint8 if bits == 8 else np.uint16)
    upright = np.asarray(ImageOps.exif_transpose(oriented(pixels // (1 if bits == 8 else 257), orientation)))
    if bits == 8:
        oriented(pixels, orientation).save(tmp_path / "a.png", exif=camera_exif(orientation))
    else:
        data = imagecodecs.png_encode(pixels)
        chunk = b"eXIf" + camera_exif(orientation)[6:]
        chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    photo = read_photo(tmp_path / "a.png")
    assert photo.bits == bits
    top = 255 if bits == 8 else 257 * 255
    step = 1 if bits == 8 else 257
    assert np.array_equal(np.rint(photo.rgb * top).astype(int) // step, upright[..., :3])
    assert np.array_equal(np.rint(photo.alpha * top).astype(int) // step, upright[..., 3])


def oriented(pixels: np.ndarray, orientation: int) -> Image.Image:
    image = Image.fromarray(pixels.astype(np.uint8))
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return image


def test_orientation_of_a_tiff_is_applied_once(tmp_path):
    pixels = noise(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "a.tif", exif=camera_exif(6))
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(np.rint(photo.rgb * 255), np.rot90(pixels, -1))
    assert ExifTags.Base.Orientation not in exif_of(photo)
    deep = noise(4, 6, 3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", deep, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(np.rint(read_photo(tmp_path / "b.tif").rgb * 65535), np.rot90(deep, -1))


# --- colour profiles ---


def p3_to_srgb(rgb: np.ndarray) -> np.ndarray:
    """Display P3 (gamma 2.2) to sRGB by the published matrix, in [0, 1]."""
    matrix = np.array(
        [[1.22494018, -0.22494018, 0], [-0.04205695, 1.04205695, 0], [-0.01963755, -0.07863605, 1.09827360]]
    )
    linear = np.clip((rgb.astype(np.float64) ** 2.2) @ matrix.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_profile_is_converted_to_srgb_at_8_bits(tmp_path):
    pixels = noise(40, 50, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=display_p3())
    ours = read_rgb8(tmp_path / "a.png").astype(int)
    pillow = ImageCms.profileToProfile(
        Image.fromarray(pixels), io.BytesIO(display_p3()), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert np.abs(ours - np.asarray(pillow)).max() <= 1
    assert np.abs(ours / 255 - p3_to_srgb(pixels / 255)).max() < 1 / 255
    assert np.abs(ours - pixels).max() > 20  # it does change something


def test_profile_is_converted_to_srgb_at_16_bits(tmp_path):
    pixels = noise(40, 50, 3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=display_p3())
    photo = read_photo(tmp_path / "a.tif")
    assert photo.bits == 16 and photo.note is None
    assert np.abs(photo.rgb - p3_to_srgb(pixels / 65535)).max() < 0.2 / 255


@pytest.mark.parametrize("bits", [8, 16])
def test_srgb_profile_leaves_pixels_exact(tmp_path, bits):
    pixels = noise(9, 9, 3, dtype=np.uint8 if bits == 8 else np.uint16)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=srgb)
    assert np.array_equal(np.rint(read_photo(tmp_path / "a.tif").rgb * (2**bits - 1)), pixels)


def test_grey_profile(tmp_path):
    linear = imagecodecs.cms_profile("gray", whitepoint=[0.3127, 0.3290, 1.0], gamma=1.0)
    pixels = np.array([[0, 55, 128, 255]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=linear)
    photo = read_photo(tmp_path / "a.png")
    assert photo.grey and np.ptp(photo.rgb, axis=-1).max() == 0
    encoded = 1.055 * (pixels[0, 1:] / 255) ** (1 / 2.4) - 0.055
    assert np.abs(photo.rgb[0, 1:, 0] - encoded).max() < 1.5 / 255


def test_grey_photo_with_a_colour_profile_stays_grey(tmp_path):
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.jpg", icc_profile=display_p3())
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.grey and photo.note is None and np.ptp(photo.rgb, axis=-1).max() == 0


@pytest.mark.parametrize("profile", [b"\x01" * 200, display_p3()[:300], b"x"])
def test_broken_profile_is_ignored_with_a_note(tmp_path, profile):
    pixels = noise(5, 5, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    photo = read_photo(tmp_path / "a.png")
    assert photo.note.startswith("colour profile ignored, it is damaged")
    assert np.array_equal(np.rint(photo.rgb * 255), pixels)


def test_cmyk_with_an_rgb_profile_falls_back(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tif", icc_profile=display_p3())
    photo = read_photo(tmp_path / "a.tif")
    assert "other colours" in photo.note and photo.rgb[0, 0].tolist() == [1, 0, 0]


# --- 16 bits ---


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_round_trip_is_exact(tmp_path, suffix, channels):
    pixels = noise(9, 7, channels, dtype=np.uint16)
    alpha = pixels[..., -1] / np.float32(65535) if channels in (2, 4) else None
    colour = pixels[..., : channels - (alpha is not None)] / np.float32(65535)
    photo = Photo(
        np.repeat(colour, 3, axis=2) if channels < 3 else colour, alpha, 16, channels < 3, Metadata(camera_exif(1))
    )
    write_photo(tmp_path / f"a.{suffix}", photo)
    back = read_photo(tmp_path / f"a.{suffix}")
    assert (back.bits, back.grey) == (16, channels < 3)
    assert np.array_equal(back.rgb, photo.rgb)
    assert (back.alpha is None) if alpha is None else np.array_equal(back.alpha, alpha)
    assert (
        exif_of(back)[ExifTags.Base.Make] == "Maker"
        and exif_of(back)[ExifTags.Base.Copyright].encode("latin-1").decode() == "© Ö. Person"
    )
    # and others see the same picture: Pillow, at its 8 bits
    if (suffix, channels) != ("tif", 2):
        with Image.open(tmp_path / f"a.{suffix}") as image:
            assert image.mode == {1: "I;16", 2: "RGBA", 3: "RGB", 4: "RGBA"}[channels]
            if channels > 2:
                assert np.array_equal(np.asarray(image), pixels >> 8)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"planarconfig": "separate"},
        {"byteorder": ">"},
    ],
)
def test_16_bit_tiff_layouts(tmp_path, options):
    pixels = noise(20, 33, 3, dtype=np.uint16)
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    assert np.array_equal(np.rint(read_photo(tmp_path / "a.tif").rgb * 65535), pixels)
    assert np.array_equal(read_rgb8(tmp_path / "a.tif"), np.rint(pixels / 257).astype(np.uint8))


def test_16_bit_tiff_special_layouts(tmp_path):
    grey = noise(5, 6, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite")
    assert np.array_equal(np.rint(read_photo(tmp_path / "white.tif").rgb[..., 0] * 65535), 65535 - grey)
    halved = np.full((2, 2, 4), 16384, np.uint16)
    halved[..., 3] = 32768
    tifffile.imwrite(tmp_path / "assoc.tif", halved, photometric="rgb", extrasamples=["assocalpha"])
    photo = read_photo(tmp_path / "assoc.tif")
    assert np.allclose(photo.rgb, 0.5, atol=1e-4) and np.allclose(photo.alpha, 0.5, atol=1e-4)
    cmyk = np.zeros((2, 2, 4), np.uint16)
    cmyk[..., 0] = 65535
    tifffile.imwrite(tmp_path / "cmyk.tif", cmyk, photometric="separated")
    assert read_photo(tmp_path / "cmyk.tif").rgb[0, 0].tolist() == [0, 1, 1]


def test_16_bit_pgm(tmp_path):
    pixels = noise(3, 4, dtype=np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5 4 3 65535\n" + pixels.astype(">u2").tobytes())
    photo = read_photo(tmp_path / "a.pgm")
    assert photo.bits == 16 and photo.grey and np.array_equal(np.rint(photo.rgb[..., 0] * 65535), pixels)


def test_16_bit_photo_becomes_8_bits_where_the_format_has_no_more(tmp_path):
    values = np.array([[0.0, 0.4999, 128.4 / 255, 128.6 / 255, 1.0]], np.float32)
    photo = Photo(np.repeat(values[..., None], 3, axis=2), bits=16, grey=True)
    write_photo(tmp_path / "a.webp", photo, quality=100)
    write_photo(tmp_path / "a.png", Photo(photo.rgb, bits=8, grey=True))
    assert read_rgb8(tmp_path / "a.png")[0, :, 0].tolist() == [0, 127, 128, 129, 255]
    assert read_photo(tmp_path / "a.webp").bits == 8


# --- what is written ---


def exif_of(photo: Photo) -> Image.Exif:
    exif = Image.Exif()
    exif.load(photo.metadata.exif)
    return exif


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "tif", "tiff"])
def test_exif_is_kept_and_upright(tmp_path, suffix):
    Image.fromarray(smooth(16, 24)).save(tmp_path / "a.jpg", exif=camera_exif(6), quality=95)
    photo = read_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / f"out.{suffix}", photo)
    back = read_photo(tmp_path / f"out.{suffix}")
    assert back.rgb.shape == (24, 16, 3)  # turned once, not twice
    assert np.abs(back.rgb - photo.rgb).mean() < 0.02
    exif = exif_of(back)
    assert exif[ExifTags.Base.Make] == "Maker" and exif.get(ExifTags.Base.Orientation, 1) == 1
    assert exif[ExifTags.Base.Copyright].encode("latin-1").decode() == "© Ö. Person"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.DateTimeOriginal] == "2024:04:01 10:00:00"
    assert details[ExifTags.Base.ExifImageWidth] == 16
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_layout_tags_of_a_tiff_do_not_travel(tmp_path):
    Image.fromarray(smooth(16, 24)).save(tmp_path / "a.tif", exif=camera_exif(1))
    photo = read_photo(tmp_path / "a.tif")
    exif = exif_of(photo)
    assert set(exif) == {ExifTags.Base.Make, ExifTags.Base.Copyright, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
    write_photo(tmp_path / "b.tif", photo)
    assert np.array_equal(read_rgb8(tmp_path / "b.tif"), smooth(16, 24))


def test_damaged_exif_costs_only_the_exif(tmp_path):
    Image.fromarray(smooth(16, 24)).save(tmp_path / "a.png", exif=camera_exif(6)[:9])
    photo = read_photo(tmp_path / "a.png")
    assert photo.metadata.exif is None and photo.note.startswith("EXIF left out, it is damaged")
    assert np.array_equal(np.rint(photo.rgb * 255), smooth(16, 24))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_kept(tmp_path, suffix):
    pixels = np.dstack([smooth(8, 9), noise(8, 9)])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_photo(tmp_path / f"b.{suffix}", read_photo(tmp_path / "a.png"))
    back = read_photo(tmp_path / f"b.{suffix}")
    assert np.array_equal(np.rint(back.alpha * 255), pixels[..., 3])
    if suffix != "webp":
        assert np.array_equal(np.rint(back.rgb * 255), pixels[..., :3])


def test_jpeg_keeps_colour_resolution_and_makes_transparent_parts_white(tmp_path):
    write_photo(tmp_path / "t.jpg", Photo(smooth(16, 16) / np.float32(255), alpha=np.zeros((16, 16), np.float32)))
    assert read_rgb8(tmp_path / "t.jpg").min() == 255
    write_photo(tmp_path / "a.jpg", Photo(smooth(16, 16) / np.float32(255), alpha=np.ones((16, 16), np.float32)))
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "RGB" and image.layer[0][1:3] == image.layer[1][1:3] == (1, 1)  # 4:4:4
    assert np.abs(read_rgb8(tmp_path / "a.jpg").astype(int) - smooth(16, 16)).max() < 12


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_grey_stays_grey(tmp_path, suffix):
    Image.fromarray(smooth(8, 8)[..., 0]).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.grey
    write_photo(tmp_path / f"b.{suffix}", photo)
    with Image.open(tmp_path / f"b.{suffix}") as image:
        assert image.mode == "L"


def test_folders_are_created_and_files_have_ordinary_permissions(tmp_path):
    target = tmp_path / "new" / "deeper" / "a.png"
    write_photo(target, Photo(np.zeros((2, 2, 3), np.float32)))
    (tmp_path / "plain").touch()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    write_photo(tmp_path / "a.png", Photo(np.zeros((2, 2, 3), np.float32)))
    before = (tmp_path / "a.png").read_bytes()
    with room_for(10), pytest.raises(DiskFull, match=r"a\.png: cannot be written: "):
        write_photo(tmp_path / "a.png", Photo(np.ones((2, 2, 3), np.float32)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == before


def test_refused_targets(tmp_path):
    photo = Photo(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ImageError, match=r"expected a suffix"):
        write_photo(tmp_path / "a.gif", photo)
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        write_photo(tmp_path / "file" / "a.png", photo)
    with pytest.raises(ImageError, match=r"cannot be written: .*16383"):
        write_photo(tmp_path / "wide.webp", Photo(np.zeros((1, 16384, 3), np.float32)))


# --- what is refused ---


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_truncated(tmp_path, suffix, keep):
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: int(len(data) * keep)])
    assert "expected" in one_line(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_truncated_16_bits(tmp_path, suffix):
    write_photo(tmp_path / f"a.{suffix}", Photo(noise(64, 64, 3) / np.float32(255), bits=16))
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: len(data) // 2])
    assert "damaged" in one_line(tmp_path / f"a.{suffix}") or suffix == "tif"


def test_zero_bytes(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert "found an empty file" in one_line(tmp_path / "a.jpg")


def test_text_named_jpg(tmp_path):
    (tmp_path / "a.jpg").write_text("this is not a photo")
    assert "expected an image" in one_line(tmp_path / "a.jpg")


def test_missing_file_and_folder(tmp_path):
    assert "No such file" in one_line(tmp_path / "nothing.jpg")
    assert "found a folder" in one_line(tmp_path)


def test_unreadable_permission(tmp_path):
    (tmp_path / "a.jpg").touch(mode=0)
    with as_nobody():
        assert one_line(tmp_path / "a.jpg").endswith("Permission denied")


def test_decompression_bomb(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    assert "at most 300 megapixels" in one_line(tmp_path / "a.png")


def test_large_photo_below_the_limit_is_read_without_a_warning(tmp_path, recwarn):
    Image.fromarray(noise(10, 15, 3)).save(tmp_path / "a.png")
    assert read_rgb8(tmp_path / "a.png", limits=Limits(max_megapixels=15e-5)).shape == (10, 15, 3)
    with pytest.raises(ImageError, match=r"a\.png: expected at most 0\.00014 megapixels \(data\.max_megapixels\)"):
        read_rgb8(tmp_path / "a.png", limits=Limits(max_megapixels=14e-5))
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.float16, np.int16])
@pytest.mark.parametrize("channels", [1, 3])
def test_unsupported_tiff_numbers(tmp_path, dtype, channels):
    pixels = np.ones((4, 5, channels) if channels > 1 else (4, 5), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb" if channels > 1 else "minisblack")
    assert "expected" in one_line(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "data",
    [b"II*\0", b"II*\0" + b"\xff" * 60, b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"BM" + b"\0" * 60],
)
def test_fragments_never_crash(tmp_path, data):
    (tmp_path / "a.img").write_bytes(data)
    one_line(tmp_path / "a.img")


def test_flipped_bytes_never_crash(tmp_path):
    random = np.random.default_rng(0)
    for suffix in ("jpg", "png", "tif", "gif", "webp"):
        Image.fromarray(smooth(24, 24)).save(
            tmp_path / f"a.{suffix}", **({"exif": camera_exif(6)} if suffix != "gif" else {})
        )
        clean = (tmp_path / f"a.{suffix}").read_bytes()
        for _ in range(40):
            damaged = bytearray(clean)
            for position in random.integers(0, min(len(clean), 400), 3):
                damaged[position] = random.integers(0, 256)
            (tmp_path / f"b.{suffix}").write_bytes(damaged)
            try:
                photo = read_photo(tmp_path / f"b.{suffix}")
            except ImageError as error:
                assert "\n" not in str(error)
            else:
                assert photo.rgb.ndim == 3 and photo.rgb.min() >= 0 and photo.rgb.max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_compression_of_png_changes_the_size_alone(tmp_path, bits):
    pixels = smooth(40, 60).astype(np.uint16) * 257 if bits == 16 else smooth(40, 60)
    sizes = []
    for level in (0, PNG_LEVEL, 9):
        write_photo(tmp_path / f"{level}.png", Photo(pixels, bits=bits), png_level=level)
        assert np.array_equal(read_photo(tmp_path / f"{level}.png", integers=True).rgb, pixels)
        sizes.append((tmp_path / f"{level}.png").stat().st_size)
    assert sizes[0] > sizes[1] >= sizes[2]
