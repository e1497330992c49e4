"""The enhancer on arrays."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from data.images import read_photo
from models.checkpoints import save_tensors
from serving.enhancer import Enhancer
from serving.finish import Finish, planes
from tests.serving.helpers import map_at_scale, noise


def test_strength_zero_is_the_photo_and_strength_is_monotone(enhancer):
    rgb = noise(12, 9)
    assert np.array_equal(enhancer.enhance(rgb, 0.0)[0], rgb)
    results = [enhancer.enhance(rgb, strength)[0] for strength in (0.0, 0.3, 0.7, 1.0)]
    assert all((after >= before).all() for before, after in pairwise(results))
    assert results[-1].mean() > 1.3 * rgb.mean()


def test_result_is_photo_over_map(enhancer):
    rgb = noise(12, 9)
    result, illumination = enhancer.enhance(rgb)
    assert (
        result.shape == (12, 9, 3)
        and illumination.shape == (12, 9)
        and result.dtype == illumination.dtype == np.float32
    )
    assert np.allclose(result, np.clip(rgb / (illumination[..., None] + 1e-9), 0, 1), atol=1e-6)
    assert np.array_equal(illumination, enhancer.illumination(rgb))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5)])
def test_any_size(enhancer, size):
    rgb = noise(*size)
    result, illumination = enhancer.enhance(rgb)
    with torch.no_grad():
        expected = enhancer.unet(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0, 0].clamp(min=0.05).numpy()
    assert np.allclose(illumination, expected, atol=1e-5)
    assert np.allclose(result, np.clip(rgb / expected[..., None], 0, 1), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_give_the_rounded_result_of_floats(enhancer, dtype):
    top = np.iinfo(dtype).max
    photo = (noise(12, 9) * top).astype(dtype)
    result, illumination = enhancer.enhance(photo, 0.7)
    expected, same_map = enhancer.enhance(photo.astype(np.float32) / np.float32(top), 0.7)
    assert result.dtype == dtype and np.array_equal(result, np.rint(expected * np.float32(top)))
    assert np.array_equal(illumination, same_map) and enhancer.enhance(photo, keep_map=False)[1] is None


def test_views_and_read_only_arrays_are_photos_too(enhancer):
    photo = (noise(12, 9) * 255).astype(np.uint8)
    assert np.array_equal(enhancer.enhance(np.rot90(np.rot90(photo, -1).copy()))[0], enhancer.enhance(photo)[0])
    grey = np.broadcast_to(photo[..., :1], photo.shape)
    assert np.array_equal(enhancer.enhance(grey)[0], enhancer.enhance(grey.copy())[0])


def tiles(enhancer: Enhancer, rgb: np.ndarray) -> int:
    """In how many parts a photo goes through the network: progress is told after each."""
    told = []
    enhancer.illumination(rgb, told.append)
    return len(told)


def test_large_photos_go_in_tiles_and_results_do_not_depend_on_it(enhancer, tmp_path, monkeypatch):
    save_tensors(enhancer.unet.state_dict(), tmp_path / "unet.safetensors")
    in_tiles = Enhancer(tmp_path / "unet.safetensors", device="cpu", precision="fp32", backend="torch", tile_size=32)
    rgb = noise(50, 70)
    assert tiles(in_tiles, rgb) == 6 and tiles(enhancer, rgb) == 1
    monkeypatch.setattr("serving.enhancer.WHOLE_FRAME", 1000)
    monkeypatch.setattr("serving.enhancer.TILE", 64)
    assert tiles(enhancer, rgb) == 2
    assert np.abs(enhancer.illumination(rgb) - in_tiles.illumination(rgb)).max() < 1e-5


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
    ],
)
def test_wrong_arrays_are_refused(enhancer, rgb):
    for strength in (1.0, "auto"):
        with pytest.raises(ValueError, match=r"expected \(H, W, 3\) float32"):
            enhancer.enhance(rgb, strength)


def test_a_value_that_is_no_number_is_refused(enhancer):
    rgb = noise(8, 8)
    for value in (np.nan, np.inf):
        rgb[3, 4, 1] = value
        with pytest.raises(ValueError, match="found NaN or infinity"):
            enhancer(rgb)


@pytest.mark.parametrize(
    "choice",
    [{"device": "gpu"}, {"backend": "onnx"}, {"precision": "fp16"}, {"map_scale": 3}, {"padding_mode": "edge"}],
)
def test_unknown_choices_are_refused(choice):
    name, value = next(iter(choice.items()))
    with pytest.raises(ValueError, match=f"{name}: expected .*, found {value}"):
        Enhancer(**choice)
    with pytest.raises(ValueError, match="highlights: expected clip, hue, shoulder, found shoulders"):
        Finish(highlights="shoulders")


def test_published_weights_give_the_authors_result(shared):
    name = "c5b8b4070688114c602b27933c6699b6"
    published = Enhancer(
        shared / "published_weights" / "clip_lit" / "enhancement_model.pth", device="cpu", precision="fp32"
    )
    expected = np.load(shared / "golden" / "unet" / f"{name}.reflect.npz")
    result, illumination = published.enhance(read_photo(shared / "data" / "photos" / f"{name}.jpg").rgb)
    step = int(expected["stride"])
    assert np.abs(illumination[::step, ::step] - expected["illumination"]).max() < 1e-4
    difference = np.rint(result * 255)[::step, ::step].transpose(2, 0, 1) - expected["enhanced_u8"].astype(float)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_maps_at_reduced_size(enhancer, tmp_path, monkeypatch, dtype):
    """Scale 1 is what there is without it; others are guided_map's, whatever the strips and the tiles."""
    save_tensors(enhancer.unet.state_dict(), tmp_path / "unet.safetensors")
    rgb = noise(50, 70) if dtype == np.float32 else (noise(50, 70) * 255).astype(dtype)
    options = {"device": "cpu", "precision": "fp32", "backend": "torch"}
    expected = enhancer.enhance(rgb)
    results = Enhancer(tmp_path / "unet.safetensors", **options, map_scale=1).enhance(rgb)
    assert all(np.array_equal(*pair) for pair in zip(results, expected, strict=True))
    preview = Enhancer(tmp_path / "unet.safetensors", **options, map_scale=4, tile_size=32)
    images = torch.from_numpy(planes(rgb))
    with torch.inference_mode():
        illumination = map_at_scale(enhancer.unet, images, 4)
    monkeypatch.setattr("data.images.photo.STRIP", 700)
    assert tiles(preview, rgb) > 1
    result, found = preview.enhance(rgb)
    assert np.abs(found - illumination[0, 0].numpy()).max() < 1e-5
    assert np.array_equal(preview.illumination(rgb), found) and result.dtype == dtype
    assert np.array_equal(preview(rgb), result) and np.array_equal(preview([rgb, rgb])[1], result)
