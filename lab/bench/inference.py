"""The inference cases of the benchmark.

0.5, 3: megapixels, array in and array out, in processes that take turns, so that all meet the same load of the machine.
photo, 24, folder: whole runs of inference.py, from start-up to the written file: one photo of 0.5 megapixels,
a large one, 50 small ones. Peak memory is that of the whole process.
"""

import json
import math
import sys
import tempfile
import time
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.paths import REPO_ROOT
from configs.schema import InferenceModel
from data.images import Photo, write_photo
from lab.bench.clock import Worker, summary, synthetic, timed
from lab.bench.plain import plain_enhancer

if TYPE_CHECKING:
    from serving.backends import Choice

WEIGHTS = REPO_ROOT / InferenceModel().checkpoint
FRAMES = {"0.5": (612, 816), "3": (1536, 2048)}  # height, width
RUNS = {"photo": (612, 816), "24": (4000, 6000), "folder": (300, 400)}
FOLDER = 50  # photos
PLAIN_RUNS = ("photo", "folder")  # others do not fit: the plain way takes about 1.8 GB a megapixel
VARIANTS = {
    "fp32": ("torch", "fp32"),
    "torch": ("torch", "auto"),
    "openvino": ("openvino", "auto"),
}  # backend, precision


CASES = (*FRAMES, *RUNS)


def measure(case: str, repeats: int) -> dict:
    """The figures of one case, by row: "baseline" (the plain way) and what inference.py offers on this machine."""

    from serving.backends import choose

    here = {name: how for name, how in VARIANTS.items() if name != "openvino" or util.find_spec("openvino")}
    choices = {name: _without_reason(choose(*how, "cpu")) for name, how in here.items()}
    twins = {name: next(other for other in choices if choices[other] == choice) for name, choice in choices.items()}
    variants = {name: how for name, how in here.items() if twins[name] == name}  # equal choices are measured once
    with tempfile.TemporaryDirectory() as folder:
        measured = (_frames if case in FRAMES else _runs)(case, variants, Path(folder), repeats)
    for name, twin in twins.items():
        measured["rows"].setdefault(name, {"same_as": twin}).setdefault("choice", choices[name])
    return measured | {"openvino": metadata.version("openvino") if "openvino" in here else None}


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    if "same_as" in row:
        return f"{name:9} as {row['same_as']}"
    texts = [
        f"{name:9} {row['median']:8.2f} s ({row['lowest']:.2f} to {row['highest']:.2f})",
        f"{row['peak_mb']:6.0f} MB",
    ]
    texts += [f"{row['ratio']:.2f} times the baseline"] if row.get("ratio") else []
    texts += [f"{row['psnr']:.1f} dB"] if row.get("psnr") else []
    return ", ".join([*texts, *([row["choice"]] if row.get("choice") else [])])


def _frames(case: str, variants: dict, folder: Path, repeats: int) -> dict:
    """Every variant in a process of its own; they take turns, one round after the other."""
    photo = folder / f"{case}.npy"
    np.save(photo, synthetic(*FRAMES[case]))
    names = ("baseline", *variants)
    workers = {name: Worker.start(["--worker", name, str(photo), str(folder / f"{case}_{name}.npy")]) for name in names}
    for worker in workers.values():
        worker.ask("run")  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            seconds[name].append(worker.ask("run")["seconds"])
    expected = np.load(folder / f"{case}_baseline.npy").astype(np.float32)
    rows: dict[str, dict] = {}
    for name, worker in workers.items():
        rows[name] = {
            "choice": worker.choice,
            **_with_speed(summary(seconds[name]), FRAMES[case]),
            "peak_mb": worker.stop(),
        }
        if name != "baseline":
            rows[name]["ratio"] = rows["baseline"]["median"] / rows[name]["median"]
            mse = float(np.mean((np.load(folder / f"{case}_{name}.npy") - expected) ** 2))
            rows[name]["psnr"] = 10 * math.log10(255**2 / mse) if mse else None  # null: equal in 8 bits
    return {"megapixels": math.prod(FRAMES[case]) / 1e6, "rows": rows}


def _runs(case: str, variants: dict, folder: Path, repeats: int) -> dict:
    """Whole runs of inference.py: a large photo once for each variant, small ones in turns."""
    photos, count = folder / case, FOLDER if case == "folder" else 1
    for number in range(count):
        write_photo(photos / f"{number}.jpg", Photo(synthetic(*RUNS[case], seed=number)))
    commands = {}
    if case in PLAIN_RUNS:
        commands["baseline"] = ["-m", "lab.bench", "--plain-run", str(photos), str(folder / f"{case}_baseline")]
    for name, (backend, precision) in variants.items():
        switches = ["--set", "model.device=cpu", f"--set=model.backend={backend}", f"--set=model.precision={precision}"]
        commands[name] = [
            str(REPO_ROOT / "inference.py"),
            str(photos),
            "--output",
            str(folder / f"{case}_{name}"),
            *switches,
        ]
    runs: dict[str, list[dict]] = {name: [] for name in commands}
    for _ in range(repeats if case in PLAIN_RUNS else 1):
        for name, command in commands.items():
            runs[name].append(timed(command))
    rows: dict[str, dict] = {}
    for name, its in runs.items():
        rows[name] = _with_speed(summary([run["seconds"] for run in its]), (count, *RUNS[case]))
        rows[name]["peak_mb"] = max(run["peak_mb"] for run in its)
        if name != "baseline" and "baseline" in runs:
            rows[name]["ratio"] = rows["baseline"]["median"] / rows[name]["median"]
    return {"megapixels": count * math.prod(RUNS[case]) / 1e6, "rows": rows}


def _without_reason(choice: "Choice") -> str:
    return str(choice).split(" (")[0]


def _with_speed(row: dict[str, float], sides: tuple[int, ...]) -> dict[str, float]:
    return {**row, "megapixels_per_second": math.prod(sides) / 1e6 / row["median"]}


def work(variant: str, photo: str, result: str) -> None:
    """A worker of its own process: for each line in, enhances the photo once and prints the seconds."""
    if variant == "baseline":
        choice, enhance = "cpu, fp32, plain PyTorch", plain_enhancer(WEIGHTS)
    else:
        from serving.enhancer import Enhancer

        backend, precision = VARIANTS[variant]
        enhancer = Enhancer(WEIGHTS, device="cpu", backend=backend, precision=precision)
        choice = _without_reason(enhancer.choice)

        def enhance(rgb: np.ndarray) -> np.ndarray:
            return enhancer.enhance(rgb, keep_map=False)[0]

    rgb = np.load(photo)
    print(json.dumps({"choice": choice}), flush=True)
    for number, _ in enumerate(sys.stdin):
        started = time.perf_counter()
        enhanced = enhance(rgb)
        seconds = time.perf_counter() - started
        if number == 0:
            np.save(result, enhanced)
        print(json.dumps({"seconds": seconds}), flush=True)
