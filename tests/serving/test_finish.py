"""What becomes of highlights, noise and steps: properties of the result, whatever the tiles."""

import colorsys

import numpy as np
import pytest

from models.checkpoints import save_tensors
from serving import Enhancer, Finish
from serving.denoise import LEAST_GAIN, Denoiser
from serving.finish import PLAIN, planes, planes_on
from tests.serving.helpers import noise


def divided(rgb: np.ndarray, illumination: float | np.ndarray, finish: Finish, strength: float = 1.0) -> np.ndarray:
    """(h,w,3) with a map -> result (h,w,3)."""
    gain_map = np.broadcast_to(np.float32(illumination), rgb.shape[:2])[None, None]
    return finish.divided(planes(rgb), gain_map, strength, rgb.dtype)


def hues(rgb: np.ndarray) -> np.ndarray:
    return np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in rgb.reshape(-1, 3)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_photos_reach_a_gpu_with_the_values_that_arrays_have(dtype):
    photo = noise(12, 9) if dtype == np.float32 else (noise(12, 9) * np.iinfo(dtype).max).astype(dtype)
    assert np.array_equal(planes_on("cpu", photo[2:, 3:]).numpy(), planes(photo[2:, 3:]))


@pytest.mark.parametrize("highlights", ["hue", "shoulder"])
def test_hues_stay_where_a_channel_would_pass_white(highlights):
    photo = noise(12, 9) * 0.8 + 0.1
    result = divided(photo, 0.3, Finish(highlights=highlights))
    assert np.abs(hues(result) - hues(photo)).max() < 1e-3 and result.max() <= 1
    assert np.abs(hues(divided(photo, 0.3, PLAIN)) - hues(photo)).max() > 0.05


def test_values_below_white_are_those_of_the_plain_division():
    photo = noise(12, 9) * 0.4
    for highlights in ("hue", "shoulder"):
        assert np.allclose(divided(photo, 0.5, Finish(highlights=highlights)), np.minimum(photo / 0.5, 1), atol=1e-6)


def test_a_shoulder_is_smooth_monotone_and_keeps_white_and_unlit_photos():
    ramp = np.repeat(np.linspace(0, 1, 401, dtype=np.float32)[None, :, None], 3, axis=2)
    shoulder = Finish(highlights="shoulder")
    result = divided(ramp, 0.4, shoulder)[0, :, 0]
    steps = np.diff(result)
    assert (steps > 0).all() and result[-1] == pytest.approx(1)  # nothing but white becomes white
    assert np.abs(np.diff(steps)).max() < 0.1 * steps.max()  # no kink at 0.8
    assert np.array_equal(divided(ramp, 1.0, shoulder), divided(ramp, 1.0, PLAIN))
    darkened = divided(ramp, 1.3, shoulder)
    assert np.array_equal(darkened, divided(ramp, 1.3, PLAIN))


def test_dither_breaks_steps_leaves_the_mean_and_is_the_same_each_time():
    ramp = np.repeat(np.linspace(3, 12, 512)[None].repeat(256, axis=0)[..., None], 3, axis=2)  # in steps of 8 bits
    photo, lit = np.rint(ramp).astype(np.uint8), 6.0
    plain, dithered = (divided(photo, 1 / lit, Finish(dither=dither)).astype(float) for dither in (False, True))
    columns = dithered.mean(axis=(0, 2))
    assert np.abs(columns - plain.mean(axis=(0, 2))).max() < 0.6  # the mean of 128 values of deviation 1.7: 0.15
    assert dithered.mean() == pytest.approx(plain.mean(), abs=0.01)
    assert len(np.unique(plain)) == 10 < len(np.unique(dithered))
    assert (dithered[..., 0] == dithered[..., 1]).all()  # grey stays grey
    assert np.array_equal(dithered, divided(photo, 1 / lit, Finish(dither=True)))
    for untouched in (
        divided(photo, 1 / 3.9, Finish(dither=True)),
        divided(np.zeros_like(photo), 0.1, Finish(dither=True)),
    ):
        assert untouched.mean() in (0, divided(photo, 1 / 3.9, PLAIN).mean())


