"""The network in PyTorch, whole and in the two parts that tiles need: what lies below the pooling and above it."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from models.arithmetic import exact_fp32
from models.convolution import Conv3x3
from models.unet import IlluminationUNet


class _Below(nn.Module):
    def __init__(self, unet: IlluminationUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, images: Tensor) -> Tensor:
        return self.unet.before_pooling(images)


class _Above(nn.Module):
    def __init__(self, unet: IlluminationUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, rows: Tensor, columns: Tensor, grids: Tensor) -> Tensor:
        # sides before channels: the product comes out channels last, as all that follows has to be
        lines = (rows[:, None] @ grids).permute(0, 2, 3, 1)  # (N,h,G,32)
        upsampled = (columns[:, None] @ lines).to(x.dtype).permute(0, 3, 1, 2)
        return self.unet.after_pooling(self.unet.PPM1.fuse(torch.cat([x, upsampled], dim=1)))


def parts(unet: IlluminationUNet, interior: bool) -> tuple[_Below, _Above, IlluminationUNet]:
    """What is below the pooling, what is above it, and all of a copy of the network; the three share their weights."""
    unet = copy.deepcopy(unet).requires_grad_(False)
    if interior:  # zero padding is part of the convolution; reflected borders are a copy of all its input
        for module in unet.modules():
            if isinstance(module, Conv3x3):
                module.padding_mode = "zeros"
    return _Below(unet), _Above(unet), unet


def pooled_branches(unet: IlluminationUNet) -> list[nn.Module]:
    return [copy.deepcopy(branch[1:]).float().cpu().requires_grad_(False) for branch in unet.PPM1.features]


class TorchNetwork:
    """The network in PyTorch, channels last; see `serving.tiles.Network`."""

    def __init__(self, unet: IlluminationUNet, precision: str, device: torch.device, *, compiled: bool = False) -> None:
        self.branches = pooled_branches(unet)
        self.device = device
        # bf16 weights, not autocast: that casts weights and, on CPUs, every padding's input to fp32 and back
        inner = torch.bfloat16 if precision == "bf16" else torch.float32
        exact_fp32()
        self._parts = {}
        for interior in (False, True):
            mine = [part.to(device, memory_format=torch.channels_last) for part in parts(unet, interior)]
            mine[2].inner_to(inner)
            self._parts[interior] = [torch.compile(part, dynamic=True) if compiled else part for part in mine]

    @torch.inference_mode()
    def whole(self, images: np.ndarray | Tensor) -> Tensor:
        """See `Network.whole`."""
        images = torch.as_tensor(images).to(self.device, memory_format=torch.channels_last)
        return self._parts[False][2](images)

    @torch.inference_mode()
    def below(self, images: Tensor, interior: bool) -> Tensor:
        """See `Network.below`."""
        images = images.to(self.device, memory_format=torch.channels_last)
        return self._parts[interior][0](images)

    @torch.inference_mode()
    def above(self, x: Tensor, rows: Tensor, columns: Tensor, grids: Tensor, interior: bool) -> Tensor:
        """See `Network.above`."""
        return self._parts[interior][1](x, *(t.to(self.device) for t in (rows, columns, grids)))
