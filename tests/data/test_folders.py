"""Listing, and the order of batches."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from data.folders import BatchOrder, MixedInputs, PhotoArray, mix
from data.listing import list_images


def test_listing_is_sorted_recursive_and_leaves_out_the_rest(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/c.webp", ".hidden/x.png", "notes.txt", ".y.png", "d.tiff"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    names = [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path, "key")]
    assert names == ["a/c.webp", "a/z.png", "b.JPG", "d.tiff"]


def test_listing_follows_links_once_and_names_what_is_out_of_reach(tmp_path, monkeypatch):
    (tmp_path / "in" / "locked").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("in/a.png", "elsewhere/b.png"):
        (tmp_path / name).touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "z").mkdir()
    (tmp_path / "in" / "z" / "c.png").touch()
    (tmp_path / "in" / "alias").symlink_to(tmp_path / "in" / "z")  # the folder's own name counts
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    names = [p.relative_to(tmp_path / "in").as_posix() for p in list_images(tmp_path / "in", "key")]
    assert names == ["a.png", "gone.png", "link/b.png", "locked", "z/c.png"]
    with pytest.raises(UserError, match="key: expected a folder, found no permission to read"):
        list_images(tmp_path / "in" / "locked", "key")


def test_names_are_left_out_with_and_without_their_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/a.png", "sub/b.png"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path, "key", ["sub/a.png"])] == ["a.png", "b.png"]
    assert [p.name for p in list_images(tmp_path, "key", ["a.png"])] == ["b.png"]


def test_bad_folders_are_told_with_the_key(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, found in (("missing", "found nothing there"), ("file", "found a file"), ("empty", "found none")):
        with pytest.raises(UserError, match=rf"data\.backlit_images_path: .*{found}"):
            list_images(tmp_path / name, "data.backlit_images_path")


def test_every_pass_holds_every_photo_once():
    order = BatchOrder(7, 3, seed=0)
    indices = [index for k in range(7) for index, _ in order.batch(k)]
    assert [sorted(indices[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert indices[:7] != indices[7:14]


def test_order_goes_on_from_any_iteration_and_depends_on_the_seed():
    whole, late = iter(BatchOrder(5, 2, seed=1)), iter(BatchOrder(5, 2, seed=1, start=4))
    batches = [next(whole) for _ in range(6)]
    assert [next(late), next(late)] == batches[4:]
    assert next(iter(BatchOrder(5, 2, seed=2))) != batches[0]


def test_processes_share_a_batch_between_them():
    parts = [next(iter(BatchOrder(9, 4, seed=0, rank=rank, world=2))) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(BatchOrder(9, 4, seed=0).batch(0))
    with pytest.raises(UserError, match=r"unet_model\.batch_size: expected a multiple of the 2 processes"):
        BatchOrder(9, 3, seed=0, world=2)


def test_mixed_inputs_replace_the_share_that_was_asked_for():
    """Which photo stands for a key depends on the key alone; how it was lit is known of the well-lit ones."""
    backlit = PhotoArray(np.zeros((10, 4, 4, 3), np.uint8))
    others = PhotoArray(np.full((3, 4, 4, 3), 255, np.uint8), lambda photo: (photo / 2, photo))
    mixed = MixedInputs(backlit, [(0.3, others)])
    keys = [(i % 10, mix(1, i)) for i in range(400)]
    drawn = [tuple(float(torch.as_tensor(part).float().mean()) for part in mixed[key]) for key in keys]
    assert len(mixed) == 10
    assert set(drawn) == {(0.0, 0.0, False), (0.5, 1.0, True)}
    assert 0.22 < np.mean([known for *_, known in drawn]) < 0.38
    assert drawn == [tuple(float(torch.as_tensor(part).float().mean()) for part in mixed[key]) for key in keys]
    assert mixed[3].mean() == 0  # without a seed: the backlit photo
