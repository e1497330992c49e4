"""The enhancer on arrays, and the plan of outputs."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from data.images import read_photo
from models.checkpoints import save_unet
from serving.enhancer import Enhancer, Job, plan_outputs
from tests.serving.helpers import noise, save_photo

GOLDEN = Path(__file__).resolve().parents[3] / "shared"


# --- arrays ---


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
    result, illumination = enhancer.enhance(noise(*size))
    assert result.shape == (*size, 3) and np.isfinite(illumination).all()


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


def test_large_photos_go_in_tiles_and_results_do_not_depend_on_it(enhancer, tmp_path, monkeypatch):
    save_unet(enhancer.unet, tmp_path / "unet.safetensors")
    in_tiles = Enhancer(tmp_path / "unet.safetensors", device="cpu", precision="fp32", backend="torch", tile_size=32)
    rgb = noise(50, 70)
    assert len(list(in_tiles._tiles(rgb))) == 6 and len(list(enhancer._tiles(rgb))) == 1
    monkeypatch.setattr("serving.enhancer.WHOLE_FRAME", 1000)
    monkeypatch.setattr("serving.enhancer.TILE", 64)
    assert len(list(enhancer._tiles(rgb))) == 2
    assert np.abs(enhancer.illumination(rgb) - in_tiles.illumination(rgb)).max() < 1e-5


@pytest.mark.parametrize("rgb", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_wrong_arrays_are_refused(enhancer, rgb):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) float32"):
        enhancer.enhance(rgb)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the authors' weights and photos (../shared) are not on this machine")
def test_published_weights_give_the_authors_result():
    name = "c5b8b4070688114c602b27933c6699b6"
    published = Enhancer(
        GOLDEN / "published_weights" / "clip_lit" / "enhancement_model.pth", device="cpu", precision="fp32"
    )
    expected = np.load(GOLDEN / "golden" / "unet" / f"{name}.reflect.npz")
    result, illumination = published.enhance(read_photo(GOLDEN / "data" / "photos" / f"{name}.jpg").rgb)
    step = int(expected["stride"])
    assert np.abs(illumination[::step, ::step] - expected["illumination"]).max() < 1e-4
    difference = np.rint(result * 255)[::step, ::step].transpose(2, 0, 1) - expected["enhanced_u8"].astype(float)
    assert np.abs(difference).max() <= 1


# --- the plan ---


def plan(inputs: list, output: Path | None, fmt: str = "keep") -> dict[str, str]:
    """{source name: result, relative to its output folder}."""
    return {job.source.name: str(job.relative) for job in plan_outputs(inputs, output, fmt)}


def test_folder_keeps_its_subfolders(tmp_path):
    sources = [
        save_photo(tmp_path / "in" / "a.JPG"),
        save_photo(tmp_path / "in" / "sub" / "deep" / "b.png"),
        save_photo(tmp_path / "in" / "c.bmp"),
    ]
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    assert sorted(jobs, key=str) == sorted(
        [
            Job(sources[0], tmp_path / "out" / "a.JPG", Path("a.JPG")),
            Job(sources[1], tmp_path / "out" / "sub" / "deep" / "b.png", Path("sub/deep/b.png")),
            Job(sources[2], tmp_path / "out" / "c.png", Path("c.png")),
        ],
        key=str,
    )
    assert {job.output for job in jobs} == {tmp_path / "out"}
    assert {job.beside("illumination") for job in jobs} == {
        tmp_path / "out_illumination" / job.relative for job in jobs
    }


def test_default_output(tmp_path, monkeypatch):
    a, b = save_photo(tmp_path / "in" / "x" / "a.jpg"), save_photo(tmp_path / "in" / "y" / "b.jpg")
    assert plan_outputs([tmp_path / "in"], None)[0].target == tmp_path / "in_enhanced" / "x" / "a.jpg"
    assert plan_outputs([a], None)[0].target == tmp_path / "in" / "x_enhanced" / "a.jpg"
    assert [job.target for job in plan_outputs([a, b], None)] == [
        tmp_path / "in_enhanced/x/a.jpg",
        tmp_path / "in_enhanced/y/b.jpg",
    ]
    monkeypatch.chdir(tmp_path / "in")
    assert plan_outputs(["."], None)[0].target == tmp_path / "in_enhanced" / "x" / "a.jpg"
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # a mounted card, a home folder
    assert plan_outputs([tmp_path / "in"], None)[0].target == tmp_path / "in" / "enhanced" / "x" / "a.jpg"


def test_duplicates_count_once(tmp_path):
    a = save_photo(tmp_path / "in" / "a.jpg")
    save_photo(tmp_path / "in" / "sub" / "b.jpg")
    assert plan([a, a, tmp_path / "in", tmp_path / "in" / "sub"], tmp_path / "out") == {
        "a.jpg": "a.jpg",
        "b.jpg": "sub/b.jpg",
    }


def test_earlier_results_inside_the_input_are_not_photos(tmp_path):
    a = save_photo(tmp_path / "a.jpg")
    for folder in ("out", "out_side_by_side", "out_illumination"):
        save_photo(tmp_path / folder / "a.jpg")
    assert [job.source for job in plan_outputs([tmp_path], tmp_path / "out")] == [a]
    a.unlink()
    with pytest.raises(UserError, match="only earlier results"):
        plan_outputs([tmp_path], tmp_path / "out")


def test_format(tmp_path):
    for name in ("a.jpg", "b.tiff", "c.gif"):
        save_photo(tmp_path / "in" / name)
    assert plan([tmp_path / "in"], None, "webp") == {"a.jpg": "a.webp", "b.tiff": "b.webp", "c.gif": "c.webp"}
    assert plan([tmp_path / "in"], None, "tiff")["a.jpg"] == "a.tif"
    assert plan([tmp_path / "in"], None) == {"a.jpg": "a.jpg", "b.tiff": "b.tiff", "c.gif": "c.png"}


def test_colliding_names_get_their_suffix(tmp_path):
    for name in ("a.jpg", "a.png", "a_png.png", "b.jpg", "B.png"):
        save_photo(tmp_path / "in" / name)
    names = plan([tmp_path / "in"], None, "png")
    assert names == {
        "a.jpg": "a_jpg.png",
        "a.png": "a_png_2.png",
        "a_png.png": "a_png.png",
        "b.jpg": "b_jpg.png",
        "B.png": "B_png.png",
    }
    assert names == plan([tmp_path / "in"], None, "png")
    assert plan([tmp_path / "in"], None, "keep")["a.jpg"] == "a.jpg"  # nothing collides where suffixes are kept


def test_names_differ_beyond_unicode_form(tmp_path):
    save_photo(tmp_path / "in" / "u\u0308.jpg")
    save_photo(tmp_path / "in" / "ü.jpg")
    if len(list((tmp_path / "in").iterdir())) == 2:  # not so on file systems that normalise
        assert sorted(plan([tmp_path / "in"], None).values()) == sorted(["u\u0308_jpg.jpg", "ü_jpg_2.jpg"])


@pytest.mark.parametrize("fmt", ["keep", "png"])
def test_output_among_the_photos_is_refused(tmp_path, fmt):
    a = save_photo(tmp_path / "in" / "a.jpg")
    save_photo(tmp_path / "in" / "sub" / "b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for inputs, output in (
        ([tmp_path / "in"], tmp_path / "in"),
        ([a], tmp_path / "in"),
        ([tmp_path / "in"], tmp_path / "link"),
    ):
        with pytest.raises(UserError, match=r"data\.output: expected another folder"):
            plan_outputs(inputs, output, fmt)


def test_a_result_on_top_of_a_photo_is_refused(tmp_path):
    save_photo(tmp_path / "in" / "a.jpg")
    save_photo(tmp_path / "in" / "in" / "a.jpg")
    with pytest.raises(UserError, match="no photo is overwritten"):
        plan_outputs([tmp_path / "in", tmp_path / "in" / "in" / "a.jpg"], tmp_path)  # in/in/a.jpg -> in/a.jpg


def test_folder_of_maps_on_top_of_the_input_is_refused(tmp_path):
    save_photo(tmp_path / "x_illumination" / "a.jpg")
    with pytest.raises(UserError, match="x_illumination"):
        plan_outputs([tmp_path / "x_illumination"], tmp_path / "x")


def test_missing_input(tmp_path):
    with pytest.raises(UserError, match="found nothing there"):
        plan_outputs([tmp_path / "nothing"], None)
    with pytest.raises(UserError, match="empty list"):
        plan_outputs([], None)
