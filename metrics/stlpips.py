"""ST-LPIPS (Ghildyal and Liu, ECCV 2022): a perceptual distance that small shifts do not move; lower is better.

Networks like AlexNet and VGG-16 whose strides are blur pools, trained from scratch on human judgements. Its values are
no LPIPS: the two are not to be compared. The weights come with the package `stlpips-pytorch` (BSD-2), so nothing is
downloaded; its code, which imports an interactive shell, is not run.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

from common.errors import UserError
from metrics.full_reference import TooSmallError, comparable, to_tensor, unit_range

if TYPE_CHECKING:
    import torch

MIN_SIDE = {"alex": 21, "vgg": 18}  # px; below this the last blur has no two pixels to reflect
MOST_PIXELS = 512 * 512  # larger pairs are shrunk to it: 0.2 million multiplications a pixel


class StLpips:
    """ST-LPIPS with one of its networks.

    mode: `alex` or `vgg` is that network, and a UserError where the package is missing; `auto` is AlexNet where the
    package is installed, and else None for every value and a `reason`; `off` never looks. The network is built at the
    first use.
    """

    def __init__(self, mode: Literal["auto", "alex", "vgg", "off"] = "auto") -> None:
        self.mode, self.kind = mode, "vgg" if mode == "vgg" else "alex"
        self._network: torch.nn.Module | None = None
        self._reason = "switched off (metrics.stlpips=off)" if mode == "off" else None

    @property
    def reason(self) -> str | None:
        """Why there are no values, or None where there are. Raises UserError for a network asked for by name."""
        if self._network is None and self._reason is None:
            from metrics.stlpips_network import load_stlpips_network

            try:
                self._network = load_stlpips_network(self.kind)
            except UserError as error:
                if self.mode != "auto":
                    raise
                self._reason = f"not available: {error}"
        return self._reason

    def __call__(self, result: np.ndarray, truth: np.ndarray) -> float | None:
        """Distance of two (H,W,3) RGB images, uint8 or float in [0, 1]; None where there is a `reason`.

        Of more than `MOST_PIXELS`, both are shrunk. Raises MetricError where sizes differ,
        TooSmallError where a side is too short.
        """
        if self.reason:
            return None
        import torch
        from torchvision.transforms.v2.functional import resize

        result, truth = comparable(unit_range(result), unit_range(truth), MIN_SIDE[self.kind])
        height, width = result.shape[:2]
        tensors = [to_tensor(image) * 2 - 1 for image in (result, truth)]
        if height * width > MOST_PIXELS:
            scale = (MOST_PIXELS / (height * width)) ** 0.5
            size = [int(height * scale), int(width * scale)]
            if min(size) < MIN_SIDE[self.kind]:
                raise TooSmallError(f"expected sides in better proportion, found {height} x {width} (H x W)")
            tensors = [resize(tensor, size, antialias=True) for tensor in tensors]
        with torch.inference_mode():
            return float(self._network(*tensors))
