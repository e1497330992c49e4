"""The training cases of the benchmark: one RAVE step. Those that read folders: folders.py.

"baseline" is the authors' way (plain.py). Both ways start from the same weights and see the same photos;
`loss_agreement` is the largest relative difference of their losses.

The ways of a step run in processes of their own that take turns. A row also has its arithmetic rate
(torch.utils.flop_counter) beside that of a large matrix product of the same precision on the same device, in the same
run. On a GPU it also has the device's peak memory; gpu.py has cases for that alone.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError
from configs.load import load_config
from configs.schema import TrainConfig
from lab.bench.clock import Worker, agreement, limit_tflops, summary, synchronise, synthetic
from lab.bench.plain import plain_steps

if TYPE_CHECKING:
    from training.unet_task import UNetTask

ENCODERS = ("ViT-B-32", "RN101")  # guidance, identity; random weights
LITE = ("efficientnet-lite0", "efficientnet-lite0")
STEPS = {"rave256": (256, 4, ENCODERS), "rave512": (512, 1, ENCODERS), "lite256": (256, 8, LITE)}  # pixels, photos
CASES = tuple(STEPS)
WAYS = {
    "fp32": ["train.precision=fp32"],
    "compiled": ["train.precision=fp32", "train.compile=true"],
    "bf16": ["train.precision=bf16"],  # all but the identity encoder
    "fastest": ["train.precision=fastest"],  # that too
    "bf16_compiled": ["train.precision=bf16", "train.compile=true"],
}
BF16 = ("bf16", "fastest", "bf16_compiled")
ONLY = {"bf16_compiled": ("lite256",)}  # ways that not all cases have
PHOTOS = 8  # of the step cases
SAME_LOSS = 1e-3  # relative; rounding moves losses of these encoders by about 1e-5


def measure(case: str, repeats: int) -> dict:
    """The figures of one case. Raises UserError where the two ways of a step do not compute the same loss."""
    return _steps(case, repeats)


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    texts = [f"{name:24} {row['median']:8.3f} s ({row['lowest']:.3f} to {row['highest']:.3f})"]
    texts += [f"{row['ratio']:.2f} times the baseline"] if "ratio" in row else []
    texts += [f"{row['peak_mb']:6.0f} MB"] if "peak_mb" in row else []
    texts += [f"{row['tflops']:.2f} of {row['limit_tflops']:.2f} TFLOP/s"] if "tflops" in row else []
    texts += [f"losses agree to {row['loss_agreement']:.1e}"] if "loss_agreement" in row else []
    texts += [f"equal results: {row['equal']}"] if "equal" in row else []
    return ", ".join(texts)


def step_config(side: int, batch: int, encoders: tuple[str, str], overrides: list[str]) -> TrainConfig:
    """RAVE with the authors' constants and encoders of random weights; the folders are not read."""
    guidance, identity = encoders
    settings = [
        "data.backlit_images_path=none",
        "data.welllit_images_path=none",
        f"data.image_size={side}",
        f"unet_model.batch_size={batch}",
        "unet_model.map_bias=1.0",  # alive from the start
        "train.num_workers=0",
        "train.preview_photos=0",
        f"clip.guidance={{model: {guidance}, pretrained: null}}",
        f"clip.identity={{model: {identity}, pretrained: null}}",
    ]
    return load_config(TrainConfig, "rave.yaml", [*settings, *overrides])


def fast_steps(config: TrainConfig, task: "UNetTask | None" = None) -> Iterator[float]:
    """The losses of step after step of the training loop's RAVE phase, on synthetic photos."""
    from training.build import Parts
    from training.loop import Trainer
    from training.phases import schedule

    task = task or step_task(config)
    phases = schedule(config, PHOTOS)
    trainer = Trainer(Parts(config, task.accelerator, phases, task))
    trainer.start_phase(len(phases) - 1)
    for photos in task.batches(phases[-1], 0):
        yield trainer._step(phases[-1], task, photos).values["loss"]


