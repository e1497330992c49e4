"""The network's 3x3 convolution, made fast on CPUs and GPUs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from models.arithmetic import autocast_dtype, eager, on_eager_cpu, own_gradients

BAND = 32  # rows of a photo that a weight's gradient is computed from at once


class Conv3x3(nn.Conv2d):
    """3x3 convolution that keeps H and W, with zero or reflect padding.

    PyTorch cannot reflect a side of one pixel; such a side is repeated instead, so that every
    size down to 1x1 has a result.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool, padding_mode: str) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1, bias=bias, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H,W)
        height, width = x.shape[-2:]
        reflect, wide = self.padding_mode == "reflect", height > 1 and width > 1
        if own_gradients(x) and (wide or not reflect):
            dtype = autocast_dtype(x) or x.dtype
            bias = None if self.bias is None else self.bias.to(dtype)
            with torch.autocast("cpu", enabled=False):  # it would pad in float32
                return Convolution.apply(x.to(dtype), self.weight.to(dtype), bias, reflect)
        if not reflect:
            return F.conv2d(x, self.weight, self.bias, padding=1)
        if on_eager_cpu(x) and wide:
            return reflected(x, self.weight, self.bias)
        if wide:
            x = Padded.apply(x) if eager() else F.pad(x, (1, 1, 1, 1), mode="reflect")
        else:
            x = F.pad(x, (1, 1, 0, 0), mode="reflect" if width > 1 else "replicate")
            x = F.pad(x, (0, 0, 1, 1), mode="reflect" if height > 1 else "replicate")
        return F.conv2d(x, self.weight, self.bias)


class Padded(torch.autograd.Function):
    """Reflected borders of one pixel, in the layout of the input: (B,C,H,W), H and W above 1 -> (B,C,H+2,W+2).

    On GPUs PyTorch's own brings another layout back, which convolutions are slower in, and adds up its gradient in no
    certain order.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        photos, channels, height, width = x.shape
        result = torch.empty(
            (photos, channels, height + 2, width + 2), dtype=x.dtype, device=x.device, memory_format=layout(x)
        )
        result[:, :, 1:-1, 1:-1] = x
        result[:, :, 0, 1:-1], result[:, :, -1, 1:-1] = x[:, :, 1], x[:, :, -2]
        result[:, :, :, 0], result[:, :, :, -1] = result[:, :, :, 2], result[:, :, :, -3]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        rows = gradient[:, :, 1:-1].clone(memory_format=layout(gradient))
        rows[:, :, 1] += gradient[:, :, 0]
        rows[:, :, -2] += gradient[:, :, -1]
        result = rows[..., 1:-1].clone(memory_format=layout(gradient))
        result[..., 1] += rows[..., 0]
        result[..., -2] += rows[..., -1]
        return result


def layout(x: Tensor) -> torch.memory_format:
    """Of a batch of maps (B,C,H,W): channels last, or the usual one."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def reflected(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """3x3 convolution with reflected borders, without a padded copy of all the input.

    It pads with zeros, then computes the four outer lines again.

    (B,C,H,W), H and W above 1; (C',C,3,3); (C',) -> (B,C',H,W).
    """

    def line(part: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
        return F.conv2d(F.pad(part, pad, mode="reflect"), weight, bias)

    result = F.conv2d(x, weight, bias, padding=1)
    result[:, :, :1] = line(x[:, :, :2], (1, 1, 1, 0))
    result[:, :, -1:] = line(x[:, :, -2:], (1, 1, 0, 1))
    result[:, :, :, :1] = line(x[:, :, :, :2], (1, 0, 1, 1))
    result[:, :, :, -1:] = line(x[:, :, :, -2:], (0, 1, 1, 1))
    return result


class Convolution(torch.autograd.Function):
    """3x3 convolution with zero or reflected borders, with a gradient that is fast on CPUs and keeps no padded copies.

    It is that of zero padding, and what a reflected ring adds to it.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, reflect: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.reflect = reflect
        return reflected(x, weight, bias) if reflect else F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _backward(gradient, x, weight, "input")
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, x, weight)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        if ctx.reflect:
            _add_ring(gradient, x, weight, of_x, of_weight)
        return of_x, of_weight, of_bias, None


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, of: str, padding: tuple[int, int] = (1, 1)) -> Tensor:
    """PyTorch's gradient of a convolution with zeros around, of its input or of its weight."""
    wanted = (of == "input", of == "weight", False)
    both = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), 1, wanted
    )
    return both[0] if of == "input" else both[1]


def weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient (C',C,3,3) of the weight of a convolution with zeros around: (B,C',H,W) and (B,C,H,W).

    oneDNN turns a whole photo into another layout first, which falls out of the cache. In bands, each a photo of its
    own (a view of the same memory), bf16 comes to the rate of the forward direction. What the rows at both sides of a
    border between bands owe to each other is added.
    """
    photos, height = len(x), x.shape[2]
    banded = height % BAND == 0 and height > BAND
    if not (banded and all(t.is_contiguous(memory_format=torch.channels_last) for t in (x, gradient))):
        return _backward(gradient, x, weight, "weight")

    def bands(t: Tensor) -> Tensor:
        return t.movedim(1, -1).reshape(photos * height // BAND, BAND, *t.shape[3:], t.shape[1]).movedim(-1, 1)

    def rows(t: Tensor, which: slice) -> Tensor:
        return t[:, :, which].contiguous(memory_format=torch.channels_last)

    above, below = slice(BAND - 1, height - 1, BAND), slice(BAND, None, BAND)  # of the borders
    result = _backward(bands(gradient), bands(x), weight, "weight")
    result[:, :, :1] += _backward(rows(gradient, below), rows(x, above), weight[:, :, :1], "weight", (0, 1))
    result[:, :, 2:] += _backward(rows(gradient, above), rows(x, below), weight[:, :, 2:], "weight", (0, 1))
    return result


def _add_ring(gradient: Tensor, x: Tensor, weight: Tensor, of_x: Tensor | None, of_weight: Tensor | None) -> None:
    """Add what reflected borders have that zeros have not, in place.

    The ring is four lines of the input: second row, last but one, and columns likewise.
    """
    with torch.enable_grad():
        lines = [
            line.detach().requires_grad_()
            for line in (x[:, :, 1:2], x[:, :, -2:-1], x[:, :, :, 1:2], x[:, :, :, -2:-1])
        ]
        kernel = weight.detach().requires_grad_()
        rows = [F.pad(row, (1, 1, 0, 0), mode="reflect") for row in lines[:2]]  # with the corners
        ring = [
            F.conv2d(rows[0], kernel[:, :, :1]),
            F.conv2d(rows[1], kernel[:, :, 2:]),
            F.conv2d(lines[2], kernel[:, :, :, :1], padding=(1, 0)),
            F.conv2d(lines[3], kernel[:, :, :, 2:], padding=(1, 0)),
        ]
    outer = (gradient[:, :, :1], gradient[:, :, -1:], gradient[:, :, :, :1], gradient[:, :, :, -1:])
    top, bottom, left, right, ring_of_weight = torch.autograd.grad(ring, [*lines, kernel], outer)
    if of_x is not None:
        of_x[:, :, 1:2] += top
        of_x[:, :, -2:-1] += bottom
        of_x[:, :, :, 1:2] += left
        of_x[:, :, :, -2:-1] += right
    if of_weight is not None:
        of_weight += ring_of_weight
