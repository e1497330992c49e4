"""Short trainings give the losses that were recorded: a change that should not alter what is learned does not."""

import json

import pytest

from tests.golden.training_losses import FILE, MODES, log_of, make_photos


@pytest.mark.parametrize("mode", MODES)
def test_losses_are_those_recorded(mode, tmp_path):
    make_photos(tmp_path)
    found, recorded = log_of(mode, tmp_path), json.loads(FILE.read_text(encoding="utf-8"))[mode]
    for line, expected in zip(found, recorded, strict=True):
        assert line["phase"] == expected.pop("phase")
        known = {name: line.get(name) for name in expected}
        assert known == pytest.approx(expected, rel=1e-3, abs=1e-5)  # other processors round otherwise
