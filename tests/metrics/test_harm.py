"""Figures of harm on photos whose figures are known."""

import math

import numpy as np
import pytest

from metrics.choice import STAY, VALIDATION, choose, exceeded
from metrics.harm import (
    change,
    changes,
    exposed,
    fall,
    hue_error,
    ladder,
    largest_jump,
    newly_clipped,
    noise_gain,
    probe,
    region_lift,
)
from metrics.scores import start_map
from tests.helpers import small_sample


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


def test_changes_are_summed_up():
    assert changes([0.01, 0.04, 0.1, 0.05]) == {"mean": 0.05, "largest": 0.1, "share_above_0.05": 0.25}


def test_a_stop_is_half_the_light():
    """18 % of the light is 0.4613 in sRGB, 9 % is 0.3319 (IEC 61966-2-1)."""
    assert exposed(np.full((1, 1, 3), 0.46135, np.float32), -1) == pytest.approx(0.3319, abs=1e-4)
    assert exposed(np.full((1, 1, 3), 0.9, np.float32), 1) == pytest.approx(1)


def test_a_ladder_leads_from_dark_to_the_photo_and_tells_steps_and_falls():
    photo = small_sample("coffee.png")
    untouched = ladder(lambda photo: photo, photo)
    assert len(untouched) == 30 and untouched[-1] == pytest.approx(photo.mean(), abs=1e-5)
    assert fall(untouched) == 0 and largest_jump(untouched) < 0.03
    stepped = ladder(lambda photo: photo if photo.mean() > 0.2 else photo + 0.25, photo)  # above the step, left alone
    assert fall(stepped) > 0.2 and largest_jump(stepped) > 0.2
    assert fall(ladder(start_map, photo)) > 0.05  # it lifts what lies just below its threshold above what lies beyond


def test_lift_is_measured_on_the_ground_and_change_on_the_sky():
    ground = np.zeros((4, 4), bool)
    ground[2:] = True
    truth = np.full((4, 4, 3), 0.8, np.float32)
    photo = np.where(ground[..., None], np.float32(0.2), truth)
    result = np.where(ground[..., None], np.float32(0.65), np.float32(0.7))
    assert region_lift(photo, result, truth, ground, ~ground) == pytest.approx((0.75, 0.1), abs=1e-6)
    assert math.isnan(region_lift(truth, truth, truth, ground, ~ground)[0])


def test_noise_grows_as_the_photo_is_multiplied():
    dark = np.full((32, 32, 3), 0.1, np.float32)
    assert noise_gain(lambda photo: photo * 3, dark) == pytest.approx(3, rel=1e-3)
    assert math.isnan(noise_gain(lambda photo: photo, dark + 0.5))


def test_probes_of_a_photo_that_stays_as_it_is():
    found = probe(lambda photo: photo, [small_sample("coffee.png")])
    assert found["region_lift"] == found["sky_change"] == found["fall"] == 0 and found["noise_gain"] == 1


def row(psnr: float, ssim: float, clipped: float = 0.0, dark: float = 0.0, other: float = 0.0) -> dict:
    stay = zip(STAY, (dark, other), strict=True)
    return {VALIDATION: {"psnr": psnr, "ssim": ssim, "clipped": clipped}} | {
        f"change, {part}": {"mean": mean, "largest": 2 * mean} for part, mean in stay
    }


def test_the_rule_takes_the_best_that_does_no_harm():
    rows = {"harmful": row(25, 0.9, dark=0.06), "clipping": row(24.5, 0.9, clipped=0.011), "second": row(23.98, 0.86)}
    rows |= {"first": row(24.0, 0.85), "third": row(23.9, 0.9)}
    assert choose(rows) == "second"  # as good as the first, and better by SSIM
    assert exceeded(rows["harmful"]) == [
        "mean of change, stay_dark 0.0600, limit 0.03",
        "largest of change, stay_dark 0.1200, limit 0.1",
    ]
    assert choose({"harmful": rows["harmful"]}) is None
