"""How fast, and in how much memory, beside the plain way in the same run; writes benchmarks/results.json (`make bench`).

python tools/benchmark.py [--cases 0.5 3 photo 12 24 100 folder rave256 ...] [--repeats 5] [--json FILE]

The plain way ("baseline") is the network as the authors run it: whole frame, NCHW, eager, fp32, one photo after the other.
0.5, 3: megapixels, array in and array out, in processes that take turns, so that all meet the same load of the machine.
photo, 12, 24, 100, folder: whole runs of inference.py, from start-up to the written file: one photo of 0.5 megapixels, large
photos, 50 small ones. Peak memory is that of the whole process.
rave256, rave512, guidance, residual, scaling: training, see tools/benchmark_training.py.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text
from common.paths import REPO_ROOT
from common.provenance import provenance
from configs.schema import InferenceModel
from data.images import Photo, read_rgb8, write_photo

if TYPE_CHECKING:
    from torch import Tensor

    from serving.backends import Choice

WEIGHTS = REPO_ROOT / InferenceModel().checkpoint
FRAMES = {"0.5": (612, 816), "3": (1536, 2048)}  # height, width
RUNS = {"photo": (612, 816), "12": (3000, 4000), "24": (4000, 6000), "100": (8000, 12500), "folder": (300, 400)}
FOLDER = 50  # photos
PLAIN_RUNS = ("photo", "folder")  # others do not fit: the plain way takes about 1.8 GB a megapixel
TRAINING = ("rave256", "rave512", "guidance", "residual", "scaling")
VARIANTS = {
    "fp32": ("torch", "fp32"),
    "torch": ("torch", "auto"),
    "openvino": ("openvino", "auto"),
}  # backend, precision


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = [*FRAMES, *RUNS, *TRAINING]
    parser.add_argument("--cases", nargs="+", default=cases, choices=cases, metavar="CASE", help="default: all")
    parser.add_argument("--repeats", type=int, default=5, help="of all but large photos (default: %(default)s)")
    parser.add_argument("--json", default=str(REPO_ROOT / "benchmarks" / "results.json"), metavar="FILE")
    parser.add_argument(
        "--worker", nargs=3, help=argparse.SUPPRESS
    )  # variant, photo, result: this script, started by itself
    parser.add_argument("--train-worker", nargs=2, help=argparse.SUPPRESS)  # case, way
    parser.add_argument("--plain-run", nargs=2, help=argparse.SUPPRESS)  # folder, folder of results
    args = parser.parse_args(argv)
    if args.worker:
        _work(*args.worker)
    elif args.train_worker:
        from tools.benchmark_training import work

        work(*args.train_worker)
    elif args.plain_run:
        _plain_run(*map(Path, args.plain_run))
    elif args.repeats < 1:
        raise UserError(f"--repeats: expected at least 1, found {args.repeats}")
    else:
        found = {
            "uncommitted_changes": provenance()["uncommitted_changes"]
        }  # the figures themselves, written case by case, are one
        _inference([case for case in args.cases if case not in TRAINING], args.repeats, Path(args.json), found)
        _training([case for case in args.cases if case in TRAINING], args.repeats, Path(args.json), found)
    return EXIT_OK


# ---------------------------------------------------------------------------------------------
# The plain way
# ---------------------------------------------------------------------------------------------


def plain(weights: dict[str, "Tensor"], images: "Tensor", padding: str = "reflect") -> "Tensor":
    """Photos (B,3,H,W) in [0, 1] -> illumination (B,1,H,W): the layers one after the other, as published.

    `padding` of the four plain convolutions: "reflect" at inference, "constant" (zeros) in training.
    """
    import torch
    import torch.nn.functional as F

    def conv(name: str, x: "Tensor", mode: str = "reflect") -> "Tensor":
        x = F.pad(x, (1, 1, 1, 1), mode=mode)
        return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def block(number: int, x: "Tensor") -> "Tensor":
        inner = F.leaky_relu(conv(f"ResidualBlock{number}.conv1", x), 0.2)
        return F.leaky_relu(conv(f"ResidualBlock{number}.conv2", inner) + x, 0.2)

    x = block(2, block(1, F.leaky_relu(conv("cond1", images, padding), 0.2)))
    maps = [x]
    for number, bins in enumerate((1, 2, 3, 6)):
        grid = F.conv2d(F.adaptive_avg_pool2d(x, bins), weights[f"PPM1.features.{number}.1.weight"])
        grid = F.prelu(grid, weights[f"PPM1.features.{number}.2.weight"])
        maps.append(F.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=True))
    x = F.prelu(conv("PPM1.fuse.0", torch.cat(maps, dim=1), "constant"), weights["PPM1.fuse.1.weight"])
    x = block(4, block(3, conv("condx", x, padding)))
    x = block(6, block(5, conv("condy", x, padding)))
    return F.relu(conv("cond_add1", x, padding))


def _plain_enhancer() -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from models.checkpoints import load_unet

    weights = load_unet(WEIGHTS).state_dict()

    def enhance(rgb: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            images = torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
            result = (images / (plain(weights, images) + 1e-9)).clamp(0, 1)
            return (result[0].permute(1, 2, 0) * 255).round().byte().numpy()

    return enhance


def _plain_run(folder: Path, output: Path) -> None:
    enhance = _plain_enhancer()
    for path in sorted(folder.iterdir()):
        write_photo(output / path.name, Photo(enhance(read_rgb8(path))))


# ---------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------


def _inference(cases: list[str], repeats: int, path: Path, found: dict) -> None:
    """Measure case by case; each replaces what an earlier run found for it, and no other."""
    if not cases:
        return
    import torch

    from serving.backends import choose

    here = {name: how for name, how in VARIANTS.items() if name != "openvino" or util.find_spec("openvino")}
    choices = {name: _without_reason(choose(*how, torch.device("cpu"))) for name, how in here.items()}
    twins = {name: next(other for other in choices if choices[other] == choice) for name, choice in choices.items()}
    variants = {
        name: how for name, how in here.items() if twins[name] == name
    }  # what "auto" resolves to is measured once
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            measured = (
                _frames(case, variants, Path(folder), repeats)
                if case in FRAMES
                else _runs(case, variants, Path(folder), repeats)
            )
        for name, twin in twins.items():
            measured["rows"].setdefault(name, {"same_as": twin}).setdefault("choice", choices[name])
        for name, row in measured["rows"].items():
            print(f"{case:>6} {name:9} {_shown(row)}", flush=True)
        measured |= provenance() | found
        measured["versions"]["openvino"] = metadata.version("openvino") if "openvino" in here else None
        _store(path, "inference", case, measured)


def _training(cases: list[str], repeats: int, path: Path, found: dict) -> None:
    if not cases:
        return
    from tools.benchmark_training import measure, shown

    for case in cases:
        measured = measure(case, repeats)
        for name, row in measured["rows"].items():
            print(f"{case:>8} {shown(name, row)}", flush=True)
        _store(path, "training", case, measured | provenance() | found)


def _store(path: Path, kind: str, case: str, measured: dict) -> None:
    threads = os.environ.get("OMP_NUM_THREADS")
    results = json.loads(path.read_text()) if path.is_file() else {}
    results.setdefault(kind, {})[case] = {"OMP_NUM_THREADS": threads and int(threads), **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2) + "\n"
    write_text(path, text)


def _shown(row: dict) -> str:
    if "same_as" in row:
        return f"as {row['same_as']}"
    texts = [f"{row['median']:8.2f} s ({row['lowest']:.2f} to {row['highest']:.2f})", f"{row['peak_mb']:6.0f} MB"]
    texts += [f"{row['ratio']:.2f} times the baseline"] if row.get("ratio") else []
    texts += [f"{row['psnr']:.1f} dB"] if row.get("psnr") else []
    return ", ".join([*texts, *([row["choice"]] if row.get("choice") else [])])


def _frames(case: str, variants: dict, folder: Path, repeats: int) -> dict:
    """Every variant in a process of its own; they take turns, one round after the other."""
    photo = folder / f"{case}.npy"
    np.save(photo, synthetic(*FRAMES[case]))
    names = ("baseline", *variants)
    workers = {
        name: Worker.start([__file__, "--worker", name, str(photo), str(folder / f"{case}_{name}.npy")])
        for name in names
    }
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
    """Whole runs of inference.py: large photos once for each variant, small ones in turns."""
    photos, count = folder / case, FOLDER if case == "folder" else 1
    for number in range(count):
        write_photo(photos / f"{number}.jpg", Photo(synthetic(*RUNS[case], seed=number)))
    commands = {}
    if case in PLAIN_RUNS:
        commands["baseline"] = [__file__, "--plain-run", str(photos), str(folder / f"{case}_baseline")]
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


def timed(arguments: list[str], environment: dict[str, str] | None = None) -> dict:
    """Run a script -> seconds, largest resident memory of its process. Raises UserError where it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    printed = process.stdout.read()
    peak = _peak_mb(process)
    if process.returncode:
        raise UserError(f"{' '.join(arguments)}: exit code {process.returncode}: {printed}")
    return {"seconds": time.perf_counter() - started, "peak_mb": peak}


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}


