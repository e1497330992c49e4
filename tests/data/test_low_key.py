"""Dark parts of well-lit photos."""

import numpy as np
import pytest
import torch

from data.low_key import LOW_KEY, SIDES, RandomLowKey, darkest_part, low_key_part


def with_dark_corner(side: float = 0.35) -> torch.Tensor:
    """A bright photo (3,60,80) whose lower right corner, `side` of its sides, is dark."""
    photo = torch.full((3, 60, 80), 0.8)
    photo[:, round(60 * (1 - side)) :, round(80 * (1 - side)) :] = 0.1
    return photo


def test_the_darkest_part_is_the_one_of_the_lowest_mean_of_all_windows():
    photo = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    part = darkest_part(photo, 0.5)
    means = photo.numpy().mean(axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(means, (6, 8)).mean(axis=(2, 3))
    assert part.shape == (3, 6, 8) and float(part.mean()) == pytest.approx(windows.min(), abs=1e-6)


def test_a_photo_is_low_key_by_its_parts_not_by_its_mean():
    assert low_key_part(with_dark_corner()) is not None and with_dark_corner().mean() > 2 * LOW_KEY
    assert low_key_part(torch.full((3, 60, 80), LOW_KEY + 0.01)) is None


def test_input_and_truth_are_one_dark_part_at_the_size_of_the_photo():
    torch.manual_seed(1)
    flip = lambda *images: tuple(image.flip(-1) for image in images)  # noqa: E731
    part, truth = RandomLowKey(flip)(with_dark_corner(SIDES[1]))
    assert torch.equal(part, truth) and part.shape == (3, 60, 80)
    torch.testing.assert_close(part.mean(), torch.tensor(0.1))


def test_the_extent_of_parts_is_drawn_from_torchs_generator():
    photo = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(2))

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return RandomLowKey()(photo)[0]

    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))


def test_smallest_photos_have_parts():
    assert darkest_part(torch.rand(3, 1, 1), 0.3).shape == (3, 1, 1)
