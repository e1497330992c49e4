"""The resized cache: values, content as key, damage, stops, and photos that cannot be read."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.files import DiskFull
from data.augment import training_augmentation
from data.folders import ResizedPhotos
from data.images import ImageError
from data.listing import list_images
from data.resized import in_parallel, photo_contents, store_photos


@pytest.fixture
def paths(photo_folders):
    return list_images(photo_folders[0], "key")


def cached(tmp_path):
    return sorted((tmp_path / "cache" / "resized").rglob("*.rgb"))


def test_values_and_augmentation_key(paths, tmp_path):
    photos = ResizedPhotos(paths, 24, tmp_path / "cache", training_augmentation())
    expected = np.asarray(Image.open(paths[2]).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR))
    assert torch.equal(photos[2], torch.from_numpy(expected.copy()).permute(2, 0, 1).float() / 255)
    assert torch.equal(photos[(2, 5)], photos[(2, 5)])
    assert any(not torch.equal(photos[(2, s)], photos[2]) for s in range(5))
    assert photos.pixels.shape == (6, 24, 24, 3)


def test_each_photo_and_size_is_decoded_once_also_under_another_name(paths, tmp_path):
    first = ResizedPhotos(paths, 24, tmp_path / "cache")
    files = {file: file.stat().st_mtime_ns for file in cached(tmp_path)}
    assert len(files) == len(paths)
    moved = [path.rename(tmp_path / f"moved {path.name}") for path in paths]
    again = ResizedPhotos(moved, 24, tmp_path / "cache")
    assert {file: file.stat().st_mtime_ns for file in cached(tmp_path)} == files
    assert again.contents == first.contents and torch.equal(again[3], first[3])
    ResizedPhotos(moved, 16, tmp_path / "cache")
    assert len(cached(tmp_path)) == 2 * len(paths)


def test_a_photo_changed_in_place_is_decoded_anew(paths, tmp_path):
    before = ResizedPhotos(paths, 16, tmp_path / "cache")
    data = bytearray(paths[0].read_bytes())
    Image.new("RGB", (56, 40), "white").save(paths[1], "PNG")
    assert not torch.equal(ResizedPhotos(paths, 16, tmp_path / "cache")[1], before[1])
    data[-20] ^= 1  # same size
    paths[0].write_bytes(data)
    assert photo_contents(paths)[0] != before.contents[0]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:40] + b"x" + data[41:], lambda data: b""]
)
def test_a_damaged_file_is_made_anew(paths, tmp_path, damage):
    before = ResizedPhotos(paths, 16, tmp_path / "cache")
    values = before[4].clone()
    file = before.pixels.folder / f"{before.contents[4][:32]}.rgb"
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    assert torch.equal(before[4], values)  # while training goes on
    assert file.read_bytes() == sound
    file.write_bytes(damage(sound))
    assert torch.equal(ResizedPhotos(paths, 16, tmp_path / "cache")[4], values)


def test_what_cannot_be_read_is_left_out_and_named(paths, tmp_path):
    paths[0].write_bytes(b"not an image")
    paths[1].unlink()  # after it was listed
    os.mkfifo(tmp_path / "pipe.png")
    stored, skipped = store_photos([*paths, tmp_path / "pipe.png"], 16, tmp_path / "cache")
    assert stored.paths == paths[2:]
    assert [reason.partition(":")[0] for reason in skipped] == [str(p) for p in (*paths[:2], tmp_path / "pipe.png")]
    assert [reason.partition("found")[2] for reason in skipped[1:]] == [": No such file or directory", " a pipe"]
    with pytest.raises(UserError, match=r"none of the 2 photos can be read, the first because: .*0\.png"):
        store_photos(paths[:2], 16, tmp_path / "cache")


def test_a_stop_keeps_what_was_decoded(paths, tmp_path):
    locked = tmp_path / "cache" / "resized"
    done = []

    def work(path):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(store_photos([path], 16, tmp_path / "cache"))

    with pytest.raises(KeyboardInterrupt):
        in_parallel(work, paths, "reading")
    assert 3 <= len(list(locked.rglob("*.rgb"))) < len(paths) + 1


def test_errors_of_one_photo_do_not_hide_a_full_disk(paths, tmp_path):
    with pytest.raises(DiskFull):
        in_parallel(lambda path: (_ for _ in ()).throw(DiskFull("x")), paths, "reading")
    assert not isinstance(DiskFull("x"), ImageError)