def _with_speed(row: dict[str, float], sides: tuple[int, ...]) -> dict[str, float]:
    return {**row, "megapixels_per_second": math.prod(sides) / 1e6 / row["median"]}


def synthetic(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H,W,3) uint8: dark, smooth, with a grain."""
    generator = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 4, width)
    light = (60 + 50 * np.outer(np.sin(rows), np.cos(columns))).astype(np.uint8)[..., None]
    result = generator.integers(0, 24, (height, width, 3), np.uint8)
    result += light
    return result


def _peak_mb(process: subprocess.Popen) -> float:
    """Wait for the end of the process -> its largest resident memory, in MB (10^6 bytes)."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


class Worker(NamedTuple):
    """This script in another process, which does its work once whenever it is asked."""

    process: subprocess.Popen
    choice: str

    @classmethod
    def start(cls, arguments: list[str]) -> "Worker":
        process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return cls(process, json.loads(process.stdout.readline())["choice"])

    def ask(self, what: str) -> dict | int:
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def stop(self) -> float:
        """-> the largest resident memory in MB."""
        self.process.stdin.close()
        return _peak_mb(self.process)


def _work(variant: str, photo: str, result: str) -> None:
    if variant == "baseline":
        choice, enhance = "cpu, fp32, plain PyTorch", _plain_enhancer()
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


if __name__ == "__main__":
    run(main)
