"""The training cases of the benchmark: one RAVE step, guidance initialisation, the residual vector, two processes.

"baseline" is the authors' way (plain.py). Both ways start from the same weights and see the same photos;
`loss_agreement` is the largest relative difference of their losses.

The ways of a step run in processes of their own that take turns. A row also has its arithmetic rate
(torch.utils.flop_counter) beside that of a large matrix product of the same precision on the same device, in the same
run: no step can be faster than this limit. On a GPU it also has the device's peak memory; that branch was never run,
for lack of a GPU.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError
from common.paths import REPO_ROOT
from configs.load import load_config
from configs.schema import TrainConfig
from data.images import Photo, write_photo
from lab.bench.clock import Worker, agreement, seconds_of, summary, synthetic, timed
from lab.bench.plain import plain_steps

if TYPE_CHECKING:
    from torch import Tensor

    from training.guidance_task import GuidanceTask
    from training.unet_task import UNetTask

ENCODERS = ("ViT-B-32", "RN101")  # guidance, identity; random weights
LITE = ("efficientnet-lite0", "efficientnet-lite0")
STEPS = {"rave256": (256, 4, ENCODERS), "rave512": (512, 1, ENCODERS), "lite256": (256, 8, LITE)}  # pixels, photos
CASES = (*STEPS, "guidance", "residual", "scaling")
WAYS = {
    "fp32": ["train.precision=fp32"],
    "compiled": ["train.precision=fp32", "train.compile=true"],
    "bf16": ["train.precision=bf16"],  # all but the identity encoder
    "fastest": ["train.precision=fastest"],  # that too
}
BF16 = ("bf16", "fastest")
PHOTOS = 8  # of the step cases
FOLDER = {"guidance": 32, "residual": 64, "scaling": 24}  # photos in each folder, of the cases that read files
GUIDANCE_STEPS = 3  # of each way in each round
CACHED = 4  # augmentations of each photo that the cached way encodes
TRAINING_STEPS = 6  # of the scaling case
PRODUCT = {"cpu": 4096, "cuda": 16384}  # side of the square matrices whose product is the limit of arithmetic
SAME_LOSS = 1e-3  # relative; rounding moves losses of these encoders by about 1e-5


def measure(case: str, repeats: int) -> dict:
    """The figures of one case. Raises UserError where the two ways of a step do not compute the same loss."""
    if case in STEPS:
        return _steps(case, repeats)
    with tempfile.TemporaryDirectory() as folder:
        return {"guidance": _guidance, "residual": _residual, "scaling": _scaling}[case](Path(folder), repeats)


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    texts = [f"{name:24} {row['median']:8.3f} s ({row['lowest']:.3f} to {row['highest']:.3f})"]
    texts += [f"{row['ratio']:.2f} times the baseline"] if "ratio" in row else []
    texts += [f"{row['peak_mb']:6.0f} MB"] if "peak_mb" in row else []
    texts += [f"{row['tflops']:.2f} of {row['limit_tflops']:.2f} TFLOP/s"] if "tflops" in row else []
    texts += [f"losses agree to {row['loss_agreement']:.1e}"] if "loss_agreement" in row else []
    texts += [f"equal results: {row['equal']}"] if "equal" in row else []
    return ", ".join(texts)


# ---------------------------------------------------------------------------------------------
# One RAVE step
# ---------------------------------------------------------------------------------------------


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


def fast_steps(config: TrainConfig) -> Iterator[float]:
    """The losses of step after step of the training loop's RAVE phase, on synthetic photos."""
    from training.build import Parts
    from training.loop import Trainer
    from training.phases import schedule

    task = _step_task(config)
    phases = schedule(config, PHOTOS)
    trainer = Trainer(Parts(config, task.accelerator, phases, task))
    trainer.start_phase(len(phases) - 1)
    for photos in task.batches(phases[-1], 0):
        yield trainer._step(phases[-1], task, photos)["loss"]


def authors_steps(config: TrainConfig) -> Iterator[float]:
    """The same losses the authors' way."""
    yield from plain_steps(config, _step_task(config), PHOTOS)


def _step_task(config: TrainConfig) -> "UNetTask":
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
        on_gpu = _synchronise()
        print(json.dumps({"seconds": time.perf_counter() - started, "loss": loss} | on_gpu), flush=True)


