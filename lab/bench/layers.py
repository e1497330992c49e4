"""Which layers hold the time of a RAVE step with full-size encoders, and how near each comes to a matrix product.

Every operation of a step, forward and backward, is timed by itself, which costs little on a CPU: one follows the other.
Operations of one kind are a row: convolutions by network, channels and direction, matrix products, and the rest, which
moves data and computes little.
"""

import time
from collections import defaultdict
from collections.abc import Callable

from lab.bench.clock import limit_tflops, summary
from lab.bench.training import STEPS, WAYS, fast_steps, step_config

CASES = ("layers",)
STEP = "rave256"
RARE = 0.01  # of a step: what takes less is one row


def measure(case: str, repeats: int) -> dict:
    """Rows of the step's kinds of operation, the longest first, in the best precision that the processor has."""
    from serving.backends import has_bf16
    from training.runtime import keep_memory

    keep_memory()  # as training does
    precision = "bf16" if has_bf16("torch", "cpu") else "fp32"
    side, batch, encoders = STEPS[STEP]
    steps = fast_steps(step_config(side, batch, encoders, [*WAYS["fastest"], "train.device=cpu"]))
    next(steps)  # warms up
    seconds: dict[str, list[float]] = defaultdict(list)
    whole = []
    for _ in range(repeats):
        started = time.perf_counter()
        found, flops = operations(lambda: next(steps), side)
        whole.append(time.perf_counter() - started)
        found["between the operations"] = whole[-1] - sum(found.values())
        for name, spent in found.items():
            seconds[name].append(spent)
    total = summary(whole)
    rows = {name: {**summary(values), "flops": flops.get(name, 0)} for name, values in seconds.items()}
    rare = [name for name, row in rows.items() if row["median"] < RARE * total["median"]]
    others = {key: sum(rows[name][key] for name in rare) for key in ("median", "flops")}
    rows = {name: row for name, row in rows.items() if name not in rare}
    rows = dict(sorted(rows.items(), key=lambda item: -item[1]["median"]))
    rows[f"{len(rare)} kinds of less than {RARE:.0%} each"] = others
    rows["step"] = {**total, "flops": sum(flops.values())}
    for row in rows.values():
        row["share"] = row["median"] / total["median"]
    facts = {"step": STEP, "side": side, "batch": batch, "encoders": encoders, "precision": precision}
    return {**facts, "limit_tflops": limit_tflops("cpu", precision), "rows": rows}


def operations(work: Callable[[], object], side: int) -> tuple[dict[str, float], dict[str, int]]:
    """Do the work once -> seconds, and floating-point operations, of each kind of its operations.

    side: of the photos in pixels. Convolutions of maps of that size are the UNet's.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    seconds: dict[str, float] = defaultdict(float)
    flops: dict[str, int] = defaultdict(int)

    class Clock(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            started = time.perf_counter()
            result = function(*args, **(kwargs or {}))
            kind = kind_of(function.overloadpacket.__name__, args, side)
            seconds[kind] += time.perf_counter() - started
            if function.overloadpacket in flop_registry:
                count = flop_registry[function.overloadpacket]
                flops[kind] += count(*args, **(kwargs or {}), out_val=result)
            return result

    with Clock():
        work()
    return seconds, flops


def kind_of(operation: str, args: tuple, side: int) -> str:
    """What a row calls an operation of PyTorch, such as `convolution_backward`, with its arguments."""
    if operation in ("convolution", "convolution_backward"):
        image, weight = args[:2] if operation == "convolution" else args[1:3]
        direction = "backward" if operation == "convolution_backward" else "forward"
        channels, size = f"{weight.shape[1]} → {weight.shape[0]}", f"{weight.shape[-1]} × {weight.shape[-1]}"
        if max(image.shape[-2:]) >= side:
            return f"UNet, convolution {channels}, {direction}"
        return f"encoders, convolutions of {size}, {direction}"
    if operation in ("mm", "addmm", "bmm", "baddbmm") or "attention" in operation:
        return "encoders, matrix products and attention"
    return operation.removeprefix("_")


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    rate = f", {row['flops'] / row['median'] / 1e9:.0f} GFLOP/s" if row["flops"] else ""
    return f"{name:50} {row['median']:8.3f} s, {row['share']:5.1%}{rate}"
