"""What a device computes in, and who computes: PyTorch itself or a compiler."""

import torch
from torch import Tensor


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


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast computes convolutions of `x` in; None without autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def eager() -> bool:
    """Whether it is PyTorch itself that computes, operation by operation, and neither a compiler nor an export."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())


def on_eager_cpu(x: Tensor) -> bool:
    """Whether it is a CPU that computes, operation by operation: compilers and exports see PyTorch's own operations."""
    return x.device.type == "cpu" and eager()


def own_gradients(x: Tensor) -> bool:
    """Whether gradients are asked for where those written here are faster than PyTorch's, on CPUs."""
    return on_eager_cpu(x) and torch.is_grad_enabled()
