"""What runs the network, and at which precision: PyTorch, compiled PyTorch or OpenVINO; fp32 or bf16.

OpenVINO is optional (`pip install -r requirements-openvino.txt`). It and PyTorch are imported where they are chosen.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from typing import TYPE_CHECKING

from common.errors import UserError

if TYPE_CHECKING:
    from models.unet import IlluminationUNet
    from serving.tiles import Network

OPENVINO_HINT = "pip install -r requirements-openvino.txt"


@dataclass(frozen=True)
class Choice:
    """What runs the network, and why:

    `backend` "torch", "torch-compile" or "openvino", `precision` "fp32" or "bf16", `device` as PyTorch names it.
    """

    backend: str
    precision: str
    device: str
    why: str

    def __str__(self) -> str:
        version = metadata.version("openvino" if self.backend == "openvino" else "torch")
        reasons = self.why.split("; ")
        most = next((reason for reason in reasons if "asked for" in reason), reasons[0])  # one, for a console's line
        others = "; fp32 for very dark photos" if self.precision == "bf16" else ""
        return f"{self.device}, {self.precision}, {self.backend} {version} ({most}{others})"


def choose(backend: str, precision: str, device: str) -> Choice:
    """Resolve "auto": on a CPU OpenVINO where it is installed, and bf16 where the device has arithmetic for it.

    Without such arithmetic bf16 would be slower than fp32 and less exact, so fp32 is taken also where
    bf16 was asked for, and `why` says so. Raises UserError for a backend that is not there.
    """
    installed = util.find_spec("openvino") is not None
    if backend == "openvino" and not installed:
        raise UserError(f"model.backend: expected OpenVINO to be installed ({OPENVINO_HINT}), found no such package")
    if backend == "torch-compile" and device == "cpu" and not _has_compiler():
        raise UserError("model.backend: expected a C++ compiler for torch-compile (g++, or what CXX names), found none")
    on_cpu, reasons = device == "cpu", []
    if backend == "auto":
        backend = "openvino" if on_cpu and installed else "torch"
        if on_cpu:
            reasons.append("OpenVINO is installed" if installed else f"faster with OpenVINO: {OPENVINO_HINT}")
    elif backend == "openvino" and not on_cpu:
        reasons.append(f"OpenVINO runs on the CPU, {device} is not used")
        device = "cpu"
    has = has_bf16(backend, device)
    where = "processor" if device == "cpu" else "device"
    if precision != "fp32":
        asked = "bf16 was asked for, but " if precision == "bf16" and not has else ""
        reasons.append(
            f"{asked}this {where} has {'' if has else 'no '}bf16 arithmetic{', for photos of 8 bits' if has else ''}"
        )
        precision = "bf16" if has else "fp32"
    return Choice(backend, precision, device, "; ".join(reasons) or "as configured")


def _has_compiler() -> bool:
    """As `torch.compile` looks for it."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")) is not None


def has_bf16(backend: str, device: str) -> bool:
    """Whether the device computes in bf16 itself; elsewhere it is emulated, slower than fp32."""
    if device == "cpu" and backend == "openvino":
        from serving.openvino_network import core

        return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    import torch

    from models.arithmetic import computes_in_bf16

    return computes_in_bf16(torch.device(device))


def build(choice: Choice, load: "Callable[[], IlluminationUNet]", identity: str | None = None) -> "Network":
    """The network on what was chosen.

    load: gives it, float32, in eval mode; it is copied. identity: as `OpenVinoNetwork` takes it.
    """
    if choice.backend == "openvino":
        from serving.openvino_network import OpenVinoNetwork

        return OpenVinoNetwork(load, choice.precision, identity=identity)
    import torch

    from serving.torch_network import TorchNetwork

    compiled = choice.backend == "torch-compile"
    return TorchNetwork(load(), choice.precision, torch.device(choice.device), compiled=compiled)
