"""Where a run takes place: device, precision, processes and seeds. All through Accelerate."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed


def make_accelerator(device: str, precision: str) -> Accelerator:
    """An Accelerator for `device` "auto" | "cpu" and `precision` "auto" | "fp32" | "bf16".

    "auto" precision is bf16 on a GPU that has it, fp32 elsewhere.
    """
    if precision == "auto":
        gpu = device == "auto" and torch.cuda.is_available()
        precision = "bf16" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return Accelerator(cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch; the one place where the global generators are set."""
    set_seed(seed)


def describe_device(accelerator: Accelerator) -> str:
    """For the console: device, precision, processes."""
    name = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else accelerator.device.type
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    threads = f", {torch.get_num_threads()} threads" if accelerator.device.type == "cpu" else ""
    return f"{name}, {precision}{threads}{processes}"
