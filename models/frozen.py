"""Frozen encoders, made fast where they lie: what they compute stays, up to rounding."""

import contextlib

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import Bottleneck, ModifiedResNet
from open_clip.transformer import Transformer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.arithmetic import autocast_dtype, on_eager_cpu

FEW = 64  # tokens
RESNET_STRIDE = 32  # pixels between the positions of the last map of CLIP's ResNets


def freeze(network: nn.Module) -> nn.Module:
    """The network in eval mode, without gradients of its weights, and made fast in place."""
    network.requires_grad_(False).eval()
    for module in network.modules():
        if type(module) is Transformer:
            _sequence_first(module)
        elif type(module) is nn.Conv2d and _cuts_patches(module):
            module.__class__ = _Patches
        elif isinstance(module, (Bottleneck, ModifiedResNet)):
            _fuse(module)
    return network


def tokens_of(network: nn.Module, side: int) -> int:
    """How many tokens attention sees of a photo of side x side pixels: patches, or positions of CLIP's ResNets."""
    patch = next((layer.kernel_size[0] for layer in network.modules() if isinstance(layer, _Patches)), RESNET_STRIDE)
    return (side // patch) ** 2 + 1


def attention_of(tokens: int, device: torch.device) -> contextlib.AbstractContextManager:
    """Attention as two products on CPUs where tokens are few: PyTorch's kernel there is made for long sequences.

    With gradients: five times as fast for 50 tokens, half as fast for 197.
    """
    few = tokens <= FEW and device.type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if few else contextlib.nullcontext()


def _sequence_first(transformer: Transformer) -> None:
    """Let it work on (L,N,D) instead of (N,L,D); what goes in and comes out stays as it is.

    Between the two, attention is handed a transposed view, which PyTorch multiplies with frozen weights position by
    position: ViT-B/32 with the gradient of four images takes 1.45 s that way and 1.0 s this way on one core.
    """
    transformer.batch_first = False
    for attention in transformer.modules():
        if isinstance(attention, nn.MultiheadAttention):
            attention.batch_first = False


def _cuts_patches(layer: nn.Conv2d) -> bool:
    alone = layer.kernel_size == layer.stride and layer.padding == (0, 0) and layer.dilation == (1, 1)
    return alone and layer.groups == 1 and min(layer.kernel_size) >= 8


class _Patches(nn.Conv2d):
    """A convolution whose windows touch and do not overlap, as one matrix product; oneDNN's gradient is eight times
    as slow."""

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H/p,W/p)
        (high, wide), (count, channels) = self.kernel_size, x.shape[:2]
        rows, columns = x.shape[2] // high, x.shape[3] // wide
        x = x[:, :, : rows * high, : columns * wide].reshape(count, channels, rows, high, columns, wide)
        patches = x.permute(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, -1)
        product = F.linear(patches, self.weight.reshape(self.out_channels, -1), self.bias)
        return product.transpose(1, 2).reshape(count, self.out_channels, rows, columns)


def _fuse(block: nn.Module) -> None:
    """Let the norms of a block of CLIP's ResNet be part of the convolutions before them, under autocast on CPUs."""
    parts = [(block, f"conv{number}", f"bn{number}") for number in (1, 2, 3)]
    if getattr(block, "downsample", None) is not None:
        parts.append((block.downsample, "0", "1"))
    for owner, of_convolution, of_norm in parts:
        convolution, norm = getattr(owner, of_convolution), getattr(owner, of_norm)
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            convolution.__class__, norm.__class__ = _Fused, _Norm
            convolution.__dict__["norm"] = norm  # and no part of it, or its weights would have two names


def _rounds(x: Tensor) -> bool:
    return on_eager_cpu(x) and autocast_dtype(x) is not None


class _Fused(nn.Conv2d):
    """A convolution that does its norm's work where autocast would round its weights in each step: with weights that
    are rounded once."""

    norm: nn.BatchNorm2d

    def forward(self, x: Tensor) -> Tensor:
        if not _rounds(x):
            return super().forward(x)
        dtype = autocast_dtype(x)
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x.to(dtype), *self._rounded(dtype), self.stride, self.padding)

    def _rounded(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        norm, kept = self.norm, self.__dict__.setdefault("kept", {})
        of = dtype, *((tensor.data_ptr(), tensor._version) for tensor in (self.weight, norm.weight, norm.running_var))
        if kept.get("of") != of:
            statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            weight, bias = fuse_conv_bn_weights(self.weight, self.bias, *statistics)
            weight = weight.detach().to(dtype, memory_format=torch.channels_last)
            kept |= {"of": of, "values": (weight, bias.detach().to(dtype))}
        return kept["values"]


class _Norm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return x if _rounds(x) else super().forward(x)
