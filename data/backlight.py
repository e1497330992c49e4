"""Backlight simulator: a normal photo -> the same photo taken against the light.

Works in linear light, as a camera would: the foreground loses some stops of exposure, the rest
gains some and runs into a soft shoulder, sensor noise is added where it is dark. The pair (result,
photo) then serves for training without downloads, for validation and for measuring.

Shape letters: H height, W width. Photos are (3,H,W) RGB in [0, 1], sRGB encoded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data.augment import together

SHOULDER = 0.8  # linear value from which highlights are compressed instead of clipped


@dataclass(frozen=True, kw_only=True)
class BacklightRanges:
    """What the simulator draws uniformly for each photo, (low, high)."""

    foreground_stops: tuple[float, float] = (1.5, 3.5)  # exposure lost by the foreground, in stops (factors of 2)
    background_stops: tuple[float, float] = (0.0, 0.7)  # exposure gained by the rest, in stops
    foreground_share: tuple[float, float] = (0.6, 1.0)  # of the picture; 1: an evenly under-exposed photo
    noise: tuple[float, float] = (0.0, 0.0)  # standard deviation of read noise, of full scale; shot noise goes with it


class RandomBacklight:
    """A transform of well-lit photos (3,H,W), its randomness out of torch's global generator.

    Gives `simulate_backlight`'s photo, and the photo as it was, both under the same `augmentation`.
    untouched: share of the photos, in [0, 1], that stay as they are. even: share of the others that are all foreground.
    """

    def __init__(
        self,
        ranges: BacklightRanges,
        untouched: float = 0.0,
        augmentation: Callable[..., Any] | None = None,
        *,
        even: float = 0.0,
    ) -> None:
        self.ranges, self.untouched, self.augmentation, self.even = ranges, untouched, augmentation, even

    def __call__(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        keep = torch.rand((), generator=generator) < self.untouched
        ranges = self.ranges
        if self.even and torch.rand((), generator=generator) < self.even:
            ranges = replace(ranges, foreground_share=(1.0, 1.0))
        backlit = photo if keep else simulate_backlight(photo, generator, ranges).photo
        return together(self.augmentation, backlit, photo)


@dataclass(frozen=True)
class Relighting:
    """A change of light that leaves the content as it is: photo (3,H,W) in [0, 1], generator -> the same, relit.

    name: what it does, with its numbers; a cache key.
    """

    name: str
    apply: Callable[[Tensor, torch.Generator], Tensor]


def darkening(ranges: BacklightRanges) -> Relighting:
    """Well-lit photos as if taken against the light."""
    return Relighting(
        f"darkened v1 {ranges}", lambda photo, generator: simulate_backlight(photo, generator, ranges).photo
    )


def lifting(gamma: float) -> Relighting:
    """Backlit photos, lifted: I^(1/γ)."""
    return Relighting(f"lifted v1 {gamma}", lambda photo, _: photo ** (1 / gamma))


@dataclass(frozen=True)
class BacklitPhoto:
    """photo (3,H,W) in [0, 1]; mask (1,H,W) in [0, 1], 1 = foreground; parameters: what was drawn."""

    photo: Tensor
    mask: Tensor
    parameters: dict[str, float]


def simulate_backlight(
    photo: Tensor, generator: torch.Generator, ranges: BacklightRanges | None = None, mask: Tensor | None = None
) -> BacklitPhoto:
    """Relight one photo (3,H,W) RGB in [0, 1] as if taken against the light.

    mask: foreground (1,H,W) in [0, 1], for instance from a segmentation; None draws a smooth one.
    The same generator state gives the same result. Raises ValueError on other shapes.
    """
    if photo.ndim != 3 or photo.shape[0] != 3:
        raise ValueError(f"photo: expected (3, H, W), found {tuple(photo.shape)}")
    if mask is not None and mask.shape != (1, *photo.shape[1:]):
        raise ValueError(f"mask: expected {(1, *photo.shape[1:])}, found {tuple(mask.shape)}")
    ranges = ranges or BacklightRanges()
    names = ("foreground_stops", "background_stops", "foreground_share", "noise")
    drawn = {name: _uniform(getattr(ranges, name), generator) for name in names}
    if mask is None:
        mask = smooth_mask(photo, drawn["foreground_share"], generator)
    stops = drawn["background_stops"] * (1 - mask) - drawn["foreground_stops"] * mask
    linear = _compress_highlights(srgb_to_linear(photo) * torch.exp2(stops))
    if drawn["noise"] > 0:
        deviation = (
            drawn["noise"] ** 2 + drawn["noise"] * 0.02 * linear.clamp(min=0)
        ).sqrt()  # read noise, and shot noise ~ signal
        linear = linear + deviation * torch.randn(linear.shape, generator=generator)
    return BacklitPhoto(linear_to_srgb(linear.clamp(0, 1)), mask, drawn)


def smooth_mask(photo: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A random soft-edged foreground (1,H,W) in [0, 1] for a photo (3,H,W).

    It covers about `share` of the picture. Things stand on the ground and light comes from where the
    photo is bright, so the lower middle and darker regions are likelier to be foreground.
    """
    height, width = photo.shape[-2:]
    if share >= 0.999:
        return torch.ones(1, height, width)
    noise = F.interpolate(
        torch.randn(1, 1, 4, 4, generator=generator), (height, width), mode="bicubic", align_corners=True
    )[0]
    coarse = F.interpolate(photo.mean(dim=0)[None, None], (12, 12), mode="bilinear", antialias=True)
    brightness = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0]
    y = torch.linspace(-1, 1, height).view(1, -1, 1)
    x = torch.linspace(-1, 1, width).view(1, 1, -1)
    spread = brightness.std().nan_to_num().clamp(min=0.05)  # a single pixel has none
    field = 0.5 * noise + 1.5 * y - x.square() - 2.0 * (brightness - brightness.mean()) / spread
    ordered = field.flatten().sort().values
    threshold = ordered[int((1 - share) * (len(ordered) - 1))]
    return torch.sigmoid((field - threshold) * 5.0)


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """IEC 61966-2-1 decoding; any shape, values in [0, 1]."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055).clamp(min=0) ** 2.4)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 encoding; any shape, values in [0, 1]."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _compress_highlights(linear: Tensor) -> Tensor:
    over = (linear - SHOULDER).clamp(min=0) / (1 - SHOULDER)
    return torch.where(linear > SHOULDER, SHOULDER + (1 - SHOULDER) * (1 - torch.exp(-over)), linear)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * torch.rand((), generator=generator).item()
