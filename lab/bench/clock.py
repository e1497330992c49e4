"""Clocks and scales of the benchmark: whole processes, workers that take turns, synthetic photos."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.paths import REPO_ROOT


def timed(arguments: list[str], environment: dict[str, str] | None = None) -> dict:
    """Run a script -> seconds, largest resident memory of its process. Raises UserError where it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=REPO_ROOT,
    )
    printed = process.stdout.read()
    peak = _peak_mb(process)
    if process.returncode:
        raise UserError(f"{' '.join(arguments)}: exit code {process.returncode}: {printed}")
    return {"seconds": time.perf_counter() - started, "peak_mb": peak}


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


def _peak_mb(process: subprocess.Popen) -> float:
    """Wait for the end of the process -> its largest resident memory, in MB (10^6 bytes)."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


class Worker(NamedTuple):
    """`python -m lab.bench` in another process, which does its work once whenever it is asked."""

    process: subprocess.Popen
    choice: str

    @classmethod
    def start(cls, arguments: list[str]) -> "Worker":
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.bench", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO_ROOT,
        )
        return cls(process, json.loads(process.stdout.readline())["choice"])

    def ask(self, what: str) -> dict | int:
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def stop(self) -> float:
        """-> the largest resident memory in MB."""
        self.process.stdin.close()
        return _peak_mb(self.process)
