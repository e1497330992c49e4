"""common/sequences.py"""

import itertools

import pytest

from common.sequences import evenly


@pytest.mark.parametrize(("length", "count"), [(0, 4), (1, 4), (7, 1), (41, 40), (58, 40), (13, 6), (26, 4), (5, 5)])
def test_evenly_gives_as_many_as_asked_for(length, count):
    items = list(range(length))
    chosen = evenly(items, count)
    assert len(chosen) == min(length, count) and chosen == sorted(set(chosen))
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (0, length - 1)
        gaps = {b - a for a, b in itertools.pairwise(chosen)}
        assert max(gaps) - min(gaps) <= 1
