"""What runs the network, and at which precision: PyTorch, compiled PyTorch or OpenVINO; fp32 or bf16.

OpenVINO is optional (`pip install -r requirements-openvino.txt`) and imported where it is chosen.
"""

import copy
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from common.errors import UserError
from models.convolution import Conv3x3, computes_in_bf16, exact_fp32
from models.unet import IlluminationUNet
from serving.tiles import Network

if TYPE_CHECKING:
    import openvino

OPENVINO_HINT = "pip install -r requirements-openvino.txt"


@dataclass(frozen=True)
class Choice:
    """What runs the network, and why:

    `backend` "torch", "torch-compile" or "openvino", `precision` "fp32" or "bf16".
    """

    backend: str
    precision: str
    device: torch.device
    why: str

    def __str__(self) -> str:
        version = metadata.version("openvino" if self.backend == "openvino" else "torch")
        return f"{self.device}, {self.precision}, {self.backend} {version} ({self.why})"


def choose(backend: str, precision: str, device: torch.device) -> Choice:
    """Resolve "auto": on a CPU OpenVINO where it is installed, and bf16 where the device has arithmetic for it.

    Without such arithmetic bf16 would be slower than fp32 and less exact, so fp32 is taken also where
    bf16 was asked for, and `why` says so. Raises UserError for a backend that is not there.
    """
    installed = util.find_spec("openvino") is not None
    if backend == "openvino" and not installed:
        raise UserError(f"model.backend: expected OpenVINO to be installed ({OPENVINO_HINT}), found no such package")
    if backend == "torch-compile" and device.type == "cpu" and not _has_compiler():
        raise UserError("model.backend: expected a C++ compiler for torch-compile (g++, or what CXX names), found none")
    reasons = []
    if backend == "auto":
        backend = "openvino" if device.type == "cpu" and installed else "torch"
        if device.type == "cpu":
            reasons.append("OpenVINO is installed" if installed else f"faster with OpenVINO: {OPENVINO_HINT}")
    elif backend == "openvino" and device.type != "cpu":
        reasons.append(f"OpenVINO runs on the CPU, {device} is not used")
        device = torch.device("cpu")
    has = has_bf16(backend, device)
    where = "processor" if device.type == "cpu" else "device"
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


def has_bf16(backend: str, device: torch.device) -> bool:
    """Whether the device computes in bf16 itself; elsewhere it is emulated, slower than fp32."""
    if device.type == "cpu" and backend == "openvino":
        return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return computes_in_bf16(device)


def build(choice: Choice, unet: IlluminationUNet) -> Network:
    """The network on what was chosen. `unet`: float32, in eval mode; it is copied."""
    if choice.backend == "openvino":
        return OpenVinoNetwork(unet, choice.precision)
    return TorchNetwork(unet, choice.precision, choice.device, compiled=choice.backend == "torch-compile")


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
        upsampled = (rows[:, None] @ grids @ columns[:, None].transpose(2, 3)).to(x.dtype)
        upsampled = upsampled.contiguous(memory_format=torch.channels_last)  # or all that follows would not be
        return self.unet.after_pooling(self.unet.PPM1.fuse(torch.cat([x, upsampled], dim=1)))


def _parts(unet: IlluminationUNet, interior: bool) -> tuple[_Below, _Above, IlluminationUNet]:
    """What is below the pooling, what is above it, and all of a copy of the network; the three share their weights."""
    unet = copy.deepcopy(unet).requires_grad_(False)
    if interior:  # zero padding is part of the convolution; reflected borders are a copy of all its input
        for module in unet.modules():
            if isinstance(module, Conv3x3):
                module.padding_mode = "zeros"
    return _Below(unet), _Above(unet), unet


def _branches(unet: IlluminationUNet) -> list[nn.Module]:
    return [copy.deepcopy(branch[1:]).float().cpu().requires_grad_(False) for branch in unet.PPM1.features]


