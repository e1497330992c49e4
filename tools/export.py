"""Write the network as one file for other programs: ONNX, OpenVINO or TorchScript.

python -m tools export --format onnx --output enhance.onnx [--checkpoint FILE]
python -m tools export --format openvino --output enhance.xml       (and enhance.bin beside it)
python -m tools export --format torchscript --output enhance.pt

Input `image`: float32 (N,3,H,W), RGB in [0, 1]; N, H and W are free, from 2 pixels a side.
Outputs `illumination` (N,1,H,W), at least 0, and `enhanced` = image / illumination, (N,3,H,W) in [0, 1].

The file takes whole photos. One layer sees all of a photo, so tiles that are enhanced one by one differ from it, and
memory grows with the photo. `inference.py` works in tiles with the same result as for the whole photo.
examples/onnx_without_pytorch.py runs the ONNX file with onnxruntime alone.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

from common import __version__
from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import file_digest, writing
from common.written import check_replaceable
from configs.schema import InferenceModel
from models.shipped import find_weights

OPSET = 18  # of ONNX: the first with resizing as the network needs it, and older than any runtime in use
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}
PACKAGES = {"onnx": ("onnx", "requirements-export.txt"), "openvino": ("openvino", "requirements-openvino.txt")}
OUTPUTS = ["illumination", "enhanced"]
MARK = "weights_sha256"  # a fact that every exported file holds


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", required=True, choices=list(SUFFIXES))
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--checkpoint", default=InferenceModel().checkpoint, metavar="FILE", help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    output, suffix = Path(args.output), SUFFIXES[args.format]
    if output.suffix != suffix:
        raise UserError(f"--output: expected a name that ends in {suffix} for {args.format}, found {args.output}")
    package, requirements = PACKAGES.get(args.format, ("torch", "requirements.txt"))
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"--format: expected {package} to be installed (pip install -r {requirements}), found no such package"
        )
    checkpoint = find_weights(args.checkpoint, "--checkpoint")
    check_replaceable(output, "--output", mark=MARK)
    if args.format == "openvino" and not output.exists():
        check_replaceable(output.with_suffix(".bin"), "--output", mark=MARK)  # its own holds nothing but numbers
    export(checkpoint, args.format, output)
    say(f"{output}: {args.format}, weights of {checkpoint}")
    return EXIT_OK


def export(checkpoint: Path, fmt: str, output: Path) -> None:
    """Write the weights' network to `output`, whole. Raises UserError for weights that cannot be used."""
    import torch
    from torch import Tensor, nn

    from models.checkpoints import load_unet
    from models.retinex import enhance
    from models.weight_files import read_metadata

    class Pool(nn.Module):
        """Adaptive average pooling by two products: ONNX has none for grids that do not divide the photo's sides."""

        def __init__(self, bins: int) -> None:
            super().__init__()
            self.bins = bins

        def members(self, side: int) -> Tensor:  # (bins, side), each row sums to 1
            cell, position = torch.arange(self.bins)[:, None], torch.arange(side)[None]
            first, last = cell * side // self.bins, ((cell + 1) * side + self.bins - 1) // self.bins
            inside = ((position >= first) & (position < last)).float()
            return inside / inside.sum(dim=1, keepdim=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.members(x.shape[2]) @ x @ self.members(x.shape[3]).T

    class Whole(nn.Module):
        """image -> illumination, enhanced."""

        def __init__(self) -> None:
            super().__init__()
            self.unet = load_unet(checkpoint, must_enhance=True).requires_grad_(False)
            for branch in self.unet.PPM1.features:
                branch[0] = Pool(branch[0].output_size)

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            illumination = self.unet(image)
            return illumination, enhance(image, illumination)

    facts = {
        "version": __version__,
        "licence": "code MIT; weights as their source says (pretrained_models/README.md)",
        "input": "image: float32 (N,3,H,W), RGB in [0, 1], sides of at least 2 pixels; no other normalisation",
        "outputs": "illumination (N,1,H,W), at least 0; enhanced (N,3,H,W) in [0, 1]",
        "tiling": "whole photos only: one layer sees all of a photo",
        MARK: file_digest(checkpoint),
        "weights": json.dumps(read_metadata(checkpoint)),
    }
    write: dict[str, Callable] = {"onnx": _onnx, "openvino": _openvino, "torchscript": _torchscript}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing takes the sides for two pixels or more, and says so
        write[fmt](Whole().eval(), torch.rand(1, 3, 16, 18), facts, output)


def _onnx(module, example, facts: dict[str, str], output: Path) -> None:
    import onnx
    import torch

    free = {0: "batch", 2: "height", 3: "width"}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with writing(output) as temporary:
        with contextlib.redirect_stderr(None):
            torch.onnx.export(
                module,
                (example,),
                str(temporary),
                input_names=["image"],
                output_names=OUTPUTS,
                dynamic_axes=dict.fromkeys(["image", *OUTPUTS], free),
                opset_version=OPSET,
                dynamo=False,  # the newer exporter needs a further package
            )
        model = onnx.load(temporary)
        for name, text in facts.items():
            model.metadata_props.add(key=name, value=text)
        onnx.checker.check_model(model)
        onnx.save(model, temporary)


def _openvino(module, example, facts: dict[str, str], output: Path) -> None:
    import openvino

    from serving.openvino_network import openvino_model

    model = openvino_model(module, (example,))
    model.inputs[0].tensor.set_names({"image"})
    model.inputs[0].node.set_friendly_name("image")
    for result, name in zip(model.outputs, OUTPUTS, strict=True):
        result.tensor.set_names({name})
    for name, text in facts.items():
        model.set_rt_info(text, ["enhancement", name])
    with writing(output.with_suffix(".bin")) as weights, writing(output) as graph:
        # OpenVINO names the weights after the graph
        openvino.save_model(model, graph.with_suffix(".xml"), compress_to_fp16=False)
        graph.with_suffix(".bin").replace(weights)


def _torchscript(module, example, facts: dict[str, str], output: Path) -> None:
    import torch

    traced = torch.jit.trace(module, example, check_trace=False)
    content = io.BytesIO()  # given a file, PyTorch's writer aborts the process where the disk is full
    torch.jit.save(traced, content, _extra_files={"metadata.json": json.dumps(facts)})
    with writing(output) as temporary:
        temporary.write_bytes(content.getvalue())


if __name__ == "__main__":
    run(main)
