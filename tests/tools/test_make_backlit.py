"""tools/make_backlit.py: pairs of the same names, repeatable, broken photos named."""

import csv
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.files import DiskFull
from tests.faults import room_for
from tools import make_backlit


def test_pairs_csv_and_values(photo_folders, tmp_path):
    out = tmp_path / "set"
    assert make_backlit.main([str(photo_folders[1]), str(out), "--per-photo", "2", "--foreground-stops", "2", "2"]) == 0
    rows = list(csv.DictReader((out / "pairs.csv").open()))
    assert len(rows) == 16
    for row in rows:
        backlit, truth = (np.asarray(Image.open(out / folder / row["file"])) for folder in ("backlit", "ground_truth"))
        assert backlit.shape == truth.shape
        assert backlit.mean() < truth.mean()
        assert float(row["foreground_stops"]) == 2
    assert np.array_equal(
        np.asarray(Image.open(out / "ground_truth/0_1.png")), np.asarray(Image.open(photo_folders[1] / "0.png"))
    )


def test_adding_a_photo_changes_no_other_pair(photo_folders, tmp_path):
    make_backlit.main([str(photo_folders[1]), str(tmp_path / "a")])
    shutil.copy(photo_folders[1] / "3.png", photo_folders[1] / "00.png")
    make_backlit.main([str(photo_folders[1]), str(tmp_path / "b")])
    make_backlit.main([str(photo_folders[1]), str(tmp_path / "c"), "--seed", "1"])
    same, other = ((tmp_path / name / "backlit" / "5.png").read_bytes() for name in "bc")
    assert (tmp_path / "a/backlit/5.png").read_bytes() == same != other


def test_given_masks_are_used(photo_folders, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(8):
        Image.fromarray(np.uint8([[0, 255]])).resize((56, 40), Image.Resampling.NEAREST).save(masks / f"{number}.png")
    options = ["--masks", str(masks), "--background-stops", "0", "0", "--size", "28"]
    make_backlit.main([str(photo_folders[1]), str(tmp_path / "out"), *options])
    backlit, truth = (
        np.asarray(Image.open(tmp_path / "out" / f / "2.png")).astype(int) for f in ("backlit", "ground_truth")
    )
    assert backlit.shape[1] == 28
    assert backlit[:, -4:].mean() < 0.7 * truth[:, -4:].mean()
    shoulder = truth[:, :4] < 220  # brighter values run into the soft shoulder
    assert np.abs(backlit[:, :4] - truth[:, :4])[shoulder].max() <= 1


def test_broken_photos_and_mistakes(photo_folders, tmp_path, capsys):
    (photo_folders[1] / "x.jpg").write_bytes(b"no")
    assert make_backlit.main([str(photo_folders[1]), str(tmp_path / "out")]) == 3
    assert "x.jpg" in capsys.readouterr().err
    for arguments, message in (
        ([str(photo_folders[1]), str(tmp_path / "out")], "found"),  # the set is there
        ([str(tmp_path / "nothing"), str(tmp_path / "o")], "photos: expected a folder"),
        ([str(photo_folders[1]), str(tmp_path / "o"), "--noise", "0.5", "0.1"], "--noise: expected 0 <= LOW <= HIGH"),
        ([str(photo_folders[1]), str(tmp_path / "o"), "--per-photo", "0"], "--per-photo"),
    ):
        with pytest.raises(UserError, match=message):
            make_backlit.main(arguments)


def test_a_photo_whose_result_cannot_be_written_does_not_stop_the_others(photo_folders, tmp_path, capsys):
    for suffix in (".gif", ".bmp"):  # of one name, so that both get their suffix into it, which makes it too long
        Image.new("RGB", (8, 8)).save(photo_folders[1] / ("0" * 251 + suffix))
    assert make_backlit.main([str(photo_folders[1]), str(tmp_path / "out")]) == 3
    said = capsys.readouterr()
    assert said.err.count("cannot be written: File name too long") == 2 and "8 pairs out of 10 photos" in said.out
    assert len(list(csv.DictReader((tmp_path / "out" / "pairs.csv").open()))) == 8


def test_a_set_that_a_full_disk_stopped_is_made_anew(photo_folders, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(photo_folders[1] / "z.png")  # the last and largest
    make_backlit.main([str(photo_folders[1]), str(whole)])
    with room_for((whole / "backlit/z.png").stat().st_size - 1), pytest.raises(DiskFull):
        make_backlit.main([str(photo_folders[1]), str(out)])
    assert list((out / "backlit").iterdir())
    assert make_backlit.main([str(photo_folders[1]), str(out)]) == 0
    for file in (path for path in whole.rglob("*") if path.is_file()):
        assert (out / file.relative_to(whole)).read_bytes() == file.read_bytes()


def test_photos_of_one_name_share_no_output(photo_folders, tmp_path):
    Image.open(photo_folders[1] / "0.png").save(photo_folders[1] / "0.jpg")
    make_backlit.main([str(photo_folders[1]), str(tmp_path / "out")])
    assert {"0_png.png", "0_jpg.png", "1.png"} <= {p.name for p in (tmp_path / "out/backlit").iterdir()}
    with pytest.raises(UserError, match="outside that of the photos"):
        make_backlit.main([str(photo_folders[1]), str(photo_folders[1] / "set")])


def test_a_name_that_is_no_unicode_and_a_photo_of_one_pixel_are_simulated_too(tmp_path, recwarn):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (1, 1), (223, 219, 254)).save(tmp_path / "photos" / "one.png")
    Image.new("RGB", (20, 20), (90, 90, 90)).save(tmp_path / "photos" / os.fsdecode(b"\xff.png"))
    assert make_backlit.main([str(tmp_path / "photos"), str(tmp_path / "out")]) == 0
    assert len((tmp_path / "out" / "pairs.csv").read_text().splitlines()) == 3
    pixel = np.asarray(Image.open(tmp_path / "out" / "backlit" / "one.png"))
    assert pixel.max() > 0 and not [w for w in recwarn if w.category is RuntimeWarning]


def test_no_pair_overwrites_another(tmp_path):
    """Names are those that inference gives: p.png and p.jpg beside p_png.jpg, and names that differ by case alone."""
    (tmp_path / "in").mkdir()
    names = ["p.png", "p.jpg", "p_png.jpg", "P_JPG.png"]
    for level, name in enumerate(names):
        Image.new("RGB", (20, 20), (50 * level + 50,) * 3).save(tmp_path / "in" / name)
    assert make_backlit.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    with (tmp_path / "out/pairs.csv").open() as file:
        files = [row["file"] for row in csv.DictReader(file)]
    assert len({name.casefold() for name in files}) == 4
    levels = {np.asarray(Image.open(tmp_path / "out/ground_truth" / name))[0, 0, 0] // 50 for name in files}
    assert levels == {1, 2, 3, 4}
