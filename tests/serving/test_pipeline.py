"""Folders of photos: what is written, what fails, and that decode and encode run beside the network."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import serving.pipeline
from common.errors import UserError
from configs.load import load_config
from configs.schema import InferenceConfig
from data.images import Limits, Metadata, Photo, read_photo, write_photo
from data.outputs import RESULTS_FILE
from serving.finish import Finish
from serving.jobs import plan_outputs
from serving.outcome import Outcome, together
from serving.pipeline import Options, enhance_files
from tests.serving.helpers import noise, save_photo


def test_files_carry_alpha_exif_bits_and_grey(enhancer, tmp_path):
    deep = np.random.default_rng(1).random((5, 6, 3), np.float32)
    alpha = np.random.default_rng(2).integers(0, 65536, (5, 6)).astype(np.float32) / 65535
    exif = Image.Exif()
    exif[271] = "Maker"
    write_photo(tmp_path / "in" / "deep.png", Photo(deep, alpha, 16, metadata=Metadata(exif.tobytes())))
    save_photo(tmp_path / "in" / "grey.png", mode="L")
    outcome = enhance_files(plan_outputs([tmp_path / "in"], tmp_path / "out"), enhancer)
    assert (outcome.enhanced, outcome.failures) == (2, [])
    result, source = read_photo(tmp_path / "out" / "deep.png"), read_photo(tmp_path / "in" / "deep.png")
    assert result.bits == 16 and np.array_equal(result.alpha, alpha) and b"Maker" in result.metadata.exif
    assert np.abs(result.rgb - enhancer.enhance(source.rgb)[0]).max() < 1 / 65535
    grey = read_photo(tmp_path / "out" / "grey.png")
    assert grey.grey and grey.rgb.mean() > 1.3 * 60 / 255


def test_strength_zero_writes_the_same_pixels(enhancer, tmp_path):
    Image.fromarray((noise(8, 8) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    enhance_files(plan_outputs([tmp_path / "a.png"], tmp_path / "out"), enhancer, Options(strength=0.0))
    assert np.array_equal(read_photo(tmp_path / "out" / "a.png").rgb, read_photo(tmp_path / "a.png").rgb)


def test_side_by_side_and_map(enhancer, tmp_path):
    save_photo(tmp_path / "in" / "sub" / "a.png")
    (job,) = plan_outputs([tmp_path / "in"], tmp_path / "out")
    enhance_files([job], enhancer, Options(side_by_side=True, illumination=True))
    photo, result = read_photo(job.source).rgb, read_photo(job.target).rgb
    pair = read_photo(tmp_path / "out_side_by_side" / "sub" / "a.png").rgb
    assert np.array_equal(pair, np.concatenate([photo, result], axis=1))
    written = read_photo(tmp_path / "out_illumination" / "sub" / "a.png")
    assert (
        written.grey
        and np.abs(written.rgb[..., 0] - np.clip(enhancer.illumination(photo), 0, 1)).max() <= 0.5 / 255 + 1e-6
    )


def test_skip_existing(enhancer, tmp_path):
    save_photo(tmp_path / "in" / "a.png")
    save_photo(tmp_path / "in" / "b.png")
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    enhance_files(jobs[:1], enhancer)
    os.utime(jobs[0].target, (1, 1))
    outcome = enhance_files(jobs, enhancer, Options(skip_existing=True))
    assert (outcome.enhanced, outcome.skipped) == (1, 1) and jobs[0].target.stat().st_mtime == 1
    with_maps = Options(skip_existing=True, illumination=True)
    outcome = enhance_files(jobs, enhancer, with_maps)  # the maps are still missing
    assert (outcome.enhanced, outcome.skipped) == (2, 0) and jobs[0].beside("illumination").exists()


def test_what_another_run_wrote_since_the_plan_stays(enhancer, tmp_path):
    for name in ("A/x.png", "A/y.png", "B/x.png"):
        save_photo(tmp_path / name, value={"A": 60, "B": 90}[name[0]])
    (first, other), (second,) = (plan_outputs([tmp_path / folder], tmp_path / "out") for folder in "AB")
    assert enhance_files([first], enhancer).enhanced == 1
    os.utime(first.target, (1, 1))
    with pytest.raises(UserError, match="other files of the results' names"):
        plan_outputs([tmp_path / "B"], tmp_path / "out")
    outcome = enhance_files([second, other], enhancer)
    assert outcome.enhanced == 1 and first.target.stat().st_mtime == 1 and outcome.fault is None
    (failed,) = outcome.failures
    assert failed == (
        second.source,
        f"{second.target}: cannot be written: another program wrote a file of this name meanwhile",
    )
    assert enhance_files([replace(first, planned={first.target: None})], enhancer).enhanced == 1  # the same once more
    again = plan_outputs([tmp_path / "B"], tmp_path / "out", overwrite=True)
    os.utime(first.target, (2, 2))
    assert enhance_files([*again, *again], enhancer).enhanced == 2  # and one's own result is no stranger's


def test_outcomes_of_several_processes_are_told_as_one(tmp_path):
    for name in "abcd":
        save_photo(tmp_path / "in" / f"{name}.png")
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    a, b, c, d = (job.source for job in jobs)
    shares = [
        Outcome(1, 0, 40, [(c, "broken")], [(a, "note")], seconds={a: 1.5}),
        Outcome(1, 1, 2, [(b, "torn"), (d, "lost")]),
    ]
    together_told = Outcome(2, 1, 42, [(b, "torn"), (c, "broken"), (d, "lost")], [(a, "note")], seconds={a: 1.5})
    assert together(shares, jobs) == together_told


def test_seconds_of_each_photo(enhancer, tmp_path, monkeypatch):
    """Reading, computing and writing, each by a clock that a step moves on."""
    clock = [0.0]
    monkeypatch.setattr("serving.pipeline.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def after(seconds, step):
        def slower(*arguments, **options):
            clock[0] += seconds
            return step(*arguments, **options)

        return slower

    save_photo(tmp_path / "in" / "a.png")
    (job,) = plan_outputs([tmp_path / "in"], tmp_path / "out")
    monkeypatch.setattr("serving.pipeline.read_photo", after(1, read_photo))
    monkeypatch.setattr(enhancer, "enhance", after(10, enhancer.enhance))
    monkeypatch.setattr("serving.pipeline.write_photo", after(100, write_photo))
    assert enhance_files([job], enhancer).seconds == {job.source: 111}


def test_broken_photos_do_not_stop_the_others(enhancer, tmp_path):
    for name in ("a.png", "c.png", "e.png"):
        save_photo(tmp_path / "in" / name)
    (tmp_path / "in" / "b.jpg").write_text("no photo")
    (tmp_path / "out" / "c.png").mkdir(parents=True)  # cannot be written
    outcome = enhance_files(plan_outputs([tmp_path / "in"], tmp_path / "out"), enhancer)
    assert outcome.enhanced == 2
    (first, first_reason), (second, second_reason) = outcome.failures
    assert first == tmp_path / "in" / "b.jpg" and first_reason.startswith("expected an image")
    assert second == tmp_path / "in" / "c.png" and "cannot be written" in second_reason


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_too_large_a_photo_is_that_photos_failure(enhancer, tmp_path, monkeypatch, error):
    save_photo(tmp_path / "in" / "a.png")
    save_photo(tmp_path / "in" / "b.png")
    calls = []

    def once(rgb, strength, **options):
        calls.append(rgb)
        if len(calls) == 1:
            raise error
        return rgb, None

    monkeypatch.setattr(enhancer, "enhance", once)
    outcome = enhance_files(plan_outputs([tmp_path / "in"], None), enhancer)
    assert outcome.enhanced == 1
    assert outcome.failures[0][0].name == "a.png" and "0.0 megapixels" in outcome.failures[0][1]


@pytest.mark.parametrize("where", ["read_photo", "write_photo", "enhance"])
def test_our_own_failures_are_not_hidden(enhancer, tmp_path, monkeypatch, where):
    target = (enhancer, where) if where == "enhance" else (serving.pipeline, where)
    save_photo(tmp_path / "a.png")

    def bug(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(*target, bug)
    outcome = enhance_files(plan_outputs([tmp_path / "a.png"], None), enhancer)
    assert outcome.failures == [(tmp_path / "a.png", "unexpected RuntimeError: a bug")]
    assert outcome.fault.startswith("Traceback") and ", in bug" in outcome.fault


@pytest.mark.parametrize(("alpha", "notes"), [(255, 0), (254, 1)])
def test_lost_transparency_is_noted_where_there_was_any(enhancer, tmp_path, alpha, notes):
    Image.new("RGBA", (4, 3), (90, 90, 90, alpha)).save(tmp_path / "a.png")
    assert len(enhance_files(plan_outputs([tmp_path / "a.png"], tmp_path / "out", "jpeg"), enhancer).notes) == notes


def test_notes_name_the_photo(enhancer, tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert enhance_files(plan_outputs([tmp_path / "a.gif"], None), enhancer).notes == [
        (tmp_path / "a.gif", "animated: first of 2 frames")
    ]


def folder_of(count: int, tmp_path: Path) -> list:
    for number in range(count):
        save_photo(tmp_path / "in" / f"{number}.png", value=20 + number)
    return plan_outputs([tmp_path / "in"], tmp_path / "out")


def test_results_are_those_of_one_photo_after_the_other(enhancer, tmp_path):
    generator = np.random.default_rng(3)
    for number in range(7):
        pixels = generator.integers(0, 120, (5 + number, 9, 3)).astype(np.uint8)
        write_photo(tmp_path / "in" / f"{number}.{'jpg' if number % 2 else 'png'}", Photo(pixels))
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    outcome = enhance_files(jobs, enhancer)
    assert (outcome.enhanced, outcome.pixels) == (7, sum((5 + n) * 9 for n in range(7)))
    for job in jobs:
        photo = read_photo(job.source)
        photo.rgb = enhancer.enhance(photo.rgb)[0]
        write_photo(tmp_path / "one" / job.relative, photo)
        assert job.target.read_bytes() == (tmp_path / "one" / job.relative).read_bytes()


def test_the_next_photo_is_decoded_while_one_is_in_the_network_and_the_last_is_encoded(enhancer, tmp_path, monkeypatch):
    jobs = folder_of(3, tmp_path)
    second_read, first_written, second_computing = threading.Event(), threading.Event(), threading.Event()
    read, write, compute = serving.pipeline.read_photo, serving.pipeline.write_photo, enhancer.enhance

    def watched_read(path, **options):
        if path == jobs[1].source:
            second_read.set()
        return read(path, **options)

    def watched_write(path, *rest, **options):
        if path == jobs[0].target:
            assert second_computing.wait(10), "the second photo waits for the first to be encoded"
            first_written.set()
        return write(path, *rest, **options)

    def watched_compute(rgb, *args, **options):
        if rgb[0, 0, 0] == 20:
            assert second_read.wait(10), "the second photo is not decoded while the first is in the network"
        if rgb[0, 0, 0] == 21:
            second_computing.set()
            assert first_written.wait(10)
        return compute(rgb, *args, **options)

    monkeypatch.setattr(serving.pipeline, "read_photo", watched_read)
    monkeypatch.setattr(serving.pipeline, "write_photo", watched_write)
    monkeypatch.setattr(enhancer, "enhance", watched_compute)
    assert enhance_files(jobs, enhancer).enhanced == 3


@pytest.mark.parametrize(("budget", "most"), [(30, 1), (10**9, 2 + serving.pipeline.ENCODING)])
def test_few_photos_are_in_memory_whatever_the_folder(enhancer, tmp_path, monkeypatch, budget, most):
    jobs = folder_of(12, tmp_path)  # of 30 pixels each
    sources = {job.target: job.source for job in jobs}
    inside, highest, lock = set(), [0], threading.Lock()
    read, write = serving.pipeline.read_photo, serving.pipeline.write_photo

    def counted_read(path, **options):
        with lock:
            inside.add(path)
            highest[0] = max(highest[0], len(inside))
        return read(path, **options)

    def counted_write(path, *rest, **options):
        write(path, *rest, **options)
        with lock:
            inside.remove(sources[path])

    monkeypatch.setattr(serving.pipeline, "IN_FLIGHT", budget)
    monkeypatch.setattr(serving.pipeline, "read_photo", counted_read)
    monkeypatch.setattr(serving.pipeline, "write_photo", counted_write)
    assert enhance_files(jobs, enhancer).enhanced == 12
    assert highest[0] <= most


def test_what_16_bits_lose_is_told(enhancer, tmp_path):
    (tmp_path / "in").mkdir()
    write_photo(tmp_path / "in" / "a.png", Photo(noise(20, 30), bits=16))
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out", "jpeg")
    outcome = enhance_files(jobs, enhancer, Options(finish=Finish(denoise="auto")))
    [(_, note)] = outcome.notes
    assert note.startswith("16 bits a channel became 8, JPEG has no more; noise kept, at 16 bits only --denoise")


def test_a_photo_of_many_tiles_tells_how_far_it_is(enhancer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(enhancer, "_tile_size", 16)
    monkeypatch.setattr("common.progress.LINE_SECONDS", 0.0)
    write_photo(tmp_path / "in" / "a.png", Photo(noise(30, 40)))
    enhance_files(plan_outputs([tmp_path / "in"], tmp_path / "out"), enhancer)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("enhancing: 0 of 1 photos (")]
    assert len(lines) >= 3 and "(100 %)" not in lines[-1]


def test_failures_come_in_the_order_of_the_photos(enhancer, tmp_path):
    jobs = folder_of(6, tmp_path)
    for number in (0, 3, 4):
        jobs[number].source.write_text("no photo")
    (tmp_path / "out" / "2.png").mkdir(parents=True)  # cannot be written
    outcome = enhance_files(jobs, enhancer)
    assert [path.name for path, _ in outcome.failures] == ["0.png", "2.png", "3.png", "4.png"] and outcome.enhanced == 2


def test_ctrl_c_ends_the_threads_and_leaves_whole_files_only(enhancer, tmp_path, monkeypatch):
    jobs, compute, calls = folder_of(9, tmp_path), enhancer.enhance, []

    def stopped(rgb, *args, **options):
        calls.append(rgb)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute(rgb, *args, **options)

    monkeypatch.setattr(enhancer, "enhance", stopped)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt) as stop:
        enhance_files(jobs, enhancer)
    assert threading.active_count() == before
    written = [path.name for path in (tmp_path / "out").iterdir()]
    told = f"{len(written) - 1} of 9 photos done, --skip-existing goes on with the others"
    assert stop.value.__notes__ == [told]
    assert set(written) <= {RESULTS_FILE, "0.png", "1.png", "2.png"}
    for name in set(written) - {RESULTS_FILE}:
        assert read_photo(tmp_path / "out" / name).rgb.shape == (5, 6, 3)


def test_metadata_quality_and_limits_are_those_that_were_asked_for(enhancer, tmp_path):
    exif = Image.Exif()
    exif[271] = "Maker"
    (tmp_path / "in").mkdir()
    picture = Image.effect_noise((64, 48), 60).convert("RGB")
    picture.save(tmp_path / "in" / "a.jpg", exif=exif, quality=70, subsampling=2)
    picture.resize((160, 120)).save(tmp_path / "in" / "large.png")
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    options = Options(quality="keep", metadata="none", limits=Limits(max_megapixels=0.01))
    outcome = enhance_files(jobs, enhancer, options)
    assert outcome.enhanced == 1 and "at most 0.01 megapixels (data.max_megapixels)" in outcome.failures[0][1]
    with Image.open(tmp_path / "in" / "a.jpg") as source, Image.open(tmp_path / "out" / "a.jpg") as result:
        assert result.quantization == source.quantization and result.layer == source.layer
        assert not result.getexif()


def test_what_did_not_fit_into_the_result_is_noted(enhancer, tmp_path):
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(0x8769)[37500] = bytes(70000)
    Image.new("RGB", (6, 5), (90, 90, 90)).save(tmp_path / "a.png", exif=exif)
    outcome = enhance_files(plan_outputs([tmp_path / "a.png"], tmp_path / "out", "jpeg"), enhancer)
    assert [note for _, note in outcome.notes] == [
        "EXIF above 64 KB, which JPEG cannot hold: left out its largest parts (MakerNote)"
    ]


def test_options_are_those_of_the_config():
    assert Options.of(InferenceConfig()) == Options()
    given = ["model.strength=auto", "model.same_for=folder", "save.highlights=hue", "save.denoise=auto"]
    given += ["save.dither=true", "save.quality=keep", "save.png_level=6", "save.metadata=none"]
    given += ["save.side_by_side=true", "save.illumination=true", "save.skip_existing=true"]
    given += ["data.max_megapixels=5", "data.incomplete=accept"]
    options = Options.of(load_config(InferenceConfig, "inference.yaml", given))
    assert options == Options(
        strength="auto",
        same_for="folder",
        finish=Finish(highlights="hue", denoise="auto", dither=True),
        quality="keep",
        png_level=6,
        metadata="none",
        side_by_side=True,
        illumination=True,
        skip_existing=True,
        limits=Limits(5, "accept"),
    )
