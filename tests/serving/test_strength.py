"""The strength that a photo or a scene decides."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from data.images import read_photo
from metrics.harm import exposed
from serving.jobs import plan_outputs
from serving.pipeline import Options, enhance_files
from serving.strength import FULL, MOST, NONE, auto_strength, mean_light, of_scenes, shared
from tests.serving.helpers import noise


def test_auto_falls_smoothly_from_dark_to_well_lit():
    light = np.linspace(0, 0.5, 501)
    found = [auto_strength(value) for value in light]
    assert found[0] == auto_strength(FULL) == 1 and found[-1] == auto_strength(NONE) == 0
    steps = [after - before for before, after in pairwise(found)]
    assert max(steps) <= 0 and min(steps) > -0.02 and np.abs(np.diff(steps)).max() < 0.001


def test_a_bright_sky_does_not_make_up_for_dark_ground():
    photo = np.full((10, 10, 3), 20, np.uint8)
    photo[:4] = 255
    assert mean_light(photo) == pytest.approx(0.4 * 0.5 + 0.6 * 20 / 255)
    assert mean_light(photo.astype(np.uint16) * 257) == pytest.approx(mean_light(photo))


def test_auto_leaves_well_lit_photos_and_lifts_dark_ones(enhancer):
    bright, dark = (noise(24, 20) * top for top in (1.0, 0.2))
    assert np.array_equal(enhancer(bright, "auto"), bright)
    assert np.array_equal(enhancer(dark, "auto"), enhancer(dark))
    for other in (enhancer([bright, dark], "auto"), [enhancer.enhance(photo, "auto")[0] for photo in (bright, dark)]):
        assert np.array_equal(other[0], bright) and np.array_equal(other[1], enhancer(dark))
    with pytest.raises(ValueError, match="strength: expected a number or 'auto', found 'much'"):
        enhancer(dark, "much")


def test_photos_of_a_scene_are_brightened_by_the_same_stops():
    stops = [1.0, 1.2, 0.9, 0.0, 0.1]
    found = shared(1.0, [0.1] * 5, stops)
    assert [power * own for power, own in zip(found[:3], stops, strict=False)] == pytest.approx([0.9] * 3)
    assert found[3] == 1 and found[4] == MOST  # what the network does not brighten cannot follow
    assert shared("auto", [0.1, 0.1, 0.5], [1.0, 1.0, 1.0]) == [1, 1, 1]  # most are dark: one decision
    assert shared("auto", [0.5, 0.5, 0.1], [1.0, 1.0, 1.0]) == [0, 0, 0]


def test_a_series_does_not_flicker(enhancer, tmp_path):
    """Frames whose exposure drifts: of each folder all are brightened by the same number of stops, over all bits."""
    for folder, top in (("dusk", 0.25), ("noon", 1.0)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for number in range(4):
            frame = exposed(noise(48, 40) * np.float32(top), -0.1 * number)
            Image.fromarray(np.rint(frame * 255).astype(np.uint8)).save(tmp_path / "in" / folder / f"{number}.png")
    (tmp_path / "in" / "dusk" / "bad.png").write_text("no photo")
    jobs = plan_outputs([tmp_path / "in"], tmp_path / "out")
    strengths = of_scenes(jobs, enhancer, "auto")
    assert len(strengths) == 8
    lifts = {}
    for path, power in strengths.items():
        illumination = enhancer.illumination(read_photo(path, integers=True).rgb)
        lifts.setdefault(path.parent.name, []).append(-power * np.log2(illumination).mean())
    assert np.ptp(lifts["dusk"]) < 1e-4 and min(lifts["dusk"]) > 0.3 and lifts["noon"] == [0] * 4
    outcome = enhance_files(jobs[:3], enhancer, Options(strength="auto", same_for="folder"), scenes=jobs)
    assert outcome.enhanced == 3 and not outcome.failures
    for job in jobs[:3]:
        result, _ = enhancer.enhance(read_photo(job.source, integers=True).rgb, strengths[job.source])
        assert np.array_equal(read_photo(job.target, integers=True).rgb, result)