class TorchNetwork:
    """The network in PyTorch, channels last; see `serving.tiles.Network`."""

    def __init__(self, unet: IlluminationUNet, precision: str, device: torch.device, *, compiled: bool = False) -> None:
        self.branches = _branches(unet)
        self.device = device
        # on a GPU the grids of the parts wait for the CPU; on a CPU upsampling them by products is what is faster
        self.frames = device.type != "cpu"
        # bf16 weights, not autocast: that casts weights and, on CPUs, every padding's input to fp32 and back
        inner = torch.bfloat16 if precision == "bf16" else torch.float32
        exact_fp32()
        self._parts = {}
        for interior in (False, True):
            parts = [part.to(device, memory_format=torch.channels_last) for part in _parts(unet, interior)]
            parts[2].inner_to(inner)
            self._parts[interior] = [torch.compile(part, dynamic=True) if compiled else part for part in parts]

    def whole(self, images: Tensor) -> Tensor:
        """See `Network.whole`."""
        return self._parts[False][2](images.to(self.device, memory_format=torch.channels_last))

    def below(self, images: Tensor, interior: bool) -> Tensor:
        """See `Network.below`."""
        images = images.to(self.device, memory_format=torch.channels_last)
        return self._parts[interior][0](images)

    def above(self, x: Tensor, rows: Tensor, columns: Tensor, grids: Tensor, interior: bool) -> Tensor:
        """See `Network.above`."""
        return self._parts[interior][1](x, *(t.to(self.device) for t in (rows, columns, grids)))


class OpenVinoNetwork:
    """The network in OpenVINO, on the CPU, on as many threads as PyTorch would take; see `serving.tiles.Network`."""

    device = torch.device("cpu")
    frames = True

    def __init__(self, unet: IlluminationUNet, precision: str) -> None:
        self.branches = _branches(unet)
        self._unet = unet
        self._precision = precision
        self._compiled: dict = {}
        # a converted graph cannot decide by itself to repeat, and not reflect, a side of one pixel
        self._narrow = TorchNetwork(unet, "fp32", self.device)

    def whole(self, images: Tensor) -> Tensor:
        """See `Network.whole`."""
        return self._narrow.whole(images) if 1 in images.shape[2:] else self._run(2, False, images)

    def below(self, images: Tensor, interior: bool) -> Tensor:
        """See `Network.below`."""
        return self._narrow.below(images, interior) if 1 in images.shape[2:] else self._run(0, interior, images)

    def above(self, x: Tensor, rows: Tensor, columns: Tensor, grids: Tensor, interior: bool) -> Tensor:
        """See `Network.above`."""
        inputs = x, rows, columns, grids
        return self._narrow.above(*inputs, interior) if 1 in x.shape[2:] else self._run(1, interior, *inputs)

    def _run(self, part: int, interior: bool, *inputs: Tensor) -> Tensor:
        if (part, interior) not in self._compiled:
            self._compiled[part, interior] = self._convert(part, interior)
        arrays = [tensor.contiguous().numpy() for tensor in inputs]
        return torch.from_numpy(self._compiled[part, interior](arrays, share_inputs=True)[0])

    def _convert(self, part: int, interior: bool) -> "openvino.CompiledModel":
        shapes = [(1, 32, 8, 9), (1, 8, 12), (1, 9, 12), (1, 32, 12, 12)] if part == 1 else [(1, 3, 8, 9)]
        model = openvino_model(_parts(self._unet, interior)[part], tuple(map(torch.zeros, shapes)))
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return _core().compile_model(model, "CPU", options)


def openvino_model(module: nn.Module, example: tuple[Tensor, ...]) -> "openvino.Model":
    """The module as OpenVINO's graph, of inputs of any size. `example`: inputs to trace it with."""
    # not openvino.convert_model, which reports its use to a server where the telemetry package is installed
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # tracing is deprecated, and says that it takes the sides for two pixels or more
        # tracing again to check would import half of PyTorch first: a second, of which small photos take few
        traced = TorchScriptPythonDecoder(module, example_input=example, trace_kwargs={"check_trace": False})
    return frontend.convert(frontend.load(traced))


@cache
def _core() -> "openvino.Core":
    import openvino

    return openvino.Core()
