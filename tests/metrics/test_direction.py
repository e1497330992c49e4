"""What a direction is worth and means: separation, stability, nearest tokens."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.residual import residual_guidance
from metrics.direction import (
    ALIKE,
    Vocabulary,
    agreement,
    auc,
    bootstrap_cosines,
    held_out_auc,
    noise,
    photos_needed,
    word_kind,
)


def build(well_lit, backlit):
    return residual_guidance(well_lit, backlit).vector


@pytest.fixture
def photos():
    """Two clouds of unit vectors, 40 and 50, a noisy step apart."""
    generator = torch.Generator().manual_seed(0)
    step = torch.zeros(12)
    step[0] = 1
    return tuple(
        F.normalize(torch.randn(count, 12, generator=generator) + sign * 2 * step, dim=1)
        for count, sign in ((40, 1), (50, -1))
    )


def test_auc():
    assert auc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1
    assert auc(torch.tensor([0.0]), torch.tensor([1.0])) == 0
    assert auc(torch.ones(3), torch.ones(5)) == 0.5
    assert auc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.0])) == 0.75
    with pytest.raises(ValueError, match="at least one"):
        auc(torch.ones(0), torch.ones(1))


def test_separation_on_photos_that_made_the_direction_is_no_better_than_real(photos):
    generator = torch.Generator().manual_seed(1)
    noise = [F.normalize(torch.randn(30, 200, generator=generator), dim=1) for _ in range(2)]  # nothing to find
    vector = build(*noise)
    assert auc(noise[0] @ vector, noise[1] @ vector) > 0.95  # on its own photos noise separates
    assert abs(held_out_auc(build, *noise, repeats=20, seed=0) - 0.5) < 0.1
    assert held_out_auc(build, *photos, repeats=5, seed=0) > 0.9


def test_stability_is_seeded_and_grows_with_photos(photos):
    cosines = bootstrap_cosines(build, *photos, repeats=20, seed=3)
    assert torch.equal(cosines, bootstrap_cosines(build, *photos, repeats=20, seed=3))
    assert ((cosines > 0.7) & (cosines < 1)).all()
    curve = agreement(build, *photos, [2, 8, 20, 21, 64], repeats=20, seed=0)
    assert list(curve) == [2, 8, 20]  # two disjoint samples of 21 do not fit in 40 photos
    assert curve[2] < curve[8] < curve[20]


def test_photos_needed():
    assert photos_needed({4: 0.5, 8: 0.96, 16: 0.99}) == 8
    assert photos_needed({4: 0.5}) == 76  # noise of a mean: cosine k / (k + 4)
    assert photos_needed({4: 0.0}) is None
    assert photos_needed({}) is None


def test_tokens_that_embed_alike_are_one_and_pieces_are_told_from_words():
    a, b, nothing = F.normalize(torch.tensor([[1.0, 0.1, 0.2], [0.5, 1.0, -0.3], [-1.0, 0.2, 0.1]]), dim=1)
    unknown = [f"word{i}" for i in range(ALIKE)]
    vocabulary = Vocabulary(
        ["brig", "Sunny", "sunny", "horse", *unknown],
        [False, True, True, True, *[True] * ALIKE],
        torch.stack([a, a, a, b, *[nothing] * ALIKE]),
    )
    found = vocabulary.nearest(a, 10)
    assert [(token.text, token.kind, token.alike) for token in found] == [
        ("sunny", "light", 3),
        ("horse", "content", 1),
        ("word0", "unknown", ALIKE),
    ]
    assert found[0].cosine == pytest.approx(1)
    assert vocabulary.nearest(a, 1, farthest=True)[0].kind == "unknown"
    assert [token.text for token in vocabulary.nearest(a, 10, whole_words=True, farthest=True)] == ["horse", "sunny"]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("brightness", "light"),
        ("Backlit", "light"),
        ("sunlight", "light"),
        ("hazy", "light"),
        ("the", "filler"),
        ("photo", "filler"),
        ("too bright", "light"),
        ("strongly under-exposed", "light"),
        ("with a dark foreground", "light"),
        ("a good photo", "filler"),
        ("dark beach", "content"),
    ]
    + [(word, "content") for word in ("beach", "sunday", "mistake", "politics", "dimension", "blue", "textured")],
)
def test_words_about_light_are_told_from_content(word, kind):
    assert word_kind(word) == kind


@given(seed=st.integers(0, 2**31 - 1), size=st.integers(16, 2048), shared=st.integers(16, 2048), farthest=st.booleans())
@settings(max_examples=50, deadline=None)
def test_words_are_content_only_above_the_noise_of_random_directions(seed, size, shared, farthest):
    """Also where the words' space (shared) is a part of the direction's."""
    generator = torch.Generator().manual_seed(seed)
    shared = min(size, shared)
    words = F.normalize(torch.randn(40, shared, generator=generator), dim=1)
    vector = F.normalize(torch.randn(size, generator=generator), dim=0)
    names = [f"xq{a}{b}zzz" for a in "bcdfhjkq" for b in "aeiou"]
    vocabulary = Vocabulary(names, [True] * 40, words)
    level = noise(size)
    for token in vocabulary.nearest(vector, 40, farthest=farthest, floor=level):
        signed = -token.cosine if farthest else token.cosine
        assert token.kind == ("content" if signed > level else "faint")
    assert all(token.kind == "content" for token in vocabulary.nearest(vector, 40, farthest=farthest))


@pytest.mark.parametrize("size", [64, 512, 1808])
def test_hardly_a_random_direction_is_above_the_noise(size):
    generator = torch.Generator().manual_seed(0)
    cosines = F.normalize(torch.randn(5000, size, generator=generator), dim=1)[:, 0]
    assert 0.0003 < (cosines.abs() > noise(size)).float().mean() < 0.006  # 0.27 % of a normal distribution
    assert float(cosines.std()) == pytest.approx(noise(size) / 3, rel=0.05)
