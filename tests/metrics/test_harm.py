"""Figures of harm on photos whose figures are known."""

import math

import numpy as np
import pytest

from metrics.harm import change, hue_error, newly_clipped


def flat(*colour: int) -> np.ndarray:
    return np.full((8, 8, 3), colour, np.uint8)


def test_only_what_was_not_white_before_is_newly_clipped():
    photo, result = flat(10, 20, 30), flat(255, 20, 30)
    photo[:2], result[4:] = 255, 200
    assert newly_clipped(photo, result) == pytest.approx(2 / 8)


def test_change_has_no_sign_and_no_overflow():
    assert change(flat(200, 200, 200), flat(149, 251, 200)) == pytest.approx(2 * 51 / 3 / 255)


def test_hues_are_compared_around_the_circle():
    red_to_yellow = flat(255, 10, 10), flat(255, 255, 10)
    assert hue_error(*red_to_yellow) == pytest.approx(60, abs=0.5)
    assert hue_error(flat(255, 0, 20), flat(255, 20, 0)) == pytest.approx(2 * 20 / 255 * 60, abs=0.1)  # across 0°
    assert math.isnan(hue_error(flat(9, 9, 9), flat(255, 0, 0)))
