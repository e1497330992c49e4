"""The enhancer on arrays, the plan of outputs, and jobs on files."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import serving.enhancer
from data.images import Photo, read_photo, write_photo
from errors import UserError
from models.checkpoints import save_unet
from models.unet import IlluminationUNet
from serving.enhancer import Enhancer, Job, enhance_files, plan_outputs

GOLDEN = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="module")
def enhancer(tmp_path_factory) -> Enhancer:
    """Random weights whose map lies around 0.5: results are about twice as bright."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_unet(IlluminationUNet(map_bias=0.5), path)
    return Enhancer(path, device="cpu", precision="fp32")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3), np.float32)


def save(path: Path, value: int = 60, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 5), (value,) * 3 if mode == "RGB" else value).save(path)
    return path


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
    assert result.shape == (12, 9, 3) and illumination.shape == (12, 9) and result.dtype == illumination.dtype == np.float32
    assert np.allclose(result, np.clip(rgb / (illumination[..., None] + 1e-9), 0, 1), atol=1e-6)
    assert np.array_equal(illumination, enhancer.illumination(rgb))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5)])
def test_any_size(enhancer, size):
    result, illumination = enhancer.enhance(noise(*size))
    assert result.shape == (*size, 3) and np.isfinite(illumination).all()


def test_bf16_is_close_to_fp32(enhancer, tmp_path):
    save_unet(enhancer.unet, tmp_path / "unet.safetensors")
    half = Enhancer(tmp_path / "unet.safetensors", device="cpu", precision="bf16")
    rgb = noise(16, 16)
    assert np.abs(half.illumination(rgb) - enhancer.illumination(rgb)).max() < 0.01
    assert (half.precision, enhancer.precision) == ("bf16", "fp32")


def test_auto_precision_on_a_cpu_is_fp32(enhancer, tmp_path):
    save_unet(enhancer.unet, tmp_path / "unet.safetensors")
    assert Enhancer(tmp_path / "unet.safetensors", device="cpu").precision == "fp32"


@pytest.mark.parametrize("rgb", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.float32), np.zeros((4, 4, 3), np.uint8)])
def test_wrong_arrays_are_refused(enhancer, rgb):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) float32"):
        enhancer.enhance(rgb)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the authors' weights and photos (../shared) are not on this machine")
def test_published_weights_give_the_authors_result():
    name = "c5b8b4070688114c602b27933c6699b6"
    published = Enhancer(GOLDEN / "published_weights" / "clip_lit" / "enhancement_model.pth", device="cpu")
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
    sources = [save(tmp_path / "in" / "a.JPG"), save(tmp_path / "in" / "sub" / "deep" / "b.png"), save(tmp_path / "in" / "c.bmp")]
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
    assert {job.beside("illumination") for job in jobs} == {tmp_path / "out_illumination" / job.relative for job in jobs}


def test_default_output(tmp_path, monkeypatch):
    a, b = save(tmp_path / "in" / "x" / "a.jpg"), save(tmp_path / "in" / "y" / "b.jpg")
    assert plan_outputs([tmp_path / "in"], None)[0].target == tmp_path / "in_enhanced" / "x" / "a.jpg"
    assert plan_outputs([a], None)[0].target == tmp_path / "in" / "x" / "enhanced" / "a.jpg"
    assert [job.target for job in plan_outputs([a, b], None)] == [tmp_path / "in/enhanced/x/a.jpg", tmp_path / "in/enhanced/y/b.jpg"]
    monkeypatch.chdir(tmp_path / "in")
    assert plan_outputs(["."], None)[0].target == tmp_path / "in_enhanced" / "x" / "a.jpg"


def test_duplicates_count_once(tmp_path):
    a = save(tmp_path / "in" / "a.jpg")
    save(tmp_path / "in" / "sub" / "b.jpg")
    assert plan([a, a, tmp_path / "in", tmp_path / "in" / "sub"], tmp_path / "out") == {"a.jpg": "a.jpg", "b.jpg": "sub/b.jpg"}