def authors_steps(config: TrainConfig) -> Iterator[float]:
    """The same losses the authors' way."""
    yield from plain_steps(config, step_task(config), PHOTOS)


def step_task(config: TrainConfig) -> "UNetTask":
    import torch

    from data.augment import training_augmentation
    from data.folders import PhotoArray
    from losses.residual import residual_guidance
    from training.build import load_encoders
    from training.runtime import make_accelerator
    from training.unet_task import UNetTask

    accelerator = make_accelerator(config.train.device, config.train.precision)
    guidance, identity = load_encoders(config, accelerator)
    side, dimensions = config.data.image_size, guidance.embed_dim
    photos = PhotoArray(np.stack([synthetic(side, side, seed) for seed in range(PHOTOS)]), training_augmentation())
    means = torch.randn(2, 4, dimensions, generator=torch.Generator().manual_seed(0))
    residual = residual_guidance(*means).to(accelerator.device)
    return UNetTask(config, accelerator, photos, guidance, identity, residual, None)


def work(case: str, way: str) -> None:
    """A worker of its own process.

    For each line in, one out: for "step" its seconds and loss, for "flops" a step's count of them.
    """
    side, batch, encoders = STEPS[case]
    config = step_config(side, batch, encoders, WAYS.get(way, WAYS["fp32"]))
    if way == "baseline":
        steps = authors_steps(config)
    else:
        from training.runtime import keep_memory

        keep_memory()  # as training does
        steps = fast_steps(config)
    print(json.dumps({"choice": way}), flush=True)
    for line in sys.stdin:
        if line.strip() == "flops":
            print(json.dumps(_flops(steps)), flush=True)
            continue
        started = time.perf_counter()
        loss = next(steps)
        on_gpu = synchronise()
        print(json.dumps({"seconds": time.perf_counter() - started, "loss": loss} | on_gpu), flush=True)


def _flops(steps: Iterator[float]) -> int:
    """Floating-point operations of one more step, which is not timed."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        next(steps)
    return counter.get_total_flops()


def _steps(case: str, repeats: int) -> dict:
    import torch

    from serving.backends import has_bf16

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    here = has_bf16("torch", device)
    ways = [way for way in WAYS if (way not in BF16 or here) and case in ONLY.get(way, STEPS)]
    ways = ["baseline", *ways]
    workers = {way: Worker.start(["--train-worker", case, way]) for way in ways}
    answers: dict[str, list[dict]] = {
        way: [worker.ask("step")] for way, worker in workers.items()
    }  # warms up, compiles
    for _ in range(repeats):
        for way, worker in workers.items():
            answers[way].append(worker.ask("step"))
    flops = {
        way: workers[way].ask("flops") for way in ("baseline", "fp32")
    }  # not of compiled code, which cannot be counted
    rows: dict[str, dict] = {}
    for way, worker in workers.items():
        seconds, losses = ([answer[key] for answer in answers[way]] for key in ("seconds", "loss"))
        rows[way] = row = {
            **summary(seconds[1:]),
            "photos_per_second": STEPS[case][1] / statistics.median(seconds[1:]),
            "losses": losses,
        }
        row["peak_mb"] = worker.stop()
        row["tflops"] = flops.get(way, flops["fp32"]) / row["median"] / 1e12
        if gpu:
            row |= {key: answers[way][-1][key] for key in ("gpu", "gpu_peak_mb")}
        if way != "baseline":
            row["ratio"] = rows["baseline"]["median"] / row["median"]
            row["loss_agreement"] = agreement(rows["baseline"]["losses"], losses)
            if way == "fp32" and row["loss_agreement"] > SAME_LOSS:
                raise UserError(
                    f"{case}: expected losses of the plain way {rows['baseline']['losses']}, found {losses}"
                )
    limits = {precision: limit_tflops(device, precision) for precision in ("fp32", *(["bf16"] if here else []))}
    for way, row in rows.items():
        row["limit_tflops"] = limits["bf16" if way in BF16 else "fp32"]
    side, batch, encoders = STEPS[case]
    return {"side": side, "batch": batch, "encoders": encoders, "rows": rows}
