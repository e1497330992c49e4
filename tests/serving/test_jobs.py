"""The plan of which file goes where."""

import os
from pathlib import Path

import pytest

from common.errors import UserError
from data.outputs import RESULTS_FILE
from serving.jobs import Job, plan_outputs, replaced
from tests.serving.helpers import save_photo


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


def test_a_path_may_begin_with_two_slashes(tmp_path):
    """As `$PLACE/photos` does where PLACE is the root; POSIX lets them stay, and they are one folder all the same."""
    save_photo(tmp_path / "in" / "sub" / "a.jpg")
    [job] = plan_outputs([f"/{tmp_path}/in"], f"/{tmp_path}/out")
    assert job == Job(tmp_path / "in/sub/a.jpg", tmp_path / "out/sub/a.jpg", Path("sub/a.jpg"))


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
    assert [job.source for job in plan_outputs([tmp_path], tmp_path / "out", keep=True)] == [a]
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


def test_a_record_that_cannot_be_read_is_named_and_not_its_result(tmp_path):
    save_photo(tmp_path / "in" / "a.png")
    save_photo(tmp_path / "out" / "a.png")
    (tmp_path / "out" / RESULTS_FILE).mkdir()
    with pytest.raises(UserError, match=rf"readable record of its results, found .*{RESULTS_FILE}: expected a file"):
        plan_outputs([tmp_path / "in"], tmp_path / "out")


def test_a_result_s_name_that_is_too_long_is_planned_and_left_to_fail_alone(tmp_path):
    for suffix in (".gif", ".bmp"):
        save_photo(tmp_path / "in" / ("z" * 251 + suffix))
    (tmp_path / "out").mkdir()
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    assert len(jobs) == 2 and replaced(jobs, []) == set()
