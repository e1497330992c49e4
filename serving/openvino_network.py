"""The network in OpenVINO (`pip install -r requirements-openvino.txt`).

What OpenVINO compiled for whole photos is kept in the user's cache folder. Where it is there, PyTorch, which reads the
weights and traces the network, is not imported at all: that takes longer than a photo.
"""

import contextlib
import hashlib
import io
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError
from common.files import read_file, writing
from common.paths import user_cache

if TYPE_CHECKING:
    import openvino
    from torch import Tensor, nn

    from models.unet import IlluminationUNet
    from serving.torch_network import TorchNetwork

KEPT = 16  # compiled networks in the cache, of 1.2 MB each; the longest unused go
BELOW, ABOVE, WHOLE = range(3)  # places in `serving.torch_network.parts`


class OpenVinoNetwork:
    """The network in OpenVINO, on the CPU, on as many threads as PyTorch would take; see `serving.tiles.Network`.

    load: gives the network, float32, in eval mode. precision: "fp32" or "bf16". identity: what tells its weights and
    padding from others, for the cache of compiled networks; None: it is not kept. Without a compiled network in the
    cache `load` is called at once, so that what it raises about the weights is raised here.
    """

    device = "cpu"

    def __init__(self, load: Callable[[], "IlluminationUNet"], precision: str, *, identity: str | None = None) -> None:
        self._load = load
        self._options = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": _threads(),
        }
        self._compiled: dict = {}
        file = identity and _cache_file(identity, precision)
        if file and (model := _imported(file, self._options)):
            self._compiled[WHOLE, False] = model
        else:
            load()
            if file:
                self._compiled[WHOLE, False] = self._convert(WHOLE, False)
                _keep(self._compiled[WHOLE, False], file)

    @cached_property
    def branches(self) -> "list[nn.Module]":
        """See `Network.branches`."""
        from serving.torch_network import pooled_branches

        return pooled_branches(self._load())

    @cached_property
    def _narrow(self) -> "TorchNetwork":
        """A converted graph cannot decide by itself to repeat, and not reflect, a side of one pixel."""
        import torch

        from serving.torch_network import TorchNetwork

        return TorchNetwork(self._load(), "fp32", torch.device("cpu"))

    def whole(self, images: "np.ndarray | Tensor") -> np.ndarray:
        """See `Network.whole`."""
        if 1 in images.shape[2:]:
            return self._narrow.whole(images).numpy()
        return self._run(WHOLE, False, np.asarray(images))

    def below(self, images: "Tensor", interior: bool) -> "Tensor":
        """See `Network.below`."""
        if 1 in images.shape[2:]:
            return self._narrow.below(images, interior)
        return self._tensor(BELOW, interior, images)

    def above(self, x: "Tensor", rows: "Tensor", columns: "Tensor", grids: "Tensor", interior: bool) -> "Tensor":
        """See `Network.above`."""
        inputs = x, rows, columns, grids
        return self._narrow.above(*inputs, interior) if 1 in x.shape[2:] else self._tensor(ABOVE, interior, *inputs)

    def _tensor(self, part: int, interior: bool, *inputs: "Tensor") -> "Tensor":
        import torch

        return torch.from_numpy(self._run(part, interior, *(tensor.numpy() for tensor in inputs)))

    def _run(self, part: int, interior: bool, *arrays: np.ndarray) -> np.ndarray:
        if (part, interior) not in self._compiled:
            self._compiled[part, interior] = self._convert(part, interior)
        return self._compiled[part, interior]([np.ascontiguousarray(array) for array in arrays], share_inputs=True)[0]

    def _convert(self, part: int, interior: bool) -> "openvino.CompiledModel":
        import torch

        from serving.torch_network import parts

        shapes = [(1, 32, 8, 9), (1, 8, 12), (1, 9, 12), (1, 32, 12, 12)] if part == ABOVE else [(1, 3, 8, 9)]
        model = openvino_model(parts(self._load(), interior)[part], tuple(map(torch.zeros, shapes)))
        return core().compile_model(model, "CPU", self._options)


def openvino_model(module: "nn.Module", example: tuple["Tensor", ...]) -> "openvino.Model":
    """The module as OpenVINO's graph, of inputs of any size. `example`: inputs to trace it with."""
    # not openvino.convert_model, which reports its use to a server where the telemetry package is installed
    import torch
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
def core() -> "openvino.Core":
    """OpenVINO, started once."""
    import openvino

    return openvino.Core()


def _threads() -> int:
    """As PyTorch takes them; 0: OpenVINO decides, which takes one a core as PyTorch does."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else 0


# ---------------------------------------------------------------------------------------------
# Cache of compiled networks
# ---------------------------------------------------------------------------------------------


def _cache_file(identity: str, precision: str) -> Path | None:
    """Where the compiled network is kept: a name out of all that it depends on; None where there is no such folder."""
    import openvino

    sources = [Path(__file__), *(Path(__file__).parents[1] / "models" / name for name in ("unet.py", "convolution.py"))]
    facts = [identity, precision, openvino.get_version()]
    facts += [str(core().get_property("CPU", name)) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    facts += [hashlib.sha256(read_file(source)).hexdigest() for source in sources]
    folder = user_cache()
    return folder and folder / "openvino" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.blob"


def _imported(file: Path, options: dict) -> "openvino.CompiledModel | None":
    """The compiled network in a file; None where there is none that can be used."""
    with contextlib.suppress(OSError, UserError, RuntimeError):  # RuntimeError: OpenVINO's, of a damaged file
        content = read_file(file)
        digest, blob = content[:32], content[32:]
        if hashlib.sha256(blob).digest() == digest:  # OpenVINO does not check what it reads
            os.utime(file)
            return core().import_model(io.BytesIO(blob), "CPU", options)
    return None


def _keep(model: "openvino.CompiledModel", file: Path) -> None:
    """Write the compiled network to the cache, if that can be written."""
    blob = model.export_model().getvalue()
    with contextlib.suppress(OSError, UserError):
        with writing(file) as temporary:
            temporary.write_bytes(hashlib.sha256(blob).digest() + blob)
        files = sorted(file.parent.glob("*.blob"), key=lambda path: path.stat().st_mtime)
        for old in files[:-KEPT]:
            old.unlink(missing_ok=True)
