"""What a training step of the network costs beside its convolutions alone (case "unet256").

"step": forward and backward of `IlluminationUNet` on a batch, as training runs it. "convolutions": the same 21 layers,
forward and backward, each by itself on inputs of its size and in the layout that is fastest, padded with zeros: no
activations, no additions, no borders, no pooling.
"""

import statistics
from collections.abc import Callable

from lab.bench.clock import seconds_of, summary

CASES = {"unet256": (256, 8)}  # side in pixels, photos


def measure(case: str, repeats: int) -> dict:
    """Rows "step" and "convolutions" in fp32, and in bf16 where the processor has it; `ratio`: step / convolutions."""
    from serving.backends import has_bf16

    side, batch = CASES[case]
    precisions = ["fp32", *(["bf16"] if has_bf16("torch", "cpu") else [])]
    work = {}
    for precision in precisions:
        step, alone = _step(side, batch, precision), _convolutions(side, batch, precision)
        work |= {f"step, {precision}": step, f"convolutions, {precision}": alone}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(repeats + 1):
        for name, once in work.items():
            spent = seconds_of(once)
            if number:  # the first warms up
                seconds[name].append(spent)
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


def _convolutions(side: int, batch: int, precision: str) -> Callable[[], None]:
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
        (channels, kind): torch.rand(batch, channels, side, side, dtype=kind).contiguous(
            memory_format=torch.channels_last
        )
        for channels, kind in shapes
    }

    def once() -> None:
        for weight, passes_on in layers:
            x = inputs[weight.shape[1], weight.dtype]
            result = F.conv2d(x, weight, padding=1)
            torch.ops.aten.convolution_backward(
                result, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (passes_on, True, False)
            )

    return once
