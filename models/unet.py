"""The enhancement network: backlit photo -> illumination map (CLIP-LIT and RAVE share it).

Shape letters: B photos, C channels, H height, W width. Module names are those of the published
checkpoints. Every convolution works at full resolution: 278,790 parameters, about 279 k
multiply-adds a pixel. Receptive field without the pooling branch: 17 pixels to each side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arithmetic import autocast_dtype
from models.convolution import Conv3x3
from models.pooling import PyramidPooling

LEAKY_SLOPE = 0.2


class IlluminationUNet(nn.Module):
    """Photo (B,3,H,W), RGB in [0, 1] -> illumination map M (B,1,H,W), M >= 0 (Retinex: result = photo / M).

    `padding_mode` is that of the four plain convolutions: "zeros" in training, "reflect" at
    inference; published results use this pair with the same weights. Residual blocks always
    reflect, the pooling branch always pads with zeros.

    In bf16 (under autocast, or after `inner_to`) the first and the last convolution stay in float32. A map near 1 has
    three values in bf16, and the photo's own levels are as far apart as those of 8 bits.

    Weights start from N(0, init_std), 0.02 in the release, biases at PyTorch's default. `map_bias`, where given, is
    the initial bias of the last convolution: with 1.0 training starts close to the identity map.
    """

    def __init__(self, padding_mode: str = "zeros", *, map_bias: float | None = None, init_std: float = 0.02) -> None:
        if padding_mode not in ("zeros", "reflect"):
            raise ValueError(f"padding_mode: expected 'zeros' or 'reflect', found {padding_mode!r}")
        super().__init__()
        self.padding_mode = padding_mode
        self.cond1 = Conv3x3(3, 32, bias=True, padding_mode=padding_mode)
        self.ResidualBlock1 = ResidualBlock(32)
        self.ResidualBlock2 = ResidualBlock(32)
        self.PPM1 = PyramidPooling()
        self.condx = Conv3x3(32, 64, bias=True, padding_mode=padding_mode)
        self.ResidualBlock3 = ResidualBlock(64)
        self.ResidualBlock4 = ResidualBlock(64)
        self.condy = Conv3x3(64, 32, bias=True, padding_mode=padding_mode)
        self.ResidualBlock5 = ResidualBlock(32)
        self.ResidualBlock6 = ResidualBlock(32)
        self.cond_add1 = Conv3x3(32, 1, bias=True, padding_mode=padding_mode)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, init_std)
        if map_bias is not None:
            nn.init.constant_(self.cond_add1.bias, map_bias)

    def inner_to(self, dtype: torch.dtype) -> "IlluminationUNet":
        """Bring all layers but the first and the last convolution to `dtype`, in place."""
        for name, layer in self.named_children():
            if name not in ("cond1", "cond_add1"):
                layer.to(dtype)
        return self

    def before_pooling(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,32,H,W), the input of the pyramid pooling. Receptive field 5 pixels to each side."""
        inner = autocast_dtype(images) or self.condx.weight.dtype
        x = F.leaky_relu_(_without_autocast(self.cond1, images).to(inner), LEAKY_SLOPE)
        return self.ResidualBlock2(self.ResidualBlock1(x))

    def after_pooling(self, x: Tensor) -> Tensor:
        """(B,32,H,W), the output of the pyramid pooling -> illumination (B,1,H,W)."""
        x = self.ResidualBlock4(self.ResidualBlock3(self.condx(x)))
        x = self.ResidualBlock6(self.ResidualBlock5(self.condy(x)))
        return F.relu(_without_autocast(self.cond_add1, x))

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W), found {tuple(images.shape)}")
        return self.after_pooling(self.PPM1(self.before_pooling(images)))


def _without_autocast(layer: Conv3x3, x: Tensor) -> Tensor:
    """The layer in the precision of its own weights."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


class ResidualBlock(nn.Module):
    """conv - LeakyReLU - conv - add the input - LeakyReLU. Always reflect padding, no biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3x3(channels, channels, bias=False, padding_mode="reflect")
        self.conv2 = Conv3x3(channels, channels, bias=False, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C,H,W)
        # in place: at full resolution the memory traffic costs about as much as the arithmetic; values are the same
        inner = F.leaky_relu_(self.conv1(x), LEAKY_SLOPE)
        return F.leaky_relu_(self.conv2(inner).add_(x), LEAKY_SLOPE)
