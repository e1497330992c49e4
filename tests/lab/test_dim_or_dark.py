"""lab/dim_or_dark.py"""

import numpy as np
import pytest
import torch

from lab.dim_or_dark import MEANS, _darkened, auc


def test_auc_counts_pairs_in_order_and_only_those_that_are_alike():
    first, second = np.array([0.9, 0.1, 0.5]), np.array([0.4, 0.5])
    everything = np.ones((3, 2), bool)
    assert auc(first, second, everything) == pytest.approx((2 + 0 + 1.5) / 6, abs=1e-3)
    assert auc(first, second, np.array([[True, True], [False, False], [False, False]])) == 1.0


@pytest.mark.parametrize("mean", MEANS)
def test_photos_are_under_exposed_to_a_mean(mean):
    photo = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.3
    assert float(_darkened(photo, mean).mean()) == pytest.approx(mean, abs=0.01)
