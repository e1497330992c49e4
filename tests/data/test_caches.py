import os
import time

import pytest

from common.errors import UserError
from common.files import PART
from data.caches import shrink
from data.listing import list_images
from data.outputs import CACHE_TAG
from tools import clean_cache

OLD, NEW, MIDDLE, LINK = (digit * 32 for digit in "0123")  # names as digests are


def file(path, size=1000, hours_ago=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    when = time.time() - 3600 * hours_ago
    os.utime(path, (when, when))
    return path


def names(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != CACHE_TAG)


def test_the_longest_unused_go_first_and_nothing_else_does(tmp_path):
    file(tmp_path / "resized" / "v2-16" / f"{OLD}.rgb", hours_ago=100)
    file(tmp_path / "resized" / "v2-16" / f"{NEW}.rgb", hours_ago=1)
    file(tmp_path / "embeddings" / f"{MIDDLE}.safetensors", hours_ago=60)
    file(tmp_path / "notes.txt", hours_ago=1000)
    file(tmp_path / "resized" / "mine.txt", hours_ago=1000)
    outside = file(tmp_path / "elsewhere" / "photo.rgb", hours_ago=1000)
    (tmp_path / "resized" / f"{LINK}.rgb").symlink_to(outside)
    stale = file(tmp_path / "resized" / "v2-16" / f"{PART}0123456789abcdef.rgb", hours_ago=1000)
    removed, left = shrink(tmp_path, 2000)
    assert [f.path.name for f in removed] == [f"{OLD}.rgb"] and left == 2000
    assert not stale.exists() and outside.exists()
    removed, left = shrink(tmp_path, 0, spared=50 * 3600)
    assert [f.path.name for f in removed] == [f"{MIDDLE}.safetensors"] and left == 1000
    assert names(tmp_path) == sorted([f"{LINK}.rgb", "mine.txt", f"{NEW}.rgb", "notes.txt", "photo.rgb"])
    assert (tmp_path / "embeddings" / CACHE_TAG).is_file() and not (tmp_path / "resized" / CACHE_TAG).exists()


def test_files_that_a_user_has_in_folders_of_the_caches_names_stay_and_are_found(tmp_path):
    mine = [tmp_path / "embeddings" / "thesis.npy", tmp_path / "embeddings" / "deadbeef.json"]
    mine += [tmp_path / "vocabulary" / "w.safetensors", tmp_path / "resized" / "holiday" / "a.jpg"]
    for path in mine:
        file(path)
    assert shrink(tmp_path, 0) == ([], 0) and all(path.is_file() for path in mine)
    assert list_images(tmp_path, "photos") == mine[-1:]


def test_clean_cache(tmp_path, capsys):
    file(tmp_path / "resized" / "v2-16" / f"{NEW}.rgb", 2_000_000)
    file(tmp_path / "vocabulary" / f"{OLD}.safetensors", 3_000_000, hours_ago=1)
    assert clean_cache.main(["--cache-dir", str(tmp_path), "--dry-run"]) == 0
    assert f"{tmp_path}: 2 files, 0.01 GB" in capsys.readouterr().out
    assert clean_cache.main(["--cache-dir", str(tmp_path), "--keep-gb", "0.0025"]) == 0
    assert names(tmp_path) == [f"{NEW}.rgb"]
    assert clean_cache.main(["--cache-dir", str(tmp_path)]) == 0
    assert names(tmp_path) == []
    with pytest.raises(UserError, match="--cache-dir: expected a folder, found nothing there"):
        clean_cache.main(["--cache-dir", str(tmp_path / "none")])
    with pytest.raises(UserError, match="--keep-gb: expected 0 or more, found nan"):
        clean_cache.main(["--cache-dir", str(tmp_path), "--keep-gb", "nan"])
    with pytest.raises(UserError, match="expected images, found those of a cache"):
        list_images(tmp_path / "resized", "photos")
