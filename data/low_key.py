"""Low-key photos: dark parts of photos that were exposed as they should be. What is dark on purpose must stay dark.

Shape letters: H height, W width. Photos are (3,H,W) RGB in [0, 1], sRGB encoded.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data.augment import together

LOW_KEY = 0.24  # a photo has a low-key part where its darkest part of `SIDES[0]` times its sides has a mean below this
SIDES = (0.3, 0.6)  # range of a part's sides, of the photo's; larger parts may be brighter than `LOW_KEY`


class RandomLowKey:
    """A transform of well-lit photos (3,H,W); random numbers come from torch's global generator.

    Returns input and truth, both the darkest part of a random extent, resized to (3,H,W), under one `augmentation`.
    """

    def __init__(self, augmentation: Callable[..., Any] | None = None) -> None:
        self.augmentation = augmentation

    def __call__(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        low, high = SIDES
        part = darkest_part(photo, low + (high - low) * float(torch.rand(())))
        part = F.interpolate(part[None], photo.shape[1:], mode="bilinear", align_corners=False)[0]
        return together(self.augmentation, part, part)


def darkest_part(photo: Tensor, sides: float) -> Tensor:
    """The part of the lowest mean, of `sides` times the photo's: (3,H,W) -> (3,h,w), a view."""
    height, width = (max(1, round(sides * side)) for side in photo.shape[1:])
    sums = F.pad(photo.mean(dim=0).double().cumsum(0).cumsum(1), (1, 0, 1, 0))  # over all rows and columns before
    rows = sums[height:] - sums[:-height]
    windows = rows[:, width:] - rows[:, :-width]
    top, left = divmod(int(windows.argmin()), windows.shape[1])
    return photo[:, top : top + height, left : left + width]


def low_key_part(photo: Tensor) -> Tensor | None:
    """The darkest part, of `SIDES[0]` times the photo's sides, where it is low key: (3,H,W) -> (3,h,w), a view."""
    part = darkest_part(photo, SIDES[0])
    return part if part.mean() < LOW_KEY else None
