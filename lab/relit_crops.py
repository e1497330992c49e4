"""Crops of photos, relit by known amounts, and how far words of light and looks hold for them, for
`lab.train_mini_clip`.

Shape letters: B crops, V values of light and looks, P and S sides in pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.backlight import linear_to_srgb, smooth_mask, srgb_to_linear
from lab.captions import LIGHT, VALUES

# how a crop is made, and how often; "real" and "lifted" are crops of the backlit folder
KINDS = {"normal": 0.2, "shifted": 0.26, "against light": 0.17, "flattened": 0.1, "real": 0.15, "lifted": 0.12}
HUES = {  # degrees
    "red": (-15, 15),
    "orange": (15, 45),
    "yellow": (45, 70),
    "green": (70, 165),
    "blue": (165, 260),
    "purple": (260, 345),
}


@dataclass(frozen=True)
class RelitCrops:
    """images (B,3,S,S) in [0, 1]; truth (B,V) in [0, 1], how far each of `VALUES` holds; stops (B,2), mean exposure
    shift and distance from good light (<= 0); known (B,) bool, whether the stops are known.
    """

    images: Tensor
    truth: Tensor
    stops: Tensor
    known: Tensor


def draw_crops(well_lit: list[Tensor], backlit: list[Tensor], size: int, generator: torch.Generator, side: int):
    """Crops (B,3,S,S) of photos (3,P,P) as they are, and the kind of each."""
    drawn = torch.multinomial(torch.tensor(list(KINDS.values())), size, replacement=True, generator=generator).tolist()
    kinds = [list(KINDS)[k] for k in drawn]
    crops = [_crop(backlit if kind in ("real", "lifted") else well_lit, side, generator) for kind in kinds]
    return torch.stack(crops), kinds


def relight(crops: Tensor, kinds: list[str], generator: torch.Generator) -> RelitCrops:
    """Crops (B,3,S,S) in [0, 1], changed as their kinds say, some blurred, tinted or noisy; what is true of them."""
    size, side = len(crops), crops.shape[-1]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    kind = {name: torch.tensor([k == name for k in kinds]) for name in KINDS}
    blurred = uniform(0, 1) < 0.15
    changed, masks = [], []
    for crop, k, blur in zip(crops, kinds, blurred, strict=True):
        crop = _flatten(crop, generator) if k == "flattened" else crop
        if blur:
            coarse = int(torch.randint(side // 5, side // 2, (), generator=generator))
            crop = _resize(_resize(crop, coarse), side)
        share = float(0.35 + 0.5 * torch.rand((), generator=generator))
        masks.append(smooth_mask(crop, share, generator) if k == "against light" else torch.zeros(1, side, side))
        changed.append(crop)
    crops, masks = torch.stack(changed), torch.stack(masks)
    linear = srgb_to_linear(crops)

    # nearly as many too bright as too dark
    base = torch.where(uniform(0, 1) < 0.45, uniform(0.2, 3.5), uniform(-4.5, 0.0))
    base = torch.where(kind["shifted"], base, uniform(-0.2, 0.2))
    base = torch.where(kind["against light"], uniform(-0.5, 0.7), base)
    to_mean = (uniform(-3, -0.3).exp2() / linear.mean(dim=(1, 2, 3)).clamp(min=1e-3)).log2()
    base = torch.where(kind["lifted"], to_mean, base)
    base = torch.where(kind["real"], torch.zeros(size), base)
    front = torch.where(kind["against light"], uniform(1.0, 4.0), torch.zeros(size))
    stops = base.view(-1, 1, 1, 1) - front.view(-1, 1, 1, 1) * masks
    tint = torch.where(uniform(0, 1) < 0.25, uniform(-0.6, 0.6), uniform(-0.05, 0.05))
    tint = torch.where(kind["real"], torch.zeros(size), tint)  # as they are
    gains = torch.exp2(torch.stack([tint, torch.zeros(size), -tint], dim=1))[..., None, None]
    noise = torch.where(uniform(0, 1) < 0.25, uniform(0.0, 0.1), torch.zeros(size))
    images = linear_to_srgb((linear * gains * torch.exp2(stops)).clamp(0, 1))
    images = (images + noise.view(-1, 1, 1, 1) * torch.randn(images.shape, generator=generator)).clamp(0, 1)

    mean = stops.mean(dim=(1, 2, 3))
    truth = light_truth(mean, front, kind["flattened"].float())
    real = kind["real"] | kind["lifted"]
    measured = measured_light_truth(images)
    truth = {name: torch.where(real, measured[name], truth[name]) for name in LIGHT} | colour_truth(crops)
    truth |= {"flattened": kind["flattened"].float(), "blurry": blurred.float(), "sharp": 1 - blurred.float()}
    truth |= {"warm": _ramp(tint, 0.1, 0.3), "cold": _ramp(-tint, 0.1, 0.3)}
    truth |= {"noisy": _ramp(noise, 0.01, 0.03), "clean": 1 - _ramp(noise, 0.01, 0.03)}
    # linear readouts of a unit vector: over-exposure must lead away from good light as darkness does, so that RAVE's r
    # does not reward it
    distance = -torch.maximum(-mean, 3 * mean) - 0.5 * front - 3 * kind["flattened"]
    truth = torch.stack([truth[name] for name in VALUES], dim=1)
    return RelitCrops(images, truth, torch.stack([mean, distance], dim=1), ~real)


def light_truth(stops: Tensor, front: Tensor, flattened: Tensor) -> dict[str, Tensor]:
    """How far each value of `LIGHT` holds, in [0, 1], for a mean shift and a foreground darkening in stops (B,)."""
    dark, over, against = _ramp(-stops, 0.4, 1.2), _ramp(stops, 0.4, 1.0), _ramp(front, 0.5, 1.5)
    well = 1 - torch.stack([dark, over, against, flattened]).amax(dim=0)
    # the photos that the field calls backlit are often dark all over: for such crops neither true nor false
    backlit, very_dark = torch.maximum(against, 0.5 * dark), _ramp(-stops, 1.8, 2.8)
    return dict(zip(LIGHT, (backlit, dark, very_dark, well, 1 - well, over), strict=True))


def measured_light_truth(images: Tensor) -> dict[str, Tensor]:
    """The same for crops (B,3,S,S) of the backlit folder, whose exposure is not known but can be measured."""
    luminance = srgb_to_linear(images).mean(dim=1).flatten(1)
    stops = (luminance.mean(dim=1).clamp(min=1e-4) / 0.18).log2()  # 0.18: what a light meter takes for normal
    clipped, black = (luminance > 0.9).float().mean(dim=1), (luminance < 0.01).float().mean(dim=1)
    over = _ramp(clipped, 0.2, 0.4)
    well = (1 - _ramp(-stops, 0.5, 1.2)) * (1 - _ramp(clipped, 0.05, 0.2)) * (1 - _ramp(black, 0.05, 0.2))
    dark, very_dark = _ramp(-stops, 0.6, 1.4), _ramp(-stops, 2.0, 3.0)
    return dict(zip(LIGHT, (torch.minimum(1 - well, 1 - over), dark, very_dark, well, 1 - well, over), strict=True))


def colour_truth(crops: Tensor) -> dict[str, Tensor]:
    """How far words of colour hold for crops (B,3,S,S) before they are relit, (B,) in [0, 1]."""
    small = F.interpolate(crops, (32, 32), mode="bilinear", antialias=True)
    high, low = small.amax(dim=1), small.amin(dim=1)
    saturation = (high - low) / high.clamp(min=0.05)
    red, green, blue = small.unbind(dim=1)
    hue = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue).rad2deg() % 360
    coloured = (saturation > 0.25) & (high > 0.03)
    truth = {}
    for name, (start, end) in HUES.items():
        inside = ((hue - start) % 360 < end - start) & coloured
        truth[name] = _ramp(inside.float().mean(dim=(1, 2)), 0.15, 0.35)
    mean = saturation.mean(dim=(1, 2))
    return truth | {"colourful": _ramp(mean, 0.35, 0.5), "greyish": 1 - _ramp(mean, 0.12, 0.22)}


def _crop(photos: list[Tensor], side: int, generator: torch.Generator) -> Tensor:
    draw = torch.rand(5, generator=generator)
    photo = photos[int(draw[0] * len(photos))]
    longest = photo.shape[-1]
    size = int(longest * (0.6 + 0.5 * draw[1]).clamp(max=1))
    top, left = (int(d * (longest - size + 1)) for d in draw[2:4])
    crop = _resize(photo[:, top : top + size, left : left + size], side)
    return crop.flip(-1) if draw[4] < 0.5 else crop


def _flatten(crop: Tensor, generator: torch.Generator) -> Tensor:
    """Divided by its own smooth brightness: what a Retinex network makes of a photo when it goes too far."""
    cells = int(torch.randint(3, 24, (), generator=generator))
    brightness = _resize(_resize(crop.mean(dim=0, keepdim=True), cells), crop.shape[-1]).clamp(min=0.05)
    strength = 0.6 + 0.4 * torch.rand((), generator=generator)
    return (crop * (brightness.mean() / brightness) ** strength).clamp(0, 1)


def _resize(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]


def _ramp(x: Tensor, start: float, end: float) -> Tensor:
    return ((x - start) / (end - start)).clamp(0, 1)
