"""Augmentation of training photos (CLIP-LIT release): flips, transposition, rotation, zoom.

Built on torchvision.transforms.v2: several images given in one call get the same augmentation.
All randomness is torch's global generator; `seeded` runs a transform under a seed of its own, so
that a sample's augmentation depends neither on worker processes nor on what came before.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class RandomTranspose(v2.Transform):
    """Swaps rows and columns with probability `p`: (...,H,W) -> (...,W,H)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"swap": bool(torch.rand(()) < self.p)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        return _like(inpt.transpose(-2, -1), inpt) if params["swap"] else inpt


class RandomReflectAffine(v2.Transform):
    """Rotation and zoom about the centre, bilinear, the border filled by reflection.

    Rotation by U(−degrees, degrees) with probability `p_rotate`; zoom by U(low, high) on each axis
    with probability `p_zoom` (above 1: magnified). torchvision's own affine fills borders with a
    colour, which the UNet would learn to brighten. Input (C,H,W) float; same shape out.
    """

    def __init__(self, degrees: float, zoom: tuple[float, float], p_rotate: float, p_zoom: float) -> None:
        super().__init__()
        self.degrees, self.zoom, self.p_rotate, self.p_zoom = degrees, zoom, p_rotate, p_zoom

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        draw = torch.rand(5).tolist()  # always five numbers, so that each choice leaves the others' draws alone
        low, high = self.zoom
        angle = (2 * draw[1] - 1) * self.degrees if draw[0] < self.p_rotate else 0.0
        zoom_x, zoom_y = (low + u * (high - low) for u in draw[3:]) if draw[2] < self.p_zoom else (1.0, 1.0)
        return {"angle": math.radians(angle), "zoom_x": zoom_x, "zoom_y": zoom_y}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        angle, zoom_x, zoom_y = params["angle"], params["zoom_x"], params["zoom_y"]
        if angle == 0.0 and zoom_x == zoom_y == 1.0:
            return inpt
        height, width = inpt.shape[-2:]
        cos, sin, aspect = math.cos(angle), math.sin(angle), height / width
        # output position -> input position, both in [-1, 1]; `aspect` undoes the axes' different units
        theta = torch.tensor([[cos / zoom_x, -sin * aspect / zoom_y, 0.0], [sin / aspect / zoom_x, cos / zoom_y, 0.0]])
        grid = F.affine_grid(theta[None], [1, 1, height, width], align_corners=False)
        return _like(
            F.grid_sample(inpt[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0], inpt
        )


def training_augmentation(zoom: tuple[float, float] = (0.7, 1.3)) -> v2.Transform:
    """Horizontal flip, vertical flip, transposition, each p = 0.5; rotation by U(−90°, 90°) p = 0.3; zoom p = 0.3.

    `zoom` (release): (0.7, 1.3) for UNet photos, (0.5, 1.5) for guidance photos.
    Images (C,H,W) float in [0, 1]; all images of one call get the same augmentation.
    """
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
            RandomTranspose(0.5),
            RandomReflectAffine(degrees=90.0, zoom=zoom, p_rotate=0.3, p_zoom=0.3),
        ]
    )


def seeded(transform: Callable[..., Any], seed: int, *images: Tensor) -> Any:
    """`transform(*images)` with torch's generator seeded for this call alone; all images get the same augmentation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        results = together(transform, *images)
    return tuple(r.as_subclass(Tensor) for r in results) if isinstance(results, tuple) else results.as_subclass(Tensor)


def together(augmentation: Callable[..., Any] | None, *images: Tensor) -> Any:
    """The images (C,H,W) under one augmentation, what it gives; None: as they are, a tuple."""
    if augmentation is None:
        return images
    return augmentation(*map(tv_tensors.Image, images))  # of plain tensors, transforms.v2 would touch only the first


def _like(result: Tensor, source: Tensor) -> Tensor:
    # operations on a tv_tensor give a plain tensor, of which the next transform would touch only the first
    return tv_tensors.wrap(result, like=source) if isinstance(source, tv_tensors.TVTensor) else result
