"""What the network costs beside its convolutions alone: a training step ("unet256"), and a whole photo ("frame").

"step": forward and backward of `IlluminationUNet` on a batch, as training runs it; "network", "OpenVINO": a photo, as
`serving` runs it. "convolutions": the same 21 layers, each by itself on inputs of its size and in the layout that is
fastest, padded with zeros: no activations, no additions, no borders, no pooling. A frame's rows have their arithmetic
rate beside that of a large matrix product.
"""

import importlib.util
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np

from lab.bench.clock import limit_tflops, seconds_of, summary

STEP = (256, 8)  # side in pixels, photos
FRAME = (612, 816)  # pixels
CASES = ("frame", "unet256")
FLOPS = 2 * 278_752  # a pixel: a multiplication and an addition for each weight


def measure(case: str, repeats: int) -> dict:
    """The rows of one case."""
    return _frame(repeats) if case == "frame" else _steps(repeats)


def _frame(repeats: int) -> dict:
    import torch

    from common.paths import REPO_ROOT
    from configs.schema import InferenceModel
    from models.checkpoints import load_unet
    from serving.backends import Choice, build, has_bf16

    unet = load_unet(REPO_ROOT / InferenceModel().checkpoint)
    image = np.random.default_rng(0).random((1, 3, *FRAME), np.float32)
    precisions = ["fp32", *(["bf16"] if has_bf16("torch", "cpu") else [])]
    work = {}
    for precision in precisions:
        work[f"network, {precision}"] = partial(build(Choice("torch", precision, "cpu", ""), lambda: unet).whole, image)
        work[f"convolutions, {precision}"] = _convolutions((1, *FRAME), precision, backward=False)
    if importlib.util.find_spec("openvino"):
        for precision in precisions:
            work[f"OpenVINO, {precision}"] = partial(
                build(Choice("openvino", precision, "cpu", ""), lambda: unet).whole, image
            )
    with torch.inference_mode():
        seconds = _in_turns(work, repeats)
    limits = {precision: limit_tflops("cpu", precision) for precision in precisions}
    rows = {}
    for name, values in seconds.items():
        rows[name] = summary(values)
        rows[name]["tflops"] = FLOPS * FRAME[0] * FRAME[1] / rows[name]["median"] / 1e12
        rows[name]["limit_tflops"] = limits[name.rpartition(" ")[2]]
    return {"height": FRAME[0], "width": FRAME[1], "rows": rows}


def _in_turns(work: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(repeats + 1):
        for name, once in work.items():
            spent = seconds_of(once)
            if number:  # the first warms up
                seconds[name].append(spent)
    return seconds


def _steps(repeats: int) -> dict:
    """Rows "step" and "convolutions" in fp32, and in bf16 where the processor has it; `ratio`: step / convolutions."""
    from serving.backends import has_bf16
    from training.runtime import keep_memory

    keep_memory()  # as training does
    side, batch = STEP
    precisions = ["fp32", *(["bf16"] if has_bf16("torch", "cpu") else [])]
    work = {}
    for precision in precisions:
        step, alone = _step(side, batch, precision), _convolutions((batch, side, side), precision)
        work |= {f"step, {precision}": step, f"convolutions, {precision}": alone}
    seconds = _in_turns(work, repeats)
    rows = {name: summary(values) for name, values in seconds.items()}
    for precision in precisions:
        step, alone = (rows[f"{name}, {precision}"] for name in ("step", "convolutions"))
        ratios = [a / b for a, b in zip(*(seconds[f"{n}, {precision}"] for n in ("step", "convolutions")), strict=True)]
        step["ratio"] = statistics.median(ratios)
        step["megapixels_per_second"] = batch * side * side / 1e6 / step["median"]
        alone["megapixels_per_second"] = batch * side * side / 1e6 / alone["median"]
    return {"side": side, "batch": batch, "rows": rows}


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    ratio = f", {row['ratio']:.2f} times the convolutions alone" if "ratio" in row else ""
    ratio += f", {1000 * row['tflops']:.0f} of {1000 * row['limit_tflops']:.0f} GFLOP/s" if "tflops" in row else ""
    return f"{name:20} {row['median']:8.3f} s ({row['lowest']:.3f} to {row['highest']:.3f}){ratio}"


def _step(side: int, batch: int, precision: str) -> Callable[[], None]:
    import torch

    from models.unet import IlluminationUNet

    torch.manual_seed(0)
    unet = IlluminationUNet(map_bias=1.0).to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)

    def once() -> None:
        unet.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            illumination = unet(images)
        illumination.float().mean().backward()

    return once


def _convolutions(size: tuple[int, int, int], precision: str, *, backward: bool = True) -> Callable[[], None]:
    """size: photos, height, width."""
    import torch
    import torch.nn.functional as F

    from models.convolution import Conv3x3
    from models.unet import IlluminationUNet

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layers = []
    for name, layer in IlluminationUNet().named_modules():
        if isinstance(layer, Conv3x3):
            inner = torch.float32 if name in ("cond1", "cond_add1") else dtype
            weight = layer.weight.detach().to(inner, memory_format=torch.channels_last)
            layers.append((weight, name != "cond1"))
    shapes = {(weight.shape[1], weight.dtype) for weight, _ in layers}
    inputs = {
        (channels, kind): torch.rand(size[0], channels, *size[1:], dtype=kind).contiguous(
            memory_format=torch.channels_last
        )
        for channels, kind in shapes
    }

    def once() -> None:
        for weight, passes_on in layers:
            x = inputs[weight.shape[1], weight.dtype]
            result = F.conv2d(x, weight, padding=1)
            if backward:
                torch.ops.aten.convolution_backward(
                    result, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (passes_on, True, False)
                )

    return once
