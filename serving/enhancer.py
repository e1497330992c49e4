"""Enhancement of photos in Python.

    from serving import Enhancer

    enhancer = Enhancer()
    enhancer("photo.jpg").save("enhanced.jpg")

Shapes: H height, W width in pixels. Photos are RGB, (H,W,3).

PyTorch, and what imports it, is imported where it is first used: a wrong path is reported at once, not seconds later,
and with OpenVINO small photos do not need it at all.
"""

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args, overload

import numpy as np

from common.errors import UserError
from models.retinex import limited
from serving.finish import PLAIN, Finish, array, as_tensor, at_least_one, one_of, planes, planes_on
from serving.pictures import AnyPhoto, check_photo, opened
from serving.strength import Strength, check_strength, resolved

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from models.unet import IlluminationUNet
    from serving.tiles import Network

WHOLE_FRAME = 500_000  # pixels, about 1 GB; larger photos go through the network in tiles, which gives the same map
WHOLE_FRAME_OPENVINO = 1_500_000  # pixels, which take it 1.1 GB; and no PyTorch
TILE = 448  # pixels, then: the longest side of a tile without its halo. 384 to 512 are as fast, but for a tenth
TILE_OPENVINO = 384  # as fast as 448, but for 2 %, in 24 megapixels with 0.1 GB less
GPU_BYTES = 2400  # of a GPU's memory that a pixel takes in fp32, as those of dark and deep photos do
GPU_TILE = 4096  # pixels, the longest side of a tile there
BATCH = 2_000_000  # pixels of photos of one size that a GPU gets at once
DARK = 0.13  # of full scale: photos of a mean below are divided by so little that bf16 would stay under 50 dB of fp32

# rows and columns of a part of a photo, that part (1,3,h,w) and its map (1,1,h,w); both arrays where the map is one
Part = tuple[slice, slice, "Tensor | np.ndarray", "Tensor | np.ndarray"]