def _synchronise() -> dict:
    """Wait for the GPU, where there is one -> its name and peak memory."""
    import torch

    if not torch.cuda.is_available():
        return {}
    torch.cuda.synchronize()
    return {"gpu": torch.cuda.get_device_name(), "gpu_peak_mb": torch.cuda.max_memory_allocated() / 1e6}


def _flops(steps: Iterator[float]) -> int:
    """Floating-point operations of one more step, which is not timed."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        next(steps)
    return counter.get_total_flops()


def limit_tflops(device: str, precision: str) -> float:
    """What a large matrix product reaches here, the best of several, in 10^12 operations a second."""
    import torch

    side = PRODUCT[device]
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)

    def product() -> None:
        matrix @ matrix
        _synchronise()

    return 2 * side**3 / min(seconds_of(product) for _ in range(8)) / 1e12


def _steps(case: str, repeats: int) -> dict:
    import torch

    from serving.backends import has_bf16

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    here = has_bf16("torch", device)
    ways = ["baseline", *(way for way in WAYS if way not in BF16 or here)]
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


# ---------------------------------------------------------------------------------------------
# Guidance initialisation, residual vector
# ---------------------------------------------------------------------------------------------


def _guidance(folder: Path, repeats: int) -> dict:
    """Steps of the prompt pair's initialisation: photo by photo, batched, from cached embeddings; they take turns."""
    import torch

    from training.embeddings import load_encoder
    from training.guidance_task import GuidanceTask
    from training.phases import clip_lit_schedule
    from training.runtime import make_accelerator

    def task(cached: int) -> GuidanceTask:
        return GuidanceTask(_guidance_config(folder, cached), accelerator, encoder, folder / "enhanced")

    config = _guidance_config(folder, 0)
    _write_folders(folder, FOLDER["guidance"])
    accelerator = make_accelerator(config.train.device, config.train.precision)
    encoder = load_encoder(config.clip.guidance, config.clip, accelerator.device)
    phase = clip_lit_schedule(config, 1)[0]
    ways = {"baseline": _photo_by_photo(task(0)), "batched": task(0), "cached": task(CACHED)}
    batches = {way: iter(its.batches(phase, 0)) for way, its in ways.items()}
    losses: dict[str, list[float]] = {way: [] for way in ways}

    def step(way: str) -> None:
        terms, _ = ways[way].losses(phase, next(batches[way]))
        ways[way].optimizer.zero_grad()
        sum(terms.values()).backward()
        ways[way].optimizer.step()
        losses[way].append(float(sum(terms.values()).detach()))

    started = time.perf_counter()
    step("cached")
    embedding = time.perf_counter() - started  # and one step
    for way in ("baseline", "batched"):
        step(way)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, its in seconds.items():
            its.append(seconds_of(lambda way=way: [step(way) for _ in range(GUIDANCE_STEPS)]) / GUIDANCE_STEPS)
    rows = {way: summary(its) for way, its in seconds.items()}
    for way in ("batched", "cached"):
        rows[way]["ratio"] = rows["baseline"]["median"] / rows[way]["median"]
    rows["batched"]["loss_agreement"] = agreement(losses["baseline"], losses["batched"])
    rows["cached"] |= {"embedding_seconds": embedding, "augmentations": CACHED}
    facts = {"encoder": encoder.name, "batch": config.guidance_model.batch_size, "photos": 2 * FOLDER["guidance"]}
    return {**facts, "threads": torch.get_num_threads(), "rows": rows}


def _guidance_config(folder: Path, cached: int) -> TrainConfig:
    settings = [
        f"guidance_model.cached_augmentations={cached}",
        f"clip.guidance={{model: {ENCODERS[0]}, pretrained: null}}",
        "train.num_workers=0",
    ]
    return load_config(TrainConfig, "clip_lit.yaml", [*settings, *_folders(folder)])


def _photo_by_photo(task: "GuidanceTask") -> "GuidanceTask":
    """The same task, whose photos go through the encoder one by one."""
    batched = task._embed

    def embed(images: "Tensor") -> "Tensor":
        import torch

        return torch.cat([batched(image[None]) for image in images])

    task._embed = embed
    return task


