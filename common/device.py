"""The processor that a config asks for."""

import sys
from pathlib import Path

from common.errors import UserError

# Linux's files of GPUs (NVIDIA, AMD, Intel, any under WSL) and of other accelerators that PyTorch may know
DEVICE_FILES = ("nvidia*", "kfd", "dri/render*", "dxg", "accel*", "hl[0-9]*", "davinci*", "cambricon*", "mtgpu*")


def has_accelerator_files() -> bool:
    """Whether there may be more than a CPU here, told without PyTorch; on other systems than Linux there always may."""
    return sys.platform != "linux" or any(next(Path("/dev").glob(name), None) for name in DEVICE_FILES)


def check_device(device: str, key: str) -> None:
    """Raises UserError where `device` is "cuda" and PyTorch cannot use an NVIDIA GPU here. key: of the config."""
    if device != "cuda":
        return
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # no driver, one that is too old, no GPU, or a build for CPUs
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        found = f"PyTorch {torch.__version__} says: {reason}"
        raise UserError(f"{key}: expected an NVIDIA GPU, found none that can be used ({found}); or set auto") from None
