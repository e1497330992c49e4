"""Clocks and scales of the benchmark: whole processes, workers that take turns, a matrix product, synthetic photos."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from common.errors import UserError
from common.paths import REPO_ROOT

PEAK = Path(__file__).with_name("peak.py")
PRODUCT = {"cpu": 4096, "cuda": 16384}  # side of the square matrices whose product rates are compared with


def timed(arguments: list[str], environment: dict[str, str] | None = None) -> dict:
    """Run a script -> seconds, largest resident memory of its process. Raises UserError where it fails."""
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as figures:
        done = subprocess.run(
            _measured(figures.name, arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=REPO_ROOT,
        )
        if done.returncode:
            raise UserError(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stdout}")
        seconds, megabytes = map(float, figures.read().split())
    return {"seconds": seconds, "peak_mb": megabytes}


def _measured(figures: str, arguments: list[str]) -> list[str]:
    """The command that runs a script, and puts its seconds and its memory into the file."""
    return [sys.executable, "-I", "-S", str(PEAK), figures, sys.executable, *arguments]


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def agreement(expected: list[float], found: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(b - a) / abs(a) for a, b in zip(expected, found, strict=True))


def synthetic(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H,W,3) uint8: dark, smooth, with a grain."""
    generator = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 4, width)
    light = (60 + 50 * np.outer(np.sin(rows), np.cos(columns))).astype(np.uint8)[..., None]
    result = generator.integers(0, 24, (height, width, 3), np.uint8)
    result += light
    return result


def limit_tflops(device: str, precision: str) -> float:
    """What a large matrix product reaches here, the best of several, in 10^12 operations a second."""
    import torch

    side = PRODUCT[device]
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)

    def product() -> None:
        matrix @ matrix
        synchronise()

    return 2 * side**3 / min(seconds_of(product) for _ in range(8)) / 1e12


def synchronise() -> dict:
    """Wait for the GPU, where there is one -> its name and peak memory."""
    import torch

    if not torch.cuda.is_available():
        return {}
    torch.cuda.synchronize()
    return {"gpu": torch.cuda.get_device_name(), "gpu_peak_mb": torch.cuda.max_memory_allocated() / 1e6}


class Worker(NamedTuple):
    """`python -m lab.bench` in another process, which does its work once whenever it is asked."""

    process: subprocess.Popen
    choice: str
    figures: IO[str]

    @classmethod
    def start(cls, arguments: list[str]) -> "Worker":
        figures = tempfile.NamedTemporaryFile("r", encoding="ascii")  # noqa: SIM115 - closed by `stop`
        process = subprocess.Popen(
            _measured(figures.name, ["-m", "lab.bench", *arguments]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO_ROOT,
        )
        return cls(process, json.loads(process.stdout.readline())["choice"], figures)

    def ask(self, what: str) -> dict | int:
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def stop(self) -> float:
        """-> the largest resident memory in MB."""
        self.process.stdin.close()
        self.process.wait()
        with self.figures:
            return float(self.figures.read().split()[1])
