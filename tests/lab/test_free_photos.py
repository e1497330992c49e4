"""Photos for weights of free terms: what they come from is free, and crops stay inside them."""

import numpy as np
import pytest
from PIL import Image

from lab.free_photos import crops, fetched, main, sources

FREE = {"public domain", "CC0 1.0", "CC BY 4.0", "CC BY-SA 3.0", "CC BY-SA 4.0"}


def test_every_photo_has_a_maker_and_free_terms() -> None:
    for row in sources():
        assert row["maker"] and row["licence"] in FREE, row


def test_photos_of_scikit_image_are_there(tmp_path) -> None:
    rows = [row for row in sources() if row["package"] == "scikit-image"]
    assert rows and all((fetched("scikit-image", tmp_path) / row["path"]).is_file() for row in rows)


def test_crops_show_the_photo_at_the_size_asked_for() -> None:
    ramp = np.linspace(40, 200, 300, dtype=np.uint8)  # brightness tells where a crop lies
    photo = Image.fromarray(np.broadcast_to(ramp[None, :, None], (200, 300, 3)).copy())
    for crop in crops(photo, 5, 64, np.random.default_rng(0)):
        assert min(crop.size) == 64 and crop.size[0] / crop.size[1] == pytest.approx(1.5, abs=0.03)
        columns = np.asarray(crop)[..., 0].mean(0)
        assert (np.diff(columns) >= 0).all() and 0.35 < (columns[-1] - columns[0]) / 160 <= 1


def test_a_package_that_cannot_be_fetched_is_named(tmp_path, monkeypatch, capsys) -> None:
    from common.cli import exit_code

    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get here
    assert exit_code(main, ["--out", str(tmp_path / "out")]) == 2
    assert "lomiri-wallpapers-16.04" in capsys.readouterr().err
