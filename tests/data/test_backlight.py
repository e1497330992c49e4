"""The backlight simulator: exact where nothing is random, properties elsewhere."""

import numpy as np
import pytest
import torch

from data.augment import seeded, training_augmentation
from data.backlight import (
    BacklightRanges,
    RandomBacklight,
    darkening,
    lifting,
    linear_to_srgb,
    simulate_backlight,
    smooth_mask,
    srgb_to_linear,
)
from data.samples import make_quickstart_set


def fixed(stops: float, background: float = 0.0, noise: float = 0.0, share: float = 1.0) -> BacklightRanges:
    return BacklightRanges(
        foreground_stops=(stops, stops),
        background_stops=(background, background),
        noise=(noise, noise),
        foreground_share=(share, share),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_srgb_curves_are_inverse_and_standard():
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert torch.allclose(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-7)
    assert srgb_to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404, abs=1e-5)


def test_exposure_drop_is_exact_in_linear_light():
    photo = torch.rand(3, 20, 30, generator=generator())
    backlit = simulate_backlight(photo, generator(), fixed(2.0)).photo
    dark = srgb_to_linear(photo) < 0.8  # below the shoulder
    assert torch.allclose(srgb_to_linear(backlit)[dark], srgb_to_linear(photo)[dark] / 4, atol=1e-5)


def test_given_mask_leaves_the_background_alone():
    photo = torch.rand(3, 16, 16, generator=generator()) * 0.8
    mask = torch.zeros(1, 16, 16)
    mask[:, 8:] = 1
    result = simulate_backlight(photo, generator(), fixed(3.0), mask=mask)
    assert torch.allclose(result.photo[:, :8], photo[:, :8], atol=1e-5)
    assert (result.photo[:, 8:] < photo[:, 8:]).all()
    assert torch.equal(result.mask, mask)


def test_highlights_are_compressed_monotonically_and_never_clip_flat():
    grey = torch.linspace(0.1, 1, 200).expand(3, 1, 200)
    mask = torch.zeros(1, 1, 200)
    bright = simulate_backlight(grey, generator(), fixed(1.0, background=0.7), mask=mask).photo[0, 0]
    assert (bright.diff() > 0).all()
    assert bright.max() < 1


def test_same_seed_same_photo_and_noise_only_where_asked():
    photo = torch.rand(3, 24, 24, generator=generator())
    a, b, c = (simulate_backlight(photo, generator(s), BacklightRanges()) for s in (1, 1, 2))
    assert torch.equal(a.photo, b.photo)
    assert a.parameters == b.parameters != c.parameters
    noisy, clean = (simulate_backlight(photo, generator(1), fixed(2.0, noise=n)).photo for n in (0.02, 0.0))
    assert 0.001 < (srgb_to_linear(noisy) - srgb_to_linear(clean)).std() < 0.05
    assert noisy.min() >= 0
    assert noisy.max() <= 1


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_mask_covers_the_share_and_prefers_the_dark(share):
    photo = torch.zeros(3, 60, 80)
    photo[:, :, 40:] = 0.9
    mask = smooth_mask(photo, share, generator(3))
    assert mask.mean().item() == pytest.approx(share, abs=0.1)
    assert mask[..., :40].mean() > mask[..., 40:].mean()


def test_wrong_shapes_are_told():
    with pytest.raises(ValueError, match=r"expected \(3, H, W\)"):
        simulate_backlight(torch.rand(1, 8, 8), generator())
    with pytest.raises(ValueError, match="mask"):
        simulate_backlight(torch.rand(3, 8, 8), generator(), mask=torch.rand(1, 4, 4))


def test_quickstart_set_is_paired_disjoint_and_repeatable(tmp_path):
    first, second = make_quickstart_set(tmp_path / "a"), make_quickstart_set(tmp_path / "b")
    files = sorted(p.relative_to(first) for p in first.rglob("*.png"))
    assert [(first / f).read_bytes() for f in files] == [(second / f).read_bytes() for f in files]
    names = {
        kind: {p.name for p in (first / kind).iterdir()}
        for kind in ("held_out/backlit", "held_out/ground_truth", "train/backlit")
    }
    assert names["held_out/backlit"] == names["held_out/ground_truth"]
    assert not {n.rsplit("_", 1)[0] for n in names["held_out/backlit"]} & {
        n.rsplit("_", 1)[0] for n in names["train/backlit"]
    }
    stamp = (first / files[0]).stat().st_mtime_ns
    make_quickstart_set(first)
    assert (first / files[0]).stat().st_mtime_ns == stamp  # the second call finds it done
    (first / "quickstart.json").write_text("[" * 100_000)
    make_quickstart_set(first)
    assert (first / files[0]).stat().st_mtime_ns > stamp


def test_as_a_transform_it_draws_from_the_global_generator():
    photo = torch.rand(3, 16, 16, generator=generator())
    darken = RandomBacklight(BacklightRanges(foreground_stops=(1.0, 3.0)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        (first, lit), (second, _) = darken(photo), darken(photo)
        torch.manual_seed(5)
        assert torch.equal(darken(photo)[0], first)
    assert torch.equal(lit, photo)
    assert not torch.equal(first, second)
    assert first.mean() < photo.mean()
    mostly = RandomBacklight(BacklightRanges(foreground_stops=(1.0, 3.0)), untouched=0.7)
    assert 0.5 < np.mean([torch.equal(*mostly(photo)) for _ in range(100)]) < 0.9


def test_both_lights_of_a_photo_are_augmented_alike():
    photo = torch.rand(3, 16, 16, generator=generator())
    untouched = RandomBacklight(BacklightRanges(), untouched=1.0, augmentation=training_augmentation())
    pairs = [seeded(untouched, seed, photo) for seed in range(8)]
    assert all(torch.equal(*pair) for pair in pairs)
    assert sum(torch.equal(pair[0], photo) for pair in pairs) < 4  # augmented, not only kept


def test_relightings_change_the_light_of_a_photo_alone():
    photo = torch.rand(3, 16, 16, generator=generator())
    dark = darkening(fixed(2.0))
    assert torch.allclose(dark.apply(photo, generator()), simulate_backlight(photo, generator(), fixed(2.0)).photo)
    assert torch.allclose(lifting(2.0).apply(photo, generator()), photo.sqrt())
    assert dark.name != darkening(fixed(3.0)).name
    assert lifting(2.0).name != lifting(2.2).name
