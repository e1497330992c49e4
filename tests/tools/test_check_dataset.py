"""tools/check_dataset.py: each fault that spoils a training has its verdict, and a good set has none."""

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from tools import check_dataset, near_duplicates


def scene(number: int, light: float, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Pictures of one number show one scene."""
    coarse = np.random.default_rng(number).random((6, 5, 3)) * 255 * light
    return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folders(tmp_path):
    """Backlit photos 0 to 3, their ground truths, other well-lit photos 10 to 13, test photos 20 and 21."""
    for name, numbers, light in (
        ("backlit", range(4), 0.2),
        ("gt", range(4), 0.9),
        ("welllit", range(10, 14), 0.9),
        ("test", (20, 21), 0.2),
    ):
        (tmp_path / name).mkdir()
        for number in numbers:
            scene(number, light).save(tmp_path / name / f"{number}.png")
    return tmp_path


def verdicts(folders, capsys, *keys: str, code: int) -> str:
    names = {"--backlit": "backlit", "--gt": "gt", "--well-lit": "welllit", "--test": "test"}
    arguments = [part for key in ("--backlit", *keys) for part in (key, str(folders / names[key]))]
    assert check_dataset.main([*arguments, "--image-size", "32"]) == code
    return capsys.readouterr().out


def test_a_good_set_has_no_bad_verdict(folders, capsys):
    shown = verdicts(folders, capsys, "--gt", "--well-lit", "--test", code=0)
    assert "bad" not in shown and "warn" not in shown
    assert "ok   --backlit  4 photos, 48×40 to 48×40" in shown
    assert "ok   pairs      4 pairs by name" in shown
    assert "ok   test       no scene of the 2 test photos is in --backlit" in shown


def test_faults_of_pairs(folders, capsys):
    (folders / "gt/0.png").unlink()
    scene(1, 0.9, (24, 20)).save(folders / "gt/1.png")
    scene(7, 0.9).save(folders / "gt/2.png")
    scene(3, 0.9).save(folders / "gt/3.jpg")
    shown = verdicts(folders, capsys, "--gt", code=3)
    assert "bad  pairs      1 backlit photos without a ground truth, such as 0.png" in shown
    assert "bad  pairs      1 backlit photos with several ground truths, such as 3.png" in shown
    assert "bad  pairs      1 pairs of two sizes, such as 1.png" in shown
    assert "warn pairs      1 pairs that hardly show one scene, such as 2.png" in shown
    assert "warn --gt       1 smaller than the 32 px of training: 1.png" in shown


def test_exchanged_folders_shared_photos_and_leaks(folders, capsys):
    (folders / "backlit").rename(folders / "kept")
    (folders / "welllit").rename(folders / "backlit")
    (folders / "kept").rename(folders / "welllit")
    scene(20, 0.9).save(folders / "backlit/x.png")  # a test scene at another exposure
    (folders / "welllit/y.png").write_bytes((folders / "backlit/10.png").read_bytes())
    shown = verdicts(folders, capsys, "--well-lit", "--test", code=3)
    assert "are the folders exchanged?" in shown
    assert "1 photos are in both folders, byte for byte, such as 10.png" in shown
    assert "bad  test       1 of 2 test photos are in --backlit, such as 20.png as x.png" in shown


def test_names_duplicates_and_what_cannot_be_read(folders, capsys):
    backlit = folders / "backlit"
    (backlit / "again.png").write_bytes((backlit / "1.png").read_bytes())
    scene(4, 0.2).save(backlit / "A.png")
    scene(5, 0.2).save(backlit / "a.png")
    scene(6, 0.2, (200, 40)).save(backlit / "panorama.png")
    (backlit / "broken.jpg").write_bytes(b"no photo")
    shown = verdicts(folders, capsys, code=3)
    assert "bad  --backlit  1 photos cannot be read, such as broken.jpg" in shown
    assert "names that are one on macOS and Windows: A.png, a.png" in shown
    assert "1 photos are there twice, byte for byte: 1.png = again.png" in shown
    assert "1 longer than 3:1, and squashed to a square: panorama.png" in shown


def test_mistakes_are_one_line(folders, tmp_path):
    with pytest.raises(UserError, match="--backlit: expected a folder, found nothing there"):
        check_dataset.main(["--backlit", str(tmp_path / "none")])
    with pytest.raises(UserError, match="--image-size: expected at least 1, found 0"):
        check_dataset.main(["--backlit", str(folders / "backlit"), "--image-size", "0"])


def test_near_duplicates_names_the_unseen(folders, capsys):
    scene(20, 0.9).save(folders / "backlit/x.png")
    out = folders / "unseen.txt"
    assert near_duplicates.main([str(folders / "test"), str(folders / "backlit"), "--unseen", str(out)]) == 0
    assert out.read_text() == "21.png\n"
    assert "20.png  x.png" in capsys.readouterr().out
