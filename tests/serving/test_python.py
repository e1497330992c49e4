"""`from serving import Enhancer`: what Python users give, and get."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image

import serving
from common.errors import UserError
from common.paths import REPO_ROOT
from data.images import Photo, write_photo
from data.images.colour import coding_profile
from data.images.photo import Coding
from serving import Enhancer
from serving.torch_network import TorchNetwork
from tests.serving.helpers import noise


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_an_array_gives_an_array_of_its_type(enhancer, dtype):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    photo = (noise(9, 12) * top).astype(dtype)
    result = enhancer(photo)
    assert result.dtype == dtype and result.shape == photo.shape
    expected = np.clip(photo / top / enhancer.illumination(photo)[..., None], 0, 1)
    assert np.abs(result / top - expected).max() < (2e-3 if top == 1 else 1 / top)


@pytest.mark.parametrize(("mode", "result"), [("RGB", "RGB"), ("RGBA", "RGBA"), ("L", "L"), ("LA", "LA"), ("P", "RGB")])
def test_an_image_gives_an_image(enhancer, mode, result):
    image = Image.fromarray((noise(9, 12) * 100).astype(np.uint8)).convert(mode)
    if image.mode.endswith("A"):
        image.putalpha(77)
    image.info["dpi"] = (300, 300)
    found = enhancer(image)
    assert (found.mode, found.size, found.info["dpi"]) == (result, image.size, (300, 300))
    assert np.asarray(found.convert("L")).mean() > 1.3 * np.asarray(image.convert("L")).mean()
    if result.endswith("A"):
        assert found.getchannel("A").getextrema() == (77, 77)


def test_deep_grey_images_stay_deep(enhancer):
    image = Image.fromarray((noise(9, 12)[..., 0] * 20000).astype(np.uint16))
    found = enhancer(image)
    assert found.mode == image.mode == "I;16" and len(np.unique(found)) > 90


def test_a_path_gives_the_image_that_the_array_would(enhancer, tmp_path):
    pixels = (noise(9, 12) * 100).astype(np.uint8)
    write_photo(tmp_path / "a.png", Photo(pixels))
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(np.asarray(enhancer(path)), enhancer(pixels))


def test_a_list_gives_a_list_in_its_order(enhancer, tmp_path):
    small, large = (noise(9, 12) * 100).astype(np.uint8), (noise(20, 30) * 100).astype(np.uint8)
    write_photo(tmp_path / "a.png", Photo(small))
    results = enhancer([small, Image.fromarray(large), tmp_path / "a.png", large, small[::-1]], strength=0.5)
    expected = [enhancer(rgb, 0.5) for rgb in (small, large, small, large, small[::-1])]
    assert [type(result) for result in results] == [np.ndarray, Image.Image, Image.Image, np.ndarray, np.ndarray]
    assert all(np.array_equal(np.asarray(a), b) for a, b in zip(results, expected, strict=True))
    assert enhancer([]) == []


def test_photos_of_one_size_go_through_the_network_together_as_they_would_alone(enhancer, monkeypatch):
    photos = [np.roll(noise(20, 30), number, axis=0) for number in range(3)]
    alone = [enhancer(rgb, 0.7) for rgb in photos]
    sizes, whole = [], TorchNetwork.whole
    monkeypatch.setattr(TorchNetwork, "whole", lambda self, images: sizes.append(len(images)) or whole(self, images))
    monkeypatch.setattr(enhancer, "choice", replace(enhancer.choice, device="cpu:0"))  # a device other than "cpu"
    for result, expected in zip(enhancer(photos, 0.7), alone, strict=True):
        assert np.abs(result - expected).max() < 1e-5
    assert sizes == [3]


def test_another_strength_needs_no_network(enhancer):
    for dtype in (np.uint8, np.float32):
        rgb = (noise(40, 30) * (1 if dtype == np.float32 else 200)).astype(dtype)
        result, illumination = enhancer.enhance(rgb, 0.3)
        assert np.array_equal(enhancer.relight(rgb, illumination, 0.3), result)
        assert np.array_equal(enhancer.relight(rgb, illumination, 0), rgb)


@pytest.mark.parametrize("size", [(64, 512), (1, 512)])
def test_a_gradient_of_16_bits_has_no_step_back(size):
    """The shipped weights at the machine's own precision, away from the frame's border."""
    ramp = np.linspace(0, 65535, size[1]).round().astype(np.uint16)
    result = Enhancer(device="cpu")(np.broadcast_to(ramp[None, :, None], (*size, 3)))
    assert np.diff(result[size[0] // 2, 20:-20].astype(int), axis=0).min() >= 0


def test_what_is_no_photo_is_told(enhancer, tmp_path):
    (tmp_path / "a.png").write_text("no photo")
    for photo, error, message in (
        (3, TypeError, "expected a PIL image, an array .* or a path, found int"),
        (np.zeros((4, 4), np.uint8), ValueError, r"expected \(H, W, 3\)"),
        (np.zeros((4, 4)), ValueError, r"found \(4, 4\) float64$"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"found \(4, 4, 4\) uint8; drop its alpha channel"),
        (noise(4, 4) * 255, ValueError, r"expected values in \[0, 1\], found 0\..* to 2"),
        (noise(4, 4) * 2 - 1, ValueError, r"expected values in \[0, 1\], found -0\."),
        (np.zeros((4, 4, 3), np.int32), ValueError, "int32"),
        (tmp_path / "a.png", serving.ImageError, "a.png: expected"),
    ):
        with pytest.raises(error, match=message):
            enhancer(photo)
    for options, message in (
        ({"strength": 2}, "strength: expected 0 to 1 or 'auto', found 2"),
        ({"strength": None}, "strength: expected a number or 'auto', found None"),
        ({"strength": "full"}, "strength: expected a number or 'auto', found 'full'"),
        ({"finish": None}, "finish: expected a Finish .*, found None"),
    ):
        with pytest.raises(ValueError, match=message):
            enhancer(noise(4, 4), **options)
    assert enhancer(noise(4, 4) * 1.2).max() <= 1  # as resampling leaves it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": -5}, "tile_size: expected a whole number of at least 1, found -5"),
        ({"tile_size": 0}, "found 0"),
        ({"tile_size": 1.5}, r"found 1\.5"),
        ({"tile_size": "a"}, "found 'a'"),
        ({"map_scale": 2.0}, r"map_scale: expected 1, 2, 4, found 2\.0"),
    ],
)
def test_choices_that_are_none_are_told_before_the_first_photo(options, message):
    with pytest.raises(ValueError, match=message):
        Enhancer(device="cpu", backend="torch", **options)


def test_an_opened_photo_is_upright_and_in_srgb_as_its_file_is(enhancer, tmp_path):
    """A portrait of a phone, with a profile in which red and green are exchanged."""
    exchanged = coding_profile(Coding((0.3127, 0.329, 0.3, 0.6, 0.64, 0.33, 0.15, 0.06), 2.2), grey=False)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "camera"
    file = tmp_path / "phone.jpg"
    Image.fromarray((noise(24, 16) * 120).astype(np.uint8)).save(file, exif=exif, icc_profile=exchanged, quality=95)
    opened, read = enhancer(Image.open(file)), enhancer(file)
    assert opened.size == read.size == (24, 16)
    assert np.array_equal(np.asarray(opened), np.asarray(read))
    for result in (opened, read):
        assert result.getexif()[ExifTags.Base.Make] == "camera"
        assert ExifTags.Base.Orientation not in result.getexif() and "icc_profile" not in result.info


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_an_opened_photo_is_turned_once(enhancer, tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = orientation, "camera"
    file = tmp_path / f"a{suffix}"
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray((noise(24, 16) * 120).astype(np.uint8)).save(file, exif=exif, **lossless)
    opened, read = enhancer(Image.open(file)), enhancer(file)
    assert opened.size == read.size and np.array_equal(np.asarray(opened), np.asarray(read))
    assert opened.getexif()[ExifTags.Base.Make] == read.getexif()[ExifTags.Base.Make] == "camera"


def test_an_opened_file_that_is_cut_off_is_told(enhancer, tmp_path):
    file = tmp_path / "a.jpg"
    Image.fromarray((noise(64, 64) * 255).astype(np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:1500])
    with pytest.raises(serving.ImageError, match="expected a complete image, found damaged data"):
        enhancer(Image.open(file))


def test_arrays_of_the_other_byte_order_keep_it(enhancer):
    photo = (noise(8, 8) * 65535).astype(">u2")
    result = enhancer(photo)
    assert result.dtype == photo.dtype and np.array_equal(result, enhancer(photo.astype("=u2")))


def test_what_the_package_offers_is_there():
    assert all(getattr(serving, name).__name__ == name for name in serving.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = serving.Nothing


def test_shipped_weights_by_their_name():
    free = Enhancer("free.safetensors", device="cpu", backend="torch", precision="fp32")
    there = Enhancer(REPO_ROOT / "pretrained_models/free.safetensors", device="cpu", backend="torch", precision="fp32")
    photo = noise(8, 8)
    assert np.array_equal(free(photo), there(photo))
    with pytest.raises(UserError, match=r"^checkpoint: .*nix\.safetensors \(shipped: .*free\.safetensors"):
        Enhancer("nix.safetensors", device="cpu")


def test_importing_costs_nothing_heavy():
    code = "import sys; from serving import Enhancer; print({'torch', 'pydantic', 'skimage'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stdout + done.stderr
