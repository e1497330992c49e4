"""Where a run takes place: device, precision, processes and seeds. All through Accelerate."""

import ctypes
import sys
from collections.abc import Iterable
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed
from torch import Tensor

from common.device import check_device
from common.errors import UserError
from models.arithmetic import computes_in_bf16, exact_fp32

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h


def make_accelerator(device: str, precision: str, timeout: float = 120) -> Accelerator:
    """An Accelerator for `device` "auto" | "cpu" | "cuda" and `precision` "auto" | "fp32" | "bf16" | "fastest".

    "auto" precision is bf16 on a GPU that has it, fp32 elsewhere; "fastest" also on a processor that has it.
    timeout: minutes that processes wait for each other.
    Raises UserError for "cuda" where there is none.
    """
    check_device(device, "train.device")
    if precision in ("auto", "fastest"):
        kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        wanted = kind == "cuda" or precision == "fastest"
        precision = "bf16" if wanted and computes_in_bf16(torch.device(kind)) else "fp32"
    exact_fp32()  # also beside bf16: validation is in float32
    # processes without a GPU find each other only where Accelerate is told so: otherwise each would train alone
    cpu = device == "cpu" or not torch.accelerator.is_available()
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=timeout))
    mixed = "no" if precision == "fp32" else precision
    try:
        return Accelerator(cpu=cpu, mixed_precision=mixed, kwargs_handlers=[patience])
    except ValueError as error:  # it reads ACCELERATE_* variables of the environment, and what launchers set
        raise UserError(
            f"Accelerate: expected settings that it understands in the environment, found: {error}"
        ) from None


def keep_memory() -> None:
    """Let this process keep the memory that it frees, on Linux: a step allocates what the step before it freed.

    Otherwise each large tensor is a new mapping, which the kernel fills with zeros page by page:
    a quarter of a UNet step on one core.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def adam(
    parameters: Iterable[Tensor], device: torch.device, *, lr: float, weight_decay: float, beta1: float = 0.9
) -> torch.optim.Adam:
    """Adam, in one kernel for all parameters where the device has it."""
    fused = device.type in ("cpu", "cuda")
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, 0.999), weight_decay=weight_decay, fused=fused)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch; the one place where the global generators are set."""
    set_seed(seed)


def describe_device(accelerator: Accelerator) -> str:
    """For the console: device, precision, processes."""
    name = (
        torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else accelerator.device.type
    )
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' if count > 1 else ''}" if accelerator.device.type == "cpu" else ""
    return f"{name}, {precision}{threads}{processes}"
