"""The figures of the finish on pictures made for them."""

import numpy as np
import pytest
from PIL import Image

from lab.finish import CROP, _blotches, _cast, _most_changed, _save, dithered_ramp


def test_dither_hides_contours_and_keeps_the_mean():
    found = dithered_ramp()
    assert found["run_off"] == 64 and found["run_on"] < 10
    assert found["mean_on"] == pytest.approx(found["mean_off"], abs=0.05)


def test_a_cast_is_measured_in_the_shadows():
    photo = np.full((20, 20, 3), 100, np.uint8)
    photo[:10] = 20
    truth, result = photo.copy(), photo.copy()
    result[:10, :, 0] += 51  # a fifth of full scale
    shadows, elsewhere = _cast(photo, result, truth)
    assert shadows == pytest.approx(0.2 * np.hypot(1 - 0.299, -0.299), rel=1e-3) and elsewhere == 0


def test_the_crop_is_where_most_changes():
    before = np.zeros((400, 400, 3), np.uint8)
    after = before.copy()
    after[200:, 200:] = 9
    assert _most_changed(before, after) == (200, 200)


def test_blotches_are_jumps_at_the_edges_of_blocks_in_the_shadows():
    ramp = np.repeat(np.arange(64.0)[:, None, None], 64, axis=1) * np.ones(2)
    shade = np.ones((64, 64), bool)
    assert _blotches(ramp, shade) == pytest.approx(0)
    blocks = np.zeros((64, 64, 2))
    blocks[16:32] = 4
    assert _blotches(blocks, shade) == pytest.approx(4 * 2 / 3 / 2)  # two of three edges, in one direction of two
    shade[:40] = False
    assert _blotches(blocks, shade) == pytest.approx(0)


def test_crops_keep_their_pixels_under_titles(tmp_path):
    """Each crop is as it was, and something is drawn above it, other for each title."""
    images = {name: np.full((300, 300, 3), value, np.uint8) for name, value in (("before", 40), ("after", 160))}
    images["after"][100, 100] = 7
    _save(tmp_path / "a.png", images, (90, 95))
    found = np.asarray(Image.open(tmp_path / "a.png"))
    (top, left), head = (24, 6), 24
    crops = [found[top : top + CROP, left + n * (CROP + 6) :][:, :CROP] for n in range(2)]
    assert [crop[50, 50].tolist() for crop in crops] == [[40] * 3, [160] * 3]
    assert np.argwhere((crops[1] == 7).all(axis=2)).tolist() == [[10, 5]]
    titles = [found[:head, left + n * (CROP + 6) :][:, :CROP] for n in range(2)]
    assert all(title.min() == 0 for title in titles) and not np.array_equal(*titles)
