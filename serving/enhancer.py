"""Enhancement of one photo as an array.

Shapes: H height, W width in pixels. Photos are RGB, (H,W,3).

PyTorch, and what imports it, is imported where it is first used: a wrong path is told at once, not seconds later.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

WHOLE_FRAME = 500_000  # pixels, about 1.6 GB; larger photos go through the network in tiles, which gives the same map
TILE = 448  # pixels, then: the longest side of a tile without its halo. 384 to 512 are as fast, but for a tenth


class Enhancer:
    """The trained network, ready to run. Members: `unet` (float32, on the CPU) and `choice`, what runs it and why.

    device "auto" (what Accelerate finds), "cpu" or "cuda"; precision "auto", "fp32" or "bf16"; backend "auto",
    "torch", "torch-compile" or "openvino": see `serving.backends.choose`. tile_size: longest side of a
    tile in pixels; None: photos of more than `WHOLE_FRAME` pixels in tiles of `TILE`, others whole.
    Results do not depend on it. Raises UserError for weights that cannot be used and a backend that is not there.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        padding_mode: str = "reflect",
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        tile_size: int | None = None,
    ) -> None:
        # huge pages for large tensors, a fifth less time on the CPU; PyTorch reads it once, at its first allocation
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        import torch

        from common.device import check_device
        from models.checkpoints import load_unet
        from serving.backends import build, choose

        check_device(device, "model.device")

        if device != "cpu":
            from accelerate import PartialState  # not Accelerator, whose precision is one for the whole process

            found = PartialState().device
        else:
            found = torch.device("cpu")
        self.unet = load_unet(checkpoint, padding_mode, must_enhance=True)
        self.choice = choose(backend, precision, found)
        self._network = build(self.choice, self.unet)
        self._tile_size = tile_size

    def illumination(self, rgb: np.ndarray) -> np.ndarray:
        """Photo (H,W,3), as for `enhance` -> illumination map M (H,W) float32, >= 0. Raises ValueError as `enhance`."""
        import torch

        illumination = np.empty(rgb.shape[:2], np.float32)
        with torch.inference_mode():
            for rows, columns, _, tile in self._tiles(rgb):
                illumination[rows, columns] = tile[0, 0].cpu().numpy()
        return illumination

    def enhance(
        self, rgb: np.ndarray, strength: float = 1.0, *, keep_map: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Photo (H,W,3), float32 in [0, 1] or uint8 or uint16 -> result of the same shape and type, and map M.

        The map is (H,W) float32, or None without `keep_map`. `strength` in [0, 1]: the photo is divided
        by M ** strength, so 0 returns the photo itself. Beside photo, result and map only a tile is in
        memory. Raises ValueError on other shapes and types.
        """
        import torch

        from models.retinex import enhance

        result = np.empty(rgb.shape, rgb.dtype)
        illumination = np.empty(rgb.shape[:2], np.float32) if keep_map else None
        with torch.inference_mode():
            for rows, columns, images, tile in self._tiles(rgb):
                values = enhance(images.to(tile.device), tile**strength)[0].permute(1, 2, 0).cpu().numpy()
                result[rows, columns] = values if rgb.dtype == np.float32 else np.rint(values * _top(rgb))
                if illumination is not None:
                    illumination[rows, columns] = tile[0, 0].cpu().numpy()
        return result, illumination

    def _tiles(self, rgb: np.ndarray) -> Iterator[tuple[slice, slice, "Tensor", "Tensor"]]:
        import torch

        from serving.tiles import illumination_tiles

        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype not in (np.float32, np.uint8, np.uint16):
            raise ValueError(f"rgb: expected (H, W, 3) float32, uint8 or uint16, found {rgb.shape} {rgb.dtype}")
        height, width = rgb.shape[:2]
        tile_size = self._tile_size or (TILE if height * width > WHOLE_FRAME else max(height, width))

        def read(rows: slice, columns: slice) -> "Tensor":
            return torch.from_numpy(rgb[rows, columns].astype(np.float32) / _top(rgb)).permute(2, 0, 1)[None]

        return illumination_tiles(self._network, read, height, width, tile_size)


def _top(rgb: np.ndarray) -> np.float32:
    """The value that means 1."""
    return np.float32(1 if rgb.dtype == np.float32 else np.iinfo(rgb.dtype).max)
