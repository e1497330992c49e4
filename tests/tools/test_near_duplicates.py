"""Photos of one scene are found whatever their exposure, and one that cannot be read does not stop the others."""

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from tools import near_duplicates


def test_an_unreadable_photo_is_named_and_the_others_compared(tmp_path, capsys):
    scenes = np.random.default_rng(0).integers(0, 200, (2, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    Image.fromarray(scenes[0]).save(tmp_path / "a" / "dark.png")
    Image.fromarray(scenes[0] + np.uint8(40)).save(tmp_path / "b" / "light.png")
    Image.fromarray(scenes[1]).save(tmp_path / "a" / "other.png")
    (tmp_path / "a" / "broken.jpg").write_text("no photo")
    unseen = tmp_path / "unseen.txt"
    assert near_duplicates.main([str(tmp_path / "a"), str(tmp_path / "b"), "--unseen", str(unseen)]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith(f"failed: {tmp_path / 'a' / 'broken.jpg'}: expected an image")
    assert "dark.png  light.png" in captured.out and "1 of 2 photos have a match among 1" in captured.out
    assert unseen.read_text() == "other.png\n"
    (tmp_path / "b" / "light.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"found none in .*/b$"):
        near_duplicates.main([str(tmp_path / "a"), str(tmp_path / "b")])


def test_a_file_that_is_no_list_of_photos_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(tmp_path / "a" / "x.png")
    notes, folder = tmp_path / "notes.txt", str(tmp_path / "a")
    notes.write_text("buy milk\n")
    with pytest.raises(UserError, match="--unseen: expected a new name or a list"):
        near_duplicates.main([folder, folder, "--unseen", str(notes)])
    assert notes.read_text() == "buy milk\n"
    notes.write_text("x.png\n")
    assert near_duplicates.main([folder, folder, "--unseen", str(notes)]) == 0
