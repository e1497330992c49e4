"""What a GPU gives, beside the plain way on the same GPU: the network, `Enhancer`, a training run.

gpu_network: the network on arrays that lie on the GPU, by CUDA events. "plain": the layers one after the other, as
published. Its rows in fp32, in TF32 (which this project switches off) and bf16; captured as a CUDA graph; compiled.
gpu_photo: `Enhancer`, from a photo in memory to its result in memory, 8 bits. "plain": the network as published and
arrays of floats both ways.
gpu_train: steps of RAVE with full-size encoders of random weights in `train_rave.py`'s own loop, at 224 pixels.
All run on an NVIDIA GPU alone.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from common.errors import UserError
from lab.bench.clock import agreement, limit_tflops, seconds_of, summary, synchronise, synthetic
from lab.bench.convolutions import FLOPS
from lab.bench.inference import FRAMES, RUNS, WEIGHTS, psnr
from lab.bench.plain import plain, plain_enhancer

CASES = ("gpu_network", "gpu_photo", "gpu_train")
SIZES = FRAMES | {"24": RUNS["24"]}  # height, width; the plain way gets no more than FRAMES: 1.4 GB a megapixel
SIDE, BATCH, STEPS = 224, 8, 200  # of a training: pixels, photos, steps
PLAIN_STEPS, WARM = 15, 5  # steps of the authors' way; those that are not timed


def measure(case: str, repeats: int) -> dict:
    """The rows of one case. Raises UserError where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"{case}: expected an NVIDIA GPU, found none; choose other cases with --cases")
    return {"gpu_network": _networks, "gpu_photo": _photos, "gpu_train": _training}[case](repeats)


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    texts = [f"{name:32} {1000 * row['median']:9.2f} ms"]
    texts += [f"{row['ratio']:.1f} times the plain way"] if "ratio" in row else []
    texts += [f"{row['tflops']:.0f} of {row['limit_tflops']:.0f} TFLOP/s"] if "tflops" in row else []
    texts += [f"{row['gpu_peak_mb']:.0f} MB of the GPU"] if "gpu_peak_mb" in row else []
    texts += [f"{row['psnr']:.1f} dB"] if row.get("psnr") else []
    return ", ".join(texts)


def _networks(repeats: int) -> dict:
    import torch

    from models.checkpoints import load_unet
    from serving.backends import Choice, build
    from serving.finish import planes_on

    unet = load_unet(WEIGHTS)
    limits = {"fp32": limit_tflops("cuda", "fp32"), "bf16": limit_tflops("cuda", "bf16")}
    with _tf32():
        limits["TF32"] = limit_tflops("cuda", "fp32")
    weights = {name: tensor.to("cuda") for name, tensor in unet.state_dict().items()}
    networks = {p: build(Choice("torch", p, "cuda", ""), lambda: unet).whole for p in ("fp32", "bf16")}
    compiled = build(Choice("torch-compile", "bf16", "cuda", ""), lambda: unet).whole  # once, for all sizes
    rows: dict[str, dict] = {}
    for size, sides in SIZES.items():
        images = planes_on("cuda", synthetic(*sides))
        ways: dict[str, tuple[str, Callable]] = {
            "plain, fp32": ("fp32", partial(plain, weights, images.contiguous())),
            "plain, TF32": ("TF32", partial(plain, weights, images.contiguous())),
            "fp32": ("fp32", partial(networks["fp32"], images)),
            "TF32": ("TF32", partial(networks["fp32"], images)),
            "bf16": ("bf16", partial(networks["bf16"], images)),
            "bf16, CUDA graph": ("bf16", partial(networks["bf16"], images)),
            "bf16, compiled": ("bf16", partial(compiled, images)),
        }
        for name, (precision, work) in ways.items():
            if size not in FRAMES and precision != "bf16":
                continue
            with torch.inference_mode(), _tf32(on=precision == "TF32"):
                rows[f"{size}, {name}"] = row = _on_gpu(_captured(work) if "graph" in name else work, repeats)
            row["tflops"] = FLOPS * math.prod(sides) / row["median"] / 1e12
            row["limit_tflops"] = limits[precision]
            if size in FRAMES and not name.startswith("plain"):
                row["ratio"] = rows[f"{size}, plain, fp32"]["median"] / row["median"]
    return {"gpu": torch.cuda.get_device_name(), "rows": rows}


