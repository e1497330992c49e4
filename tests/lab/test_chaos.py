"""The attacks themselves: they are repeatable, and what they count is what happened."""

import sys

import pytest

from lab.chaos import attacks, damaged_files, damaged_photos
from lab.chaos.harness import Failure, Row, _watch, attack_many
from lab.chaos.table import ATTACKS


def test_an_attack_is_a_function_of_its_seed(tmp_path):
    for seed in range(12):
        assert damaged_photos.image(seed, tmp_path) == damaged_photos.image(seed, tmp_path)


@pytest.mark.parametrize("name", ["images", "tiff_tags", "states", "pickles"])
def test_a_few_of_each_are_survived(tmp_path, name):
    attack, prepare = attacks.ATTACKS[name]
    prepare(tmp_path)
    for seed in range(8):
        attack(1000 + seed, tmp_path)


def fake(code: str, row: Row, todo: range, limit: float = 0.3) -> range:
    import subprocess

    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return _watch(process, row, todo, limit)


def test_crashes_and_hangs_are_counted_and_the_rest_goes_on():
    row = Row()
    good = 'print(\'{"seed": 0, "verdict": "survived", "what": "read"}\', flush=True); '
    assert fake(good + "import os; os._exit(7)", row, range(5)) == range(2, 5)
    assert fake(good + "import time; time.sleep(9)", row, range(2, 5)) == range(4, 5)
    bad = 'print(\'{"seed": 4, "verdict": "lost", "what": "other content"}\', flush=True)'
    assert not fake(bad, row, range(4, 5))
    assert (row.injected, row.survived, row.crashed, row.hung, row.lost) == (5, 2, 1, 1, 1)
    assert row.outcomes == {"read": 2}
    assert row.examples[0] == "crashed: seed 1: the process ended with code 7"


def test_every_attack_has_its_words_in_the_table():
    from lab.chaos.__main__ import FILES, RUNS

    assert sorted([*FILES, *RUNS]) == sorted(ATTACKS)


def test_a_wrong_content_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(damaged_files, "_checksums", lambda: {"another"})
    with pytest.raises(Failure, match="went on with another content"):
        for seed in range(0, 20, 2):
            damaged_files.state(seed, tmp_path)


@pytest.mark.slow
def test_workers_count_what_they_attack(tmp_path):
    row = attack_many("tiff_tags", range(20), tmp_path, 10.0)
    assert row.injected == row.survived == 20
