"""What is noise of shadows and what is not: texture stays, blotches of colour go, a clean photo keeps every bit."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.filters import gaussian

from data.samples import sample_picture
from serving.denoise import CELL, Denoiser, luma_chroma

LIT = 0.3  # the map: all is shadow


def denoiser(photo: np.ndarray) -> Denoiser:
    return Denoiser(photo, np.full(photo.shape[:2], LIT, np.float32), 1.0)


def denoised(photo: np.ndarray) -> np.ndarray:
    """In steps of 8 bits."""
    return denoiser(photo).strip(slice(0, None)) * 255


def eighth_of_light(name: str, rows: int = 200) -> np.ndarray:
    """A sample photo with an eighth of its light, float32 in steps of 8 bits."""
    return sample_picture(name)[:rows, :256].astype(np.float32) * np.float32(0.125 ** (1 / 2.2))


def rounded(photo: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(photo, 0, 255)).astype(np.uint8)


def fine(plane: np.ndarray) -> np.ndarray:
    return plane - gaussian(plane, 1)


def chroma_error(photo: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(((luma_chroma(photo)[1] - luma_chroma(truth)[1]) ** 2).mean()))


def blotchy() -> tuple[np.ndarray, np.ndarray]:
    """Smooth shadows, and the same with colours that vary over some 8 pixels and luma that does not: (160,200,3)."""
    clean = 40 + 12 * np.sin(np.linspace(0, 5, 200))[None, :, None] * np.array([1.0, 0.9, 0.8])
    clean = np.broadcast_to(clean, (160, 200, 3)).astype(np.float32)
    noise = gaussian(np.random.default_rng(0).normal(size=(160, 200, 2)), 3, channel_axis=-1)
    red, blue = np.moveaxis(noise * 3 / noise.std(), -1, 0)
    return clean, rounded(clean + np.stack([red, (-0.299 * red - 0.114 * blue) / 0.587, blue], axis=-1))


@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (0.7, 1.0, 0.5)])
def test_grass_is_no_noise(tint):
    grass = rounded(sample_picture("grass.png")[:256, :256] * np.array(tint) * 0.3)
    before, after = (fine(luma_chroma(photo.astype(np.float32))[0]).std() for photo in (grass, denoised(grass)))
    assert after > 0.95 * before


def test_a_clean_photo_keeps_every_bit():
    photo = rounded(eighth_of_light("chelsea.png"))
    assert np.array_equal(rounded(denoised(photo)), photo)
    assert denoiser(photo).luma_noise == 0


def test_a_smooth_gradient_has_no_blotches():
    """Its steps of one lie anywhere, those of JPEG's chroma beside the edges of blocks."""
    ramp = np.linspace(8, 40, 320)[None, :, None] * np.array([1.0, 0.8, 0.6])
    dusk = rounded(np.broadcast_to(ramp, (160, 320, 3)))
    assert denoiser(dusk).blotches == 0 and np.array_equal(rounded(denoised(dusk)), dusk)


def test_blotches_of_colour_go():
    clean, noisy = blotchy()
    found = denoiser(noisy)
    assert found.blotches > 0 and found.luma_noise < 0.5 / 255
    assert chroma_error(denoised(noisy), clean) < 0.6 * chroma_error(noisy.astype(np.float32), clean)


def test_colours_that_jpeg_rounded_come_nearer_to_the_truth():
    clean = eighth_of_light("chelsea.png", 256)
    file = io.BytesIO()
    Image.fromarray(rounded(clean)).save(file, "JPEG", quality=75, subsampling=2)
    photo = np.asarray(Image.open(file))
    result = denoised(photo)
    assert chroma_error(result, clean) < 0.95 * chroma_error(photo.astype(np.float32), clean)
    luma, before = (fine(luma_chroma(image.astype(np.float32))[0]).std() for image in (result, photo))
    assert luma == pytest.approx(before, rel=0.02)


def test_cells_are_the_same_wherever_the_rows_are_cut():
    photo = blotchy()[1][:151, :197]  # no multiple of a cell
    photo = rounded(photo + np.random.default_rng(1).normal(0, 3, photo.shape))
    whole = denoiser(photo)
    assert whole.blotches > 0 and whole.chroma_noise > 0
    parts = [whole.strip(slice(first, first + 6 * CELL + 1)) for first in range(0, 151, 6 * CELL + 1)]
    assert np.abs(np.concatenate(parts) - whole.strip(slice(0, None))).max() < 1e-4