def test_earlier_results_inside_the_input_are_not_photos(tmp_path):
    a = save(tmp_path / "a.jpg")
    for folder in ("out", "out_side_by_side", "out_illumination"):
        save(tmp_path / folder / "a.jpg")
    assert [job.source for job in plan_outputs([tmp_path], tmp_path / "out")] == [a]
    a.unlink()
    with pytest.raises(UserError, match="only earlier results"):
        plan_outputs([tmp_path], tmp_path / "out")


def test_format(tmp_path):
    for name in ("a.jpg", "b.tiff", "c.gif"):
        save(tmp_path / "in" / name)
    assert plan([tmp_path / "in"], None, "webp") == {"a.jpg": "a.webp", "b.tiff": "b.webp", "c.gif": "c.webp"}
    assert plan([tmp_path / "in"], None, "tiff")["a.jpg"] == "a.tif"
    assert plan([tmp_path / "in"], None) == {"a.jpg": "a.jpg", "b.tiff": "b.tiff", "c.gif": "c.png"}


def test_colliding_names_get_their_suffix(tmp_path):
    for name in ("a.jpg", "a.png", "a_png.png", "b.jpg", "B.png"):
        save(tmp_path / "in" / name)
    names = plan([tmp_path / "in"], None, "png")
    assert names == {"a.jpg": "a_jpg.png", "a.png": "a_png_2.png", "a_png.png": "a_png.png", "b.jpg": "b_jpg.png", "B.png": "B_png.png"}
    assert names == plan([tmp_path / "in"], None, "png")
    assert plan([tmp_path / "in"], None, "keep")["a.jpg"] == "a.jpg"  # nothing collides where suffixes are kept


def test_names_differ_beyond_unicode_form(tmp_path):
    save(tmp_path / "in" / "u\u0308.jpg")
    save(tmp_path / "in" / "ü.jpg")
    if len(list((tmp_path / "in").iterdir())) == 2:  # not so on file systems that normalise
        assert sorted(plan([tmp_path / "in"], None).values()) == sorted(["u\u0308_jpg.jpg", "ü_jpg_2.jpg"])