@contextmanager
def _tf32(on: bool = True) -> Iterator[None]:
    """With TF32 products, which this project switches off."""
    import torch

    from models.arithmetic import exact_fp32

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        exact_fp32()


def _captured(work: Callable) -> Callable:
    """The same work as one launch of all its kernels."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _on_gpu(work: Callable, repeats: int) -> dict:
    """Seconds by CUDA events, after three runs that warm up, and the GPU's peak memory."""
    import torch

    seconds = []
    torch.cuda.reset_peak_memory_stats()
    for number in range(3 * repeats + 3):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        work()
        after.record()
        torch.cuda.synchronize()
        if number >= 3:
            seconds.append(before.elapsed_time(after) / 1000)
    row = summary(seconds) | {"gpu_peak_mb": torch.cuda.max_memory_allocated() / 1e6}
    torch.cuda.empty_cache()
    return row


def _photos(repeats: int) -> dict:
    import torch

    from serving.enhancer import Enhancer

    plainly = plain_enhancer(WEIGHTS, "cuda")
    rows: dict[str, dict] = {}
    for size, sides in SIZES.items():
        rgb = synthetic(*sides)
        ways: dict[str, Callable] = {"plain": plainly} if size in FRAMES else {}
        for precision in ("fp32", "bf16"):
            enhancer = Enhancer(WEIGHTS, device="cuda", precision=precision)
            ways[precision] = lambda rgb, enhancer=enhancer: enhancer.enhance(rgb, keep_map=False)[0]
        expected = None
        for name, work in ways.items():
            torch.cuda.reset_peak_memory_stats()
            result = work(rgb).astype(np.float32)
            expected = result if expected is None else expected
            seconds = [seconds_of(partial(work, rgb)) for _ in range(repeats + 2)][2:]
            rows[f"{size}, {name}"] = row = summary(seconds) | synchronise()
            row["psnr"] = psnr(result, expected)
            if "plain" in ways and name != "plain":
                row["ratio"] = rows[f"{size}, plain"]["median"] / row["median"]
            torch.cuda.empty_cache()
    return {"rows": rows}


def _training(_: int) -> dict:
    """Rows "plain", a few steps of the authors' way, and each precision, a run of `STEPS` steps."""
    import torch
    from accelerate.state import AcceleratorState
    from torch.utils.flop_counter import FlopCounterMode

    from lab.bench.plain import plain_steps
    from lab.bench.training import ENCODERS, PHOTOS, fast_steps, step_config, step_task

    rows: dict[str, dict] = {}

    def run(name: str, steps: Iterator[float], count: int) -> None:
        torch.cuda.reset_peak_memory_stats()
        losses, seconds = [], []
        for _ in range(count):
            started = time.perf_counter()
            losses.append(next(steps))
            synchronise()
            seconds.append(time.perf_counter() - started)
        rows[name] = summary(seconds[WARM:]) | synchronise() | {"losses": losses}
        rows[name]["photos_per_second"] = BATCH / rows[name]["median"]

    limits = {precision: limit_tflops("cuda", precision) for precision in ("fp32", "bf16")}
    for precision in limits:
        config = step_config(SIDE, BATCH, ENCODERS, [f"train.precision={precision}", "train.device=cuda"])
        task = step_task(config)
        steps = fast_steps(config, task)
        run(precision, steps, STEPS)
        if precision == "fp32":
            with FlopCounterMode(display=False) as counter:
                next(steps)
            plainly = step_task(config)  # of the same weights
            run("plain", plain_steps(config, plainly, PHOTOS), PLAIN_STEPS)
        rows[precision]["tflops"] = counter.get_total_flops() / rows[precision]["median"] / 1e12
        rows[precision]["limit_tflops"] = limits[precision]
        rows[precision]["ratio"] = rows["plain"]["median"] / rows[precision]["median"]
        rows[precision]["loss_agreement"] = agreement(rows["plain"]["losses"], rows[precision]["losses"][:PLAIN_STEPS])
        AcceleratorState._reset_state(reset_partial_state=True)  # it keeps one precision for a process
    return {"side": SIDE, "batch": BATCH, "encoders": ENCODERS, "rows": rows}