def _residual(folder: Path, repeats: int) -> dict:
    """lab/residual_speed.py on a folder of synthetic photos, once: it scales its samples up."""
    from lab.residual_speed import measure as residual_speed

    _write_folders(folder, FOLDER["residual"])
    encoder = f"clip.guidance={{model: {ENCODERS[0]}, pretrained: null}}"
    result = residual_speed(load_config(TrainConfig, "rave.yaml", [encoder, *_folders(folder)]), 20, 60)
    total = {
        "baseline": result["seconds"]["one by one: photos"]["wall"]
        + result["seconds"]["one by one: tokens, padded"]["wall"],
        "batched": result["seconds"]["batched: photos"]["wall"] + result["seconds"]["batched: tokens"]["wall"],
    }
    rows = {way: summary([seconds]) for way, seconds in total.items()}
    rows["batched"]["ratio"] = total["baseline"] / total["batched"]
    return {"rows": rows, "detail": result}


# ---------------------------------------------------------------------------------------------
# Two processes
# ---------------------------------------------------------------------------------------------


def _scaling(folder: Path, repeats: int) -> dict:
    """A folder through inference.py, and a short RAVE training, by 1 and 2 processes of one thread each, start-up
    included.
    """
    _write_folders(folder, FOLDER["scaling"], sides=(300, 400))
    rows: dict[str, dict] = {}
    for job, run in (("inference", _enhance), ("training", _train)):
        seconds: dict[int, list[float]] = {1: [], 2: []}
        found: dict[int, dict] = {}
        for _ in range(repeats):
            for processes, its in seconds.items():
                found[processes] = run(folder, processes)
                its.append(found[processes]["seconds"])
        for processes, its in seconds.items():
            rows[f"{job}, {processes} processes"] = summary(its)
        row = rows[f"{job}, 2 processes"]
        row["ratio"] = rows[f"{job}, 1 processes"]["median"] / row["median"]
        row |= _same(found[1]["result"], found[2]["result"])
    return {"photos": FOLDER["scaling"], "training_steps": TRAINING_STEPS, "threads_each": 1, "rows": rows}


def _enhance(folder: Path, processes: int) -> dict:
    output = folder / f"enhanced_{processes}"
    arguments = ["inference.py", str(folder / "backlit"), "--output", str(output)]
    seconds = _launch(processes, [*arguments, "--set=model.device=cpu", "--set=model.backend=torch"])
    return {"seconds": seconds, "result": {path.name: path.read_bytes() for path in sorted(output.glob("*.png"))}}


def _train(folder: Path, processes: int) -> dict:
    name = f"by_{processes}"
    settings = [
        *_folders(folder),
        f"exp.exp_name={name}",
        "data.image_size=128",
        "data.val_backlit_path=null",
        "data.val_gt_path=null",
        "train.device=cpu",
        "train.precision=fp32",  # in bf16 sums of another order differ by more than rounding of float32
        "train.preview_photos=0",
        f"train.num_iters={TRAINING_STEPS}",
        "unet_model.num_reconstruction_iters=0",
        "unet_model.max_extensions=0",
        "unet_model.display_iter=1",
    ]
    wall = _launch(
        processes, ["train_rave.py", "--cfg", "rave_quickstart.yaml", *(f"--set={setting}" for setting in settings)]
    )
    lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    steps = [b["seconds"] - a["seconds"] for a, b in pairwise(lines)]
    return {"seconds": statistics.median(steps), "wall": wall, "result": [line["loss"] for line in lines]}


def _same(one: dict | list, two: dict | list) -> dict:
    """Files: equal to the byte.

    Losses: equal up to rounding, for the gradient of a batch is summed in another order.
    """
    if isinstance(one, dict):
        return {"equal": "yes, every byte" if one == two else "no"}
    difference = agreement(one, two)
    return {"equal": "yes, up to rounding" if difference < SAME_LOSS else "no", "loss_agreement": difference}


def _launch(processes: int, arguments: list[str]) -> float:
    script, *rest = arguments
    launcher = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return timed([*launcher, str(REPO_ROOT / script), *rest], environment)["seconds"]


# ---------------------------------------------------------------------------------------------
# Photos
# ---------------------------------------------------------------------------------------------


def _write_folders(folder: Path, count: int, sides: tuple[int, int] = (256, 256)) -> None:
    for number in range(count):
        dark = synthetic(*sides, seed=number)
        write_photo(folder / "backlit" / f"{number}.png", Photo(dark))
        write_photo(
            folder / "welllit" / f"{number}.png", Photo(np.minimum(dark.astype(np.int32) * 2, 255).astype(np.uint8))
        )


def _folders(folder: Path) -> list[str]:
    return [
        f"data.backlit_images_path={folder / 'backlit'}",
        f"data.welllit_images_path={folder / 'welllit'}",
        f"exp.cache_dir={folder / 'cache'}",
        f"exp.save_dir={folder / 'runs'}",
    ]
