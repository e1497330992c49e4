"""From photo and map to the result: the division, and what brightening brings to light with it.

The one stage that whole frames, tiles, lists, files and the web page share. Highlights: a channel that reaches white
before the others turns the hue. Noise: shadows are multiplied by the gain 1/M, their noise too. Banding: the steps of 8
bits become visible where the gain is large.

Shape letters: h, w of a part of a photo. Without PyTorch where photo and map are arrays.
"""

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from configs.choices import Denoise, Highlights

if TYPE_CHECKING:
    from torch import Tensor

SHOULDER = 0.8  # value from which highlights are compressed
DITHER_GAIN = 4.0  # gain above which steps are dithered; fully from 5
PATTERN = 128  # pixels, the side of the dither pattern


def one_of(name: str, value: object, known: tuple) -> None:
    """Raises ValueError for a choice that is none of those known."""
    if not any(value == one and (isinstance(value, type(one)) or hasattr(value, "__index__")) for one in known):
        raise ValueError(f"{name}: expected {', '.join(map(str, known))}, found {value}")


def at_least_one(name: str, value: object) -> int:
    """The value, if it is a whole number from 1 on. Raises ValueError for others."""
    if hasattr(value, "__index__") and not isinstance(value, bool) and operator.index(value) >= 1:
        return operator.index(value)
    raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")


@dataclass(frozen=True, kw_only=True)
class Finish:
    """How the result is finished.

    highlights: "clip" cuts each channel at 1, the published way; "hue" scales the three channels of a pixel so that
    the largest is 1, so its hue stays; "shoulder" compresses from `SHOULDER` on, so that differences in highlights
    stay too, and what was white is the only white. denoise: "off"; "auto", the shadows of 8-bit photos; "always", of
    deeper ones too. dither: noise of one step of 8 bits where the gain is above 4, against banding; each time the same.
    """

    highlights: Highlights = "clip"
    denoise: Denoise = "off"
    dither: bool = False

    def __post_init__(self) -> None:
        one_of("highlights", self.highlights, get_args(Highlights))
        one_of("denoise", self.denoise, get_args(Denoise))

    def denoises(self, dtype: np.dtype) -> bool:
        """Whether noise of a photo of this type is removed."""
        return self.denoise == "always" or (self.denoise == "auto" and dtype == np.uint8)

    def divided(
        self,
        images: "Tensor | np.ndarray",
        illumination: "Tensor | np.ndarray",
        strength: float,
        dtype: np.dtype,
        place: tuple[int, int] = (0, 0),
    ) -> np.ndarray:
        """Photo (1,3,h,w) in [0, 1] and map (1,1,h,w) -> the result (h,w,3), of a photo's type.

        place: row and column of this part in the photo.
        """
        from models.retinex import divide, enhance

        if not isinstance(illumination, np.ndarray):
            images = as_tensor(images).to(illumination.device)
        if self.highlights == "clip" and not self.dither:
            values = enhance(images, illumination**strength)
            if dtype == np.uint8 and not isinstance(values, np.ndarray) and values.device.type != "cpu":
                return array((values[0].permute(1, 2, 0) * 255).round().byte())  # a quarter of the bytes to bring back
            values = array(values)
        else:
            images, gain_map = array(images), array(illumination**strength)
            if self.dither and dtype == np.uint8:
                images = images + _dither(images, gain_map, place)
            values = divide(images, gain_map)
            if self.highlights == "hue":
                values = _hue_kept(values)
            elif self.highlights == "shoulder":
                values = _shouldered(values, gain_map)
            values = values.clip(0, 1)
        values = values[0].transpose(1, 2, 0)
        return values if dtype == np.float32 else np.rint(values * top(dtype)).astype(dtype)


PLAIN = Finish()


def unit(rgb: np.ndarray) -> np.ndarray:
    """Values of any type -> float32 in [0, 1]."""
    return rgb.astype(np.float32) / top(rgb.dtype)


def planes(rgb: np.ndarray) -> np.ndarray:
    """(h,w,3) of any type -> (1,3,h,w) float32 in [0, 1]."""
    return unit(rgb).transpose(2, 0, 1)[None]


def planes_on(device: str, rgb: np.ndarray) -> "Tensor":
    """`planes` on a GPU, from the bytes of the photo: a quarter of those of floats."""
    import torch

    values = rgb.astype(np.int32) if rgb.dtype == np.uint16 else np.require(rgb, requirements=["C", "W"])
    photo = torch.from_numpy(values).to(device).float() / torch.tensor(top(rgb.dtype), device=device)
    return photo.permute(2, 0, 1)[None]  # channels last, as convolutions are faster


def as_tensor(values: "Tensor | np.ndarray") -> "Tensor":
    import torch

    return torch.as_tensor(values)


def array(values: "Tensor | np.ndarray") -> np.ndarray:
    """On the CPU."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def top(dtype: np.dtype) -> np.float32:
    """The value that means 1."""
    return np.float32(1 if dtype == np.float32 else np.iinfo(dtype).max)


def _hue_kept(values: np.ndarray) -> np.ndarray:
    """(1,3,h,w) >= 0: where the largest channel is above 1, all three over it."""
    return values / np.maximum(values.max(axis=1, keepdims=True), 1)


def _shouldered(values: np.ndarray, gain_map: np.ndarray) -> np.ndarray:
    """(1,3,h,w) >= 0: the largest channel p goes from [t, 1/M] to [t, 1], the others with it; t = `SHOULDER`.

    x (1 + x / X²) / (1 + x) with x = (p - t) / (1 - t), and X that of white (Reinhard et al. 2002, equation 4): slope 1
    at t, white only what was white, and nothing at all where M is 1.
    """
    peak = values.max(axis=1, keepdims=True)
    x = np.maximum(peak - SHOULDER, 0) / (1 - SHOULDER)
    white = (1 / np.clip(gain_map, 1e-6, 1) - SHOULDER) / (1 - SHOULDER)
    compressed = SHOULDER + (1 - SHOULDER) * x * (1 + x / white**2) / (1 + x)
    return values * np.where((x > 0) & (gain_map < 1), compressed / np.maximum(peak, SHOULDER), np.float32(1))


def _dither(images: np.ndarray, gain_map: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """What is added to a photo (1,3,h,w) of 8 bits before it is divided: (1,3,h,w), up to half a step, mean 0.

    It has to be a step of the photo, not of the result: those are the steps that one sees. One value for the three
    channels of a pixel, so that grey stays grey. A channel of less than half a step gets as much less: nothing falls
    below 0, and the mean stays.
    """
    rows, columns = ((np.arange(n) + start) % PATTERN for n, start in zip(images.shape[2:], place, strict=True))
    order = np.random.default_rng(0).permutation(PATTERN * PATTERN).reshape(PATTERN, PATTERN)
    pattern = ((order + 0.5) / order.size - 0.5).astype(np.float32)[np.ix_(rows, columns)]  # every level once
    share = np.clip(1 / np.maximum(gain_map, 1e-6) - DITHER_GAIN, 0, 1)
    return pattern * share * np.minimum(images, np.float32(1 / 510)) * 2
