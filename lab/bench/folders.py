"""The training cases of the benchmark that read folders: guidance initialisation, the residual vector, two processes.

"baseline" is the authors' way: photo by photo. `loss_agreement` is the largest relative difference of the losses.
"""

import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.paths import REPO_ROOT
from configs.load import load_config
from configs.schema import TrainConfig
from data.images import Photo, write_photo
from lab.bench.clock import agreement, seconds_of, summary, synthetic, timed
from lab.bench.training import ENCODERS, SAME_LOSS, shown

if TYPE_CHECKING:
    from torch import Tensor

    from training.guidance_task import GuidanceTask

__all__ = ["CASES", "measure", "shown"]
CASES = ("guidance", "residual", "scaling")
FOLDER = {"guidance": 32, "residual": 64, "scaling": 24}  # photos in each folder
GUIDANCE_STEPS = 3  # of each way in each round
CACHED = 4  # augmentations of each photo that the cached way encodes
TRAINING_STEPS = 6  # of the scaling case


def measure(case: str, repeats: int) -> dict:
    """The figures of one case."""
    with tempfile.TemporaryDirectory() as folder:
        return {"guidance": _guidance, "residual": _residual, "scaling": _scaling}[case](Path(folder), repeats)


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
