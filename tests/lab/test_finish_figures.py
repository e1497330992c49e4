"""The figures of the finish on pictures made for them."""

import numpy as np
import pytest

from lab.finish import _cast, _most_changed, dithered_ramp


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
