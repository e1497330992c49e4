"""The network's 3x3 convolution, made fast on CPUs, and the arithmetic that GPUs may use for float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def exact_fp32() -> None:
    """Let float32 be float32 on NVIDIA GPUs.

    PyTorch otherwise rounds the factors of their convolutions to TF32's 10 bits of mantissa.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def computes_in_bf16(device: torch.device) -> bool:
    """Whether PyTorch has bf16 arithmetic on this device; elsewhere it is emulated, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


class Conv3x3(nn.Conv2d):
    """3x3 convolution that keeps H and W, with zero or reflect padding.

    PyTorch cannot reflect a side of one pixel; such a side is repeated instead, so that every
    size down to 1x1 has a result.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool, padding_mode: str) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1, bias=bias, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) -> (B,C',H,W)
        if self.padding_mode == "zeros":
            return F.conv2d(x, self.weight, self.bias, padding=1)
        height, width = x.shape[-2:]
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        if height > 1 and width > 1:
            if x.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
                if not torch.is_grad_enabled():
                    return reflected(x, self.weight, self.bias)
                if self.bias is None and not torch.is_autocast_enabled("cpu"):
                    return ReflectedConvolution.apply(x, self.weight)
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        else:
            x = F.pad(x, (1, 1, 0, 0), mode="reflect" if width > 1 else "replicate")
            x = F.pad(x, (0, 0, 1, 1), mode="reflect" if height > 1 else "replicate")
        if channels_last:  # on GPUs padding brings the layout back that convolutions are slower in
            x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias)


def reflected(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """3x3 convolution with reflected borders, without a padded copy of all the input.

    It pads with zeros, then computes the four outer lines anew.

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


class ReflectedConvolution(torch.autograd.Function):
    """`reflected` with a gradient that needs no padded copies either.

    The gradient is that of zero padding, and what the reflected ring adds to it.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return reflected(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (*wanted, False)
        )
        with torch.enable_grad():  # the ring is four lines of the input: second row, last but one, and columns likewise
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
        if wanted[0]:
            of_x[:, :, 1:2] += top
            of_x[:, :, -2:-1] += bottom
            of_x[:, :, :, 1:2] += left
            of_x[:, :, :, -2:-1] += right
        return of_x, of_weight + ring_of_weight if wanted[1] else None