def noisy_photo(deviation: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth photo whose left is dark and right bright, its noisy twin, and a map that lifts the left: (96,200,3)."""
    across = np.linspace(0, 6, 200)
    clean = 30 + 8 * np.sin(across) + 120 * (across > 3)
    clean = np.stack([np.tile(clean * tint, (96, 1)) for tint in (1.0, 0.9, 0.8)], axis=-1)
    noisy = clean + np.random.default_rng(0).normal(0, deviation, clean.shape)
    illumination = np.tile(np.where(across > 3, 0.95, 0.25), (96, 1)).astype(np.float32)
    return clean, np.rint(np.clip(noisy, 0, 255)).astype(np.uint8), illumination


def test_shadows_lose_their_noise_and_bright_areas_no_bit(enhancer):
    clean, noisy, illumination = noisy_photo()
    result = enhancer.relight(noisy, illumination, 1.0, Finish(denoise="auto"))
    plain = enhancer.relight(noisy, illumination, 1.0)
    bright = 1 / illumination <= LEAST_GAIN
    assert np.array_equal(result[bright], plain[bright])
    wanted = np.clip(clean / illumination[..., None], 0, 255)
    error, before = (np.abs(image - wanted)[~bright].mean() for image in (result, plain))
    assert error < 0.5 * before
    assert np.array_equal(
        enhancer.relight(noisy, illumination, 0.0, Finish(denoise="auto")), noisy
    )  # nothing is lifted


def test_the_noise_is_that_of_the_shadows():
    _, noisy, illumination = noisy_photo(deviation=3.0)
    found = Denoiser(noisy, illumination, 1.0)
    expected = 3 * np.linalg.norm([0.299, 0.587, 0.114])  # of three independent channels
    assert found.luma_noise * 255 == pytest.approx(expected, rel=0.2)
    clean = np.full((40, 40, 3), 20, np.uint8)
    assert Denoiser(clean, np.full((40, 40), 0.2, np.float32), 1.0).luma_noise == 0


def test_noise_is_removed_as_in_one_piece_wherever_the_rows_are_cut():
    _, noisy, illumination = noisy_photo()
    whole = Denoiser(noisy, illumination, 1.0)
    parts = [whole.strip(slice(first, first + 30)) for first in range(0, 96, 30)]
    assert np.abs(np.concatenate(parts) - whole.strip(slice(0, None))).max() < 1e-4


def test_only_photos_of_8_bits_lose_noise_unless_asked(enhancer):
    _, noisy, illumination = noisy_photo()
    deep = noisy.astype(np.uint16) * 257
    plain = enhancer.relight(deep, illumination, 1.0)
    assert np.array_equal(enhancer.relight(deep, illumination, 1.0, Finish(denoise="auto")), plain)
    assert not np.array_equal(enhancer.relight(deep, illumination, 1.0, Finish(denoise="always")), plain)


@pytest.mark.parametrize("finish", [Finish(denoise="auto"), Finish(highlights="shoulder", dither=True)])
def test_results_do_not_depend_on_tiles_or_lists(enhancer, tmp_path, finish):
    save_tensors(enhancer.unet.state_dict(), tmp_path / "unet.safetensors")
    in_tiles = Enhancer(tmp_path / "unet.safetensors", device="cpu", precision="fp32", backend="torch", tile_size=32)
    photo = noisy_photo()[1][:50, 60:130]
    result = enhancer.enhance(photo, finish=finish)[0]
    difference = np.abs(in_tiles.enhance(photo, finish=finish)[0].astype(int) - result)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.001  # maps agree to 1e-5: a value may round otherwise
    assert np.array_equal(enhancer([photo, photo], finish=finish)[1], result)


def test_arrays_that_may_not_be_written_reach_a_gpu_without_a_warning(recwarn):
    photo = np.zeros((4, 5, 3), np.uint8)
    photo.flags.writeable = False
    assert planes_on("cpu", photo).shape == (1, 3, 4, 5) and not recwarn.list
