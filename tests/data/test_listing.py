import json
import os
from pathlib import Path

import pytest
from PIL import Image

from common.errors import UserError
from data.images import ImageError, heif_installed, read_rgb8
from data.listing import left_out, list_images, other_photos
from data.outputs import CACHE_TAG, RESULTS_FILE, RecordedResults, record_result, tag_cache
from tests.faults import special_files


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(path)
    return path


def names(folder, **options):
    return [path.relative_to(folder).as_posix() for path in list_images(folder, "photos", **options)]


@pytest.mark.parametrize(
    "made",
    [
        ["runs/a/config.yaml", "runs/a/provenance.json", "runs/a/previews/1.png"],
        [f"cache/{CACHE_TAG}", "cache/deep/1.png"],
        ["@eaDir/a.png/SYNOPHOTO_THUMB_M.png"],
        ["$RECYCLE.BIN/S-1-5/1.png"],
        [".thumbnails/1.png"],
        ["#recycle/1.png"],
        ["__MACOSX/1.png"],
    ],
)
def test_what_nobody_means_by_photos_is_left_out(tmp_path, made):
    save(tmp_path / "a.png")
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a.png"]


def test_recorded_results_are_no_photos_but_those_beside_them_are(tmp_path):
    for name in ("a.png", "sub/b.png", "mine.png"):
        save(tmp_path / "photos" / "out" / name)
    for name in ("a.png", "sub/b.png"):
        record_result(tmp_path / "photos" / "out" / name, tmp_path / "photos" / "out", Path(name))
    assert names(tmp_path / "photos") == ["out/mine.png"]
    assert names(tmp_path / "photos" / "out") == ["mine.png"]
    assert names(tmp_path / "photos" / "out", results=True) == ["a.png", "mine.png", "sub/b.png"]
    (tmp_path / "photos/out/mine.png").unlink()
    with pytest.raises(UserError, match=rf"found only results of an earlier enhancement \(delete {RESULTS_FILE}"):
        names(tmp_path / "photos" / "out")


def test_a_result_that_was_changed_since_is_somebody_elses(tmp_path):
    for name in ("kept.png", "edited.png", "gone.png", "touched.png"):
        record_result(save(tmp_path / name), tmp_path, Path(name))
    (tmp_path / "edited.png").write_bytes(b"longer than before" * 100)
    os.utime(tmp_path / "touched.png", (1, 1))
    (tmp_path / "gone.png").unlink()
    known = RecordedResults(tmp_path)
    assert [p for p in ("kept.png", "edited.png", "gone.png", "touched.png", "new.png") if known.holds(Path(p))] == [
        "kept.png"
    ]


def test_a_result_written_after_the_clock_went_back_is_known(tmp_path):
    result = save(tmp_path / "a.png")
    record_result(result, tmp_path, Path("a.png"))
    record = tmp_path / RESULTS_FILE
    line = json.loads(record.read_text())
    record.write_text(json.dumps(line | {"recorded_ns": line["recorded_ns"] + 10**15}) + "\n")
    os.utime(result, (1, 1))
    record_result(result, tmp_path, Path("a.png"))
    assert RecordedResults(tmp_path).holds(Path("a.png"))


def test_a_stop_between_record_and_name_leaves_the_earlier_result_known(tmp_path):
    record_result(save(tmp_path / "a.png"), tmp_path, Path("a.png"), "earlier")
    later = save(tmp_path / "part.png")
    os.utime(later, (1, 1))
    record_result(later, tmp_path, Path("a.png"), "later")
    assert RecordedResults(tmp_path).made_of(Path("a.png")) == "earlier"
    later.replace(tmp_path / "a.png")
    assert RecordedResults(tmp_path).made_of(Path("a.png")) == "later"


def test_damage_in_the_record_costs_only_the_damaged_lines(tmp_path):
    record_result(save(tmp_path / "a.png"), tmp_path, Path("a.png"))
    with (tmp_path / RESULTS_FILE).open("ab") as file:
        file.write(
            b'\xff\n[1]\n7\n{"name": 3}\n{"name": "a", "recorded_ns": Infinity}\n'
            + b"[" * 100_000
            + b"\n"
            + json.dumps({"name": "b.png"}).encode()[:-3]
        )
    assert Path("a.png") in RecordedResults(tmp_path)
    save(tmp_path / "b.png")
    assert names(tmp_path) == ["b.png"]


def test_a_tag_marks_a_cache_once(tmp_path):
    tag_cache(tmp_path / "cache")
    tag = tmp_path / "cache" / CACHE_TAG
    before = tag.stat().st_mtime_ns
    assert tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    tag_cache(tmp_path / "cache")
    assert tag.stat().st_mtime_ns == before


def test_odd_entries_are_listed_and_none_stops_or_blocks_the_walk(tmp_path):
    good = save(tmp_path / "good.png")
    special_files(tmp_path)
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "nowhere.jpg").symlink_to("nothing")
    os.mkfifo(tmp_path / "direct.jpg")
    paths = list_images(tmp_path, "photos")
    assert [p.name for p in paths] == ["direct.jpg", "good.png", "link.jpg", "nowhere.jpg", "self.jpg", "zero.jpg"]
    assert not other_photos(tmp_path)
    for path in paths:
        if path != good:
            with pytest.raises(ImageError, match="expected a "):
                read_rgb8(path)


def test_all_that_is_read_is_listed_and_all_other_photos_are_counted(tmp_path):
    """Multi-picture files too; HEIC where its package is installed."""
    for name in (
        "a.mpo",
        "b.jfif",
        "c.avif",
        "d.jp2",
        "e.tga",
        "x.eps",
        "x.wmf",
        "x.pdf",
        "y.kdc",
        "y.RWL",
        "y.jxl",
        "z.heic",
    ):
        (tmp_path / name).touch()
    heic = ["z.heic"] if heif_installed() else []
    assert names(tmp_path) == ["a.mpo", "b.jfif", "c.avif", "d.jp2", "e.tga", *heic]
    others = {".kdc": 1, ".rwl": 1, ".jxl": 1} | ({} if heic else {".heic": 1})
    assert other_photos(tmp_path) == others
    assert left_out([tmp_path, tmp_path]).startswith("2 .heic, " if not heic else "2 .jxl, 2 .kdc, 2 .rwl, formats")
    assert left_out([]) == ""
