"""The inference cases of the benchmark.

0.5, 3: megapixels, array in and array out, in processes that take turns, so that all meet the same load of the machine.
photo, 24, folder: whole runs of inference.py, from start-up to the written file: one photo of 0.5 megapixels,
a large one, 50 small ones. Peak memory is that of the whole process. With photo: `inference.py --help` too.
png0.5, png3: one more photo of a folder, PNG in and out, start-up taken out: seconds between one result and the next.
"""

import json
import math
import sys
import tempfile
import time
from importlib import metadata, util
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.paths import REPO_ROOT
from configs.schema import InferenceModel
from data.images import Photo, read_rgb8, write_photo
from lab.bench.clock import Worker, limit_tflops, summary, synthetic, timed
from lab.bench.plain import plain_enhancer

if TYPE_CHECKING:
    from serving.backends import Choice

WEIGHTS = REPO_ROOT / InferenceModel().checkpoint
FRAMES = {"0.5": (612, 816), "3": (1536, 2048)}  # height, width
RUNS = {"photo": (612, 816), "24": (4000, 6000), "folder": (300, 400)}
FOLDER = 50  # photos
PNGS = {"png0.5": (612, 816), "png3": (1536, 2048)}
PNG_PHOTOS = {"png0.5": 4, "png3": 3}  # the first one's time is not counted
PNG_ROUNDS = {"png0.5": 2, "png3": 1}  # at most
PLAIN_RUNS = ("photo", "folder")  # others do not fit: the plain way takes about 1.8 GB a megapixel
VARIANTS = {
    "fp32": ("torch", "fp32"),
    "torch": ("torch", "auto"),
    "openvino": ("openvino", "auto"),
}  # backend, precision
CASES = (*FRAMES, *RUNS, *PNGS)


def measure(case: str, repeats: int) -> dict:
    """The figures of one case, by row: "baseline" (the plain way) and what inference.py offers on this machine."""
    from serving.backends import choose

    here = {name: how for name, how in VARIANTS.items() if name != "openvino" or util.find_spec("openvino")}
    choices = {name: _without_reason(choose(*how, "cpu")) for name, how in here.items()}
    twins = {name: next(other for other in choices if choices[other] == choice) for name, choice in choices.items()}
    variants = {name: how for name, how in here.items() if twins[name] == name}  # equal choices are measured once
    with tempfile.TemporaryDirectory() as folder:
        found = _frames if case in FRAMES else _pngs if case in PNGS else _runs
        measured = found(case, variants, Path(folder), repeats)
    if case not in RUNS:
        precisions = {choice.split(", ")[1] for choice in choices.values()}
        measured["limit_tflops"] = {precision: limit_tflops("cpu", precision) for precision in sorted(precisions)}
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
            rows[name]["psnr"] = psnr(np.load(folder / f"{case}_{name}.npy"), expected)
    return {"megapixels": math.prod(FRAMES[case]) / 1e6, "rows": rows}


def _runs(case: str, variants: dict, folder: Path, repeats: int) -> dict:
    """Whole runs of inference.py: a large photo once for each variant, small ones in turns."""
    photos, count = folder / case, FOLDER if case == "folder" else 1
    for number in range(count):
        write_photo(photos / f"{number}.jpg", Photo(synthetic(*RUNS[case], seed=number)))
    names = ("baseline", *variants) if case in PLAIN_RUNS else tuple(variants)
    commands = {name: _command(name, photos, folder / f"{case}_{name}") for name in names}
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
    facts = {"megapixels": count * math.prod(RUNS[case]) / 1e6, "rows": rows}
    if case == "photo":
        help_alone = [str(REPO_ROOT / "inference.py"), "--help"]
        facts["help"] = summary([timed(help_alone)["seconds"] for _ in range(repeats)])
    return facts


def _pngs(case: str, variants: dict, folder: Path, repeats: int) -> dict:
    """Runs over a folder of equal photos, every way in turn; what counts is when each result came."""
    photos, count = folder / case, PNG_PHOTOS[case]
    for number in range(count):
        write_photo(photos / f"{number}.png", Photo(synthetic(*PNGS[case], seed=number)))
    names = ("baseline", *variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peaks = dict.fromkeys(names, 0.0)
    for turn in range(min(repeats, PNG_ROUNDS[case])):
        for name in names:
            output = folder / f"{name}_{turn}"
            peaks[name] = max(peaks[name], timed(_command(name, photos, output))["peak_mb"])
            # not when it was modified: results keep that of their photo
            times = sorted(path.stat().st_ctime_ns / 1e9 for path in output.glob("*.png"))
            seconds[name] += [after - before for before, after in pairwise(times)]
    expected = read_rgb8(folder / "baseline_0" / "0.png").astype(np.float32)
    rows: dict[str, dict] = {}
    for name in names:
        rows[name] = _with_speed(summary(seconds[name]), PNGS[case]) | {"peak_mb": peaks[name]}
        if name != "baseline":
            rows[name]["ratio"] = rows["baseline"]["median"] / rows[name]["median"]
            rows[name]["psnr"] = psnr(read_rgb8(folder / f"{name}_0" / "0.png"), expected)
    return {"megapixels": math.prod(PNGS[case]) / 1e6, "photos": count, "rows": rows}


def _command(name: str, photos: Path, output: Path) -> list[str]:
    """The script that enhances a folder: the plain way's, or inference.py with its switches."""
    if name == "baseline":
        return ["-m", "lab.bench", "--plain-run", str(photos), str(output)]
    backend, precision = VARIANTS[name]
    switches = ["model.device=cpu", f"model.backend={backend}", f"model.precision={precision}"]
    script = [str(REPO_ROOT / "inference.py"), str(photos), "--output", str(output)]
    return [*script, *(f"--set={switch}" for switch in switches)]


def psnr(found: np.ndarray, expected: np.ndarray) -> float | None:
    """In dB; None: equal in 8 bits."""
    mse = float(np.mean((found - expected) ** 2))
    return 10 * math.log10(255**2 / mse) if mse else None


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