@pytest.mark.parametrize("fmt", ["keep", "png"])
def test_output_among_the_photos_is_refused(tmp_path, fmt):
    a = save(tmp_path / "in" / "a.jpg")
    save(tmp_path / "in" / "sub" / "b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for inputs, output in (([tmp_path / "in"], tmp_path / "in"), ([a], tmp_path / "in"), ([tmp_path / "in"], tmp_path / "link")):
        with pytest.raises(UserError, match=r"data\.output: expected another folder"):
            plan_outputs(inputs, output, fmt)


def test_a_result_on_top_of_a_photo_is_refused(tmp_path):
    save(tmp_path / "in" / "a.jpg")
    save(tmp_path / "in" / "in" / "a.jpg")
    with pytest.raises(UserError, match="no photo is overwritten"):
        plan_outputs([tmp_path / "in", tmp_path / "in" / "in" / "a.jpg"], tmp_path)  # in/in/a.jpg -> in/a.jpg


def test_folder_of_maps_on_top_of_the_input_is_refused(tmp_path):
    save(tmp_path / "x_illumination" / "a.jpg")
    with pytest.raises(UserError, match="x_illumination"):
        plan_outputs([tmp_path / "x_illumination"], tmp_path / "x")


def test_missing_input(tmp_path):
    with pytest.raises(UserError, match="found nothing there"):
        plan_outputs([tmp_path / "nothing"], None)
    with pytest.raises(UserError, match="empty list"):
        plan_outputs([], None)


# --- files ---


def test_files_carry_alpha_exif_bits_and_grey(enhancer, tmp_path):
    deep = np.random.default_rng(1).random((5, 6, 3), np.float32)
    alpha = np.random.default_rng(2).integers(0, 65536, (5, 6)).astype(np.float32) / 65535
    exif = Image.Exif()
    exif[271] = "Maker"
    write_photo(tmp_path / "in" / "deep.png", Photo(deep, alpha, 16, exif=exif.tobytes()))
    save(tmp_path / "in" / "grey.png", mode="L")
    outcome = enhance_files(plan_outputs([tmp_path / "in"], tmp_path / "out"), enhancer)
    assert (outcome.enhanced, outcome.failures) == (2, [])
    result, source = read_photo(tmp_path / "out" / "deep.png"), read_photo(tmp_path / "in" / "deep.png")
    assert result.bits == 16 and np.array_equal(result.alpha, alpha) and b"Maker" in result.exif
    assert np.abs(result.rgb - enhancer.enhance(source.rgb)[0]).max() < 1 / 65535
    grey = read_photo(tmp_path / "out" / "grey.png")
    assert grey.grey and grey.rgb.mean() > 1.3 * 60 / 255


def test_strength_zero_writes_the_same_pixels(enhancer, tmp_path):
    Image.fromarray((noise(8, 8) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    enhance_files(plan_outputs([tmp_path / "a.png"], None), enhancer, strength=0.0)
    assert np.array_equal(read_photo(tmp_path / "enhanced" / "a.png").rgb, read_photo(tmp_path / "a.png").rgb)


def test_side_by_side_and_map(enhancer, tmp_path):
    save(tmp_path / "in" / "sub" / "a.png")
    (job,) = plan_outputs([tmp_path / "in"], tmp_path / "out")
    enhance_files([job], enhancer, side_by_side=True, illumination=True)
    photo, result = read_photo(job.source).rgb, read_photo(job.target).rgb
    pair = read_photo(tmp_path / "out_side_by_side" / "sub" / "a.png").rgb
    assert np.array_equal(pair, np.concatenate([photo, result], axis=1))
    written = read_photo(tmp_path / "out_illumination" / "sub" / "a.png")
    assert written.grey and np.abs(written.rgb[..., 0] - np.clip(enhancer.illumination(photo), 0, 1)).max() <= 0.5 / 255 + 1e-6


def test_skip_existing(enhancer, tmp_path):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    enhance_files(jobs[:1], enhancer)
    os.utime(jobs[0].target, (1, 1))
    outcome = enhance_files(jobs, enhancer, skip_existing=True)
    assert (outcome.enhanced, outcome.skipped) == (1, 1) and jobs[0].target.stat().st_mtime == 1
    outcome = enhance_files(jobs, enhancer, skip_existing=True, illumination=True)  # the maps are still missing
    assert (outcome.enhanced, outcome.skipped) == (2, 0) and jobs[0].beside("illumination").exists()


def test_broken_photos_do_not_stop_the_others(enhancer, tmp_path):
    for name in ("a.png", "c.png", "e.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "b.jpg").write_text("no photo")
    (tmp_path / "out" / "c.png").mkdir(parents=True)  # cannot be written
    outcome = enhance_files(plan_outputs([tmp_path / "in"], tmp_path / "out"), enhancer)
    assert outcome.enhanced == 2
    (first, first_reason), (second, second_reason) = outcome.failures
    assert first == tmp_path / "in" / "b.jpg" and first_reason.startswith("expected an image")
    assert second == tmp_path / "in" / "c.png" and "cannot be written" in second_reason


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_too_large_a_photo_is_that_photos_failure(enhancer, tmp_path, monkeypatch, error):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    calls = []

    def once(rgb, strength):
        calls.append(rgb)
        if len(calls) == 1:
            raise error
        return rgb, rgb[..., 0]

    monkeypatch.setattr(enhancer, "enhance", once)
    outcome = enhance_files(plan_outputs([tmp_path / "in"], None), enhancer)
    assert outcome.enhanced == 1
    assert outcome.failures[0][0].name == "a.png" and "0.0 megapixels" in outcome.failures[0][1]


def test_our_own_failures_are_not_hidden(enhancer, tmp_path, monkeypatch):
    save(tmp_path / "a.png")

    def bug(*args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(serving.enhancer, "_enhance_one", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        enhance_files(plan_outputs([tmp_path / "a.png"], None), enhancer)


def test_notes_name_the_photo(enhancer, tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert enhance_files(plan_outputs([tmp_path / "a.gif"], None), enhancer).notes == [(tmp_path / "a.gif", "animated: first of 2 frames")]