class Enhancer:
    """The trained network, ready to run. Members: `unet` (float32, on the CPU) and `choice`, what runs it and why.

    checkpoint: weights, `.safetensors` or a published `.pth`, by path, or of the shipped ones by name; None: those that
    `inference.py` takes.
    device "auto" (what Accelerate finds), "cpu" or "cuda"; precision "auto", "fp32" or "bf16"; backend "auto",
    "torch", "torch-compile" or "openvino": see `serving.backends.choose`. tile_size: longest side of a tile in pixels;
    None: photos of more than `WHOLE_FRAME` pixels in tiles of `TILE` (with OpenVINO: `WHOLE_FRAME_OPENVINO`,
    `TILE_OPENVINO`; on a GPU as large as half of its free memory allows), others whole. Results do not depend on it.
    map_scale 1, 2 or 4: the map is computed at that part
    of the photo's sides and brought up along the photo's edges (`models.guided`), for previews. bf16 serves photos of
    8 bits a channel. Deeper ones (uint16, floats) are computed in float32: beside their steps the rounding of bf16 is
    large, and smooth gradients would go up and down. So are very dark ones, which are divided by a map near zero.
    Raises UserError for weights that cannot be used, and for a device or a backend that is not there; ValueError for
    other choices than these.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        padding_mode: str = "reflect",
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        tile_size: int | None = None,
        map_scale: int = 1,
    ) -> None:
        # huge pages for large tensors, a fifth less time on the CPU; PyTorch reads it once, at its first allocation
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        from configs.schema import InferenceModel
        from serving.backends import choose

        asked = {"padding_mode": padding_mode, "device": device, "precision": precision, "backend": backend}
        for name, value in (asked | {"map_scale": map_scale}).items():
            one_of(name, value, get_args(InferenceModel.model_fields[name].annotation))
        self._checkpoint, self._padding_mode = _weights(checkpoint), padding_mode
        self.choice = choose(backend, precision, _device(device))
        self._networks: dict[str, Network] = {}
        self._network(self.choice.precision)  # which tells what is wrong with the weights
        self._tile_size = None if tile_size is None else at_least_one("tile_size", tile_size)
        self._map_scale = map_scale

    @cached_property
    def unet(self) -> "IlluminationUNet":
        """The network in float32, on the CPU."""
        from models.checkpoints import load_unet

        return load_unet(self._checkpoint, self._padding_mode, must_enhance=True)

    @overload
    def __call__(
        self, photo: "Image.Image | str | os.PathLike", strength: Strength = 1.0, finish: Finish = ...
    ) -> "Image.Image": ...
    @overload
    def __call__(self, photo: np.ndarray, strength: Strength = 1.0, finish: Finish = ...) -> np.ndarray: ...
    @overload
    def __call__(self, photo: list, strength: Strength = 1.0, finish: Finish = ...) -> list: ...
    def __call__(self, photo: AnyPhoto | list, strength: Strength = 1.0, finish: Finish = PLAIN) -> AnyPhoto | list:
        """Enhance a photo, or a list of photos; the result is of the same kind.

        photo: a PIL image; an array (H,W,3), uint8, uint16 or float in [0, 1]; or a file's path, which gives a PIL
        image of 8 bits a channel (`inference.py` keeps 16 bits and metadata). RGB, or grey in a PIL image; alpha stays.
        Of a list, photos of one size and type go through the network together where that is faster (on a GPU).
        strength: 0 (the photo) to 1 (the full result), or "auto", by the photo's own brightness. finish: what becomes
        of highlights, noise and steps.
        Raises TypeError for what is no photo, ValueError on other shapes, types of pixels, values and strengths, and
        ImageError for a file that is not a photo.
        """
        check_strength(strength)
        if not isinstance(finish, Finish):
            raise ValueError(f"finish: expected a Finish (from serving import Finish), found {finish!r}")
        if not isinstance(photo, list):
            rgb, closed = opened(photo)
            return closed(self.enhance(rgb, strength, keep_map=False, finish=finish)[0])
        results, alike = [None] * len(photo), defaultdict(list)
        for number, item in enumerate(photo):
            rgb, closed = opened(item)
            check_photo(rgb)
            waiting = alike[rgb.shape, rgb.dtype, self.precision_of(rgb)]
            waiting.append((number, rgb, closed))
            if len(waiting) >= self._at_once(rgb):
                self._enhance_batch(waiting, strength, results, finish)
        for waiting in alike.values():
            self._enhance_batch(waiting, strength, results, finish)
        return results

    def _at_once(self, rgb: np.ndarray) -> int:
        height, width = rgb.shape[:2]
        together = self.choice.device != "cpu" and max(height, width) <= self._tile_of(height, width)
        return max(1, BATCH // (height * width)) if together and self._map_scale == 1 else 1

    def _tile_of(self, height: int, width: int) -> int:
        if self._tile_size:
            return self._tile_size
        if self.choice.backend == "openvino":
            most, tile = WHOLE_FRAME_OPENVINO, TILE_OPENVINO
        elif self.choice.device.startswith("cuda"):
            tile = self._gpu_tile
            most = tile * tile
        else:
            most, tile = WHOLE_FRAME, TILE
        return tile if height * width > most else max(height, width)

    @cached_property
    def _gpu_tile(self) -> int:
        """Side of the tiles that half of the free memory of an NVIDIA GPU has room for."""
        import torch

        free = torch.cuda.mem_get_info(self.choice.device)[0]
        return min(GPU_TILE, max(TILE, math.isqrt(free // 2 // GPU_BYTES)))

    def _enhance_batch(self, waiting: list, strength: Strength, results: list, finish: Finish = PLAIN) -> None:
        """Enhance photos of one shape and type, each (place in `results`, array, how its kind is made again)."""
        if not waiting:
            return
        numbers, photos, closed = zip(*waiting, strict=True)
        waiting.clear()
        if len(photos) == 1 or finish.denoises(photos[0].dtype):
            enhanced = [self.enhance(rgb, strength, keep_map=False, finish=finish)[0] for rgb in photos]
        else:
            parts = [self._planes(rgb) for rgb in photos]
            images = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else _joined(parts)
            maps = limited(self._network(self.precision_of(photos[0])).whole(images))
            enhanced = [
                finish.divided(*pair, resolved(strength, rgb), rgb.dtype)
                for *pair, rgb in zip(images[:, None], maps[:, None], photos, strict=True)
            ]
        for number, close, result in zip(numbers, closed, enhanced, strict=True):
            results[number] = close(result)

    def illumination(self, photo: AnyPhoto, progress: Callable[[float], None] | None = None) -> np.ndarray:
        """A photo as `__call__` takes it -> illumination map M (H,W) float32, >= 0.05. Raises as `__call__`.

        progress: called after each tile, with the share of the photo that is done.
        """
        rgb = opened(photo)[0]
        check_photo(rgb)
        illumination = np.empty(rgb.shape[:2], np.float32)
        for rows, columns, _, tile in self._tiles(rgb, progress):
            illumination[rows, columns] = array(tile[0, 0])
        return illumination

    def enhance(
        self,
        rgb: np.ndarray,
        strength: Strength = 1.0,
        *,
        keep_map: bool = True,
        finish: Finish = PLAIN,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Photo (H,W,3), float32 in [0, 1] or uint8 or uint16 -> result of the same shape and type, and map M.

        The map is (H,W) float32, or None without `keep_map`. `strength` in [0, 1], or "auto": the photo is
        divided by M ** strength, so 0 returns the photo itself. Beside photo, result and map only a tile is in
        memory. progress: as for `illumination`. Raises ValueError on other shapes and types.
        """
        check_photo(rgb)
        strength = resolved(strength, rgb)
        if finish.denoises(rgb.dtype):  # which looks at the noise of all shadows first
            illumination = self.illumination(rgb, progress)
            return self.relight(rgb, illumination, strength, finish), illumination if keep_map else None
        result = np.empty(rgb.shape, rgb.dtype)
        illumination = np.empty(rgb.shape[:2], np.float32) if keep_map else None
        for rows, columns, images, tile in self._tiles(rgb, progress):
            place = rows.start, columns.start
            result[rows, columns] = finish.divided(images, tile, strength, rgb.dtype, place)
            if illumination is not None:
                illumination[rows, columns] = array(tile[0, 0])
        return result, illumination

    def relight(
        self, rgb: np.ndarray, illumination: np.ndarray, strength: Strength, finish: Finish = PLAIN
    ) -> np.ndarray:
        """What `enhance` gives with another strength, from its photo (H,W,3) and map (H,W), without the network."""
        from data.images.photo import strips
        from serving.denoise import Denoiser

        strength = resolved(strength, rgb)
        clean = Denoiser(rgb, illumination, strength) if finish.denoises(rgb.dtype) else None
        result, without_torch = np.empty(rgb.shape, rgb.dtype), self.choice.backend == "openvino"
        for rows in strips(rgb):
            tile = illumination[None, None, rows]
            if not without_torch:
                tile = as_tensor(tile).to(self.choice.device)
            images = planes(clean.strip(rows) if clean else rgb[rows])
            result[rows] = finish.divided(images, tile, strength, rgb.dtype, (rows.start, 0))
        return result

    def _tiles(self, rgb: np.ndarray, progress: Callable[[float], None] | None = None) -> Iterator[Part]:
        if self._map_scale > 1:
            tiles = self._guided_strips(rgb)
        else:
            network = self._network(self.precision_of(rgb))
            tiles = self._exact_tiles(network, lambda rows, columns: self._planes(rgb[rows, columns]), *rgb.shape[:2])
        done = 0
        for rows, columns, images, tile in tiles:
            yield rows, columns, images, limited(tile)
            done += tile.shape[2] * tile.shape[3]
            if progress:
                progress(3 * done / rgb.size)

    def _planes(self, rgb: np.ndarray) -> "Tensor | np.ndarray":
        """(h,w,3) of any type -> (1,3,h,w) float32 in [0, 1], where the network is if that is a GPU."""
        return planes(rgb) if self.choice.device == "cpu" else planes_on(self.choice.device, rgb)

    def _exact_tiles(
        self,
        network: "Network",
        read: "Callable[[slice, slice], Tensor | np.ndarray]",
        height: int,
        width: int,
    ) -> Iterator[Part]:
        tile_size = self._tile_of(height, width)
        if max(height, width) <= tile_size:
            frame = slice(0, height), slice(0, width)
            images = read(*frame)
            yield *frame, images, network.whole(images)
            return
        from serving.tiles import illumination_tiles

        yield from illumination_tiles(network, lambda *part: as_tensor(read(*part)), height, width, tile_size)

    def _guided_strips(self, rgb: np.ndarray) -> Iterator[Part]:
        """As `_tiles`, from the exact map of the photo at reduced size."""
        import torch

        from data.images.photo import strips
        from models.guided import coefficients, guided, luma, reduced

        scale, everything = self._map_scale, slice(0, rgb.shape[1])
        small = torch.cat([reduced(as_tensor(planes(rgb[rows])), scale) for rows in strips(rgb, scale)], dim=2)
        illumination = torch.empty_like(small[:, :1])
        network = self._network(self.precision_of(rgb))
        tiles = self._exact_tiles(network, lambda rows, columns: small[:, :, rows, columns].numpy(), *small.shape[2:])
        for rows, columns, _, tile in tiles:
            illumination[:, :, rows, columns] = as_tensor(array(tile))
        ab = coefficients(luma(small), illumination)
        for rows in strips(rgb):
            images = as_tensor(planes(rgb[rows]))
            yield rows, everything, images, guided(ab, luma(images), scale, rows.start)

    def precision_of(self, rgb: np.ndarray) -> str:
        """Photo (H,W,3) -> in what its map is computed, "fp32" or "bf16"."""
        if rgb.dtype != np.uint8 or not rgb.size or rgb[::4, ::4].mean() < DARK * 255:
            return "fp32"
        return self.choice.precision

    def _network(self, precision: str) -> "Network":
        from serving.backends import build

        if precision not in self._networks:
            choice = replace(self.choice, precision=precision)
            self._networks[precision] = build(choice, lambda: self.unet, self._identity)
        return self._networks[precision]

    @cached_property
    def _identity(self) -> str | None:
        """What tells the weights and the padding from others; None where the file cannot be read."""
        from common.files import file_digest

        with contextlib.suppress(OSError, UserError):  # reading it as weights will tell what is wrong
            return f"{file_digest(self._checkpoint)} {self._padding_mode}"
        return None


def _joined(parts: list["Tensor"]) -> "Tensor":
    import torch

    return torch.cat(parts)


def _weights(checkpoint: str | Path | None) -> Path:
    """A weight file, by its path or as one of the shipped ones by its name; None: the default. Raises UserError."""
    from configs.schema import InferenceModel
    from models.shipped import find_weights

    return find_weights(str(InferenceModel().checkpoint if checkpoint is None else checkpoint), "checkpoint")


def _device(asked: str) -> str:
    """The device that "auto", "cpu" or "cuda" means here. Raises UserError where there is none."""
    from common.device import check_device, has_accelerator_files

    check_device(asked, "model.device")
    if asked == "cpu" or not has_accelerator_files():
        return "cpu"
    from accelerate import PartialState  # not Accelerator, whose precision is one for the whole process

    return str(PartialState().device)
