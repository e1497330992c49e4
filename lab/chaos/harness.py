"""Attacks in processes of their own, which may crash or hang, and what came of them."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from common.paths import REPO_ROOT

BAD = ("crashed", "hung", "lost", "executed")
EXAMPLES = 5  # of what went wrong, kept in the results


@dataclass
class Row:
    """What came of one kind of attack. survived: done right, or reported in one line, with nothing lost."""

    injected: int = 0
    survived: int = 0
    crashed: int = 0  # a traceback, or a process that the system ended
    hung: int = 0  # longer than `limit`
    lost: int = 0  # data lost or mixed up, or wrong data taken for right
    executed: int = 0  # code out of a file
    limit: float = 5.0  # seconds for one attack
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)  # of the survived ones, in words
    examples: list[str] = field(default_factory=list)  # of the others

    def count(self, verdict: str, what: str) -> None:
        """verdict: "survived" or one of `BAD`; what: in words."""
        self.injected += 1
        setattr(self, verdict, getattr(self, verdict) + 1)
        if verdict == "survived":
            self.outcomes[what] += 1
        elif len(self.examples) < EXAMPLES:
            self.examples.append(f"{verdict}: {what}")


class Failure(Exception):
    """An attack that was not survived. kind: one of `BAD`."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


def attack_many(name: str, seeds: range, folder: Path, limit: float) -> Row:
    """The attack `name` of `lab.chaos.attacks` for each seed; a process that dies or hangs is replaced."""
    row, started, todo = Row(limit=limit), time.perf_counter(), seeds
    folder.mkdir(parents=True, exist_ok=True)
    while todo:
        command = [sys.executable, "-m", "lab.chaos", "--worker", name, str(todo[0]), str(todo[-1]), str(folder)]
        with (folder / f"{name}.stderr").open("wb") as errors:
            process = subprocess.Popen(command, cwd=REPO_ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
            todo = _watch(process, row, todo, limit)
        if todo and row.crashed > len(seeds) // 2:
            break  # it does not even start
    row.seconds = round(time.perf_counter() - started, 1)
    return row


def _watch(process: subprocess.Popen, row: Row, todo: range, limit: float) -> range:
    """Count what the worker tells until it ends. Returns the seeds that are left."""
    lines: Queue[str | None] = Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    wait = 600.0  # it imports PyTorch first
    while todo:
        try:
            line = lines.get(timeout=wait)
        except Empty:
            process.kill()
            row.count("hung", f"seed {todo[0]}: more than {limit:g} s")
            todo = todo[1:]
            break
        if line is None:
            row.count("crashed", f"seed {todo[0]}: the process ended with code {process.wait()}")
            todo = todo[1:]
            break
        told = json.loads(line)
        wait = limit
        if "verdict" in told:
            row.count(
                told["verdict"],
                told["what"] if told["verdict"] == "survived" else f"seed {told['seed']}: {told['what']}",
            )
            todo = todo[1:]
    process.stdout.close()
    process.kill()
    process.wait()
    return todo


def work(attack: Callable[[int, Path], str], prepare: Callable[[Path], object], seeds: range, folder: Path) -> None:
    """Attack by attack, one line of JSON before and after each; run in a process of its own. prepare: what takes no
    attack's time.
    """
    output = sys.stdout
    sys.stdout = sys.stderr  # what the code under attack prints must not pass for a verdict
    prepare(folder)
    for seed in seeds:
        print(json.dumps({"seed": seed}), file=output, flush=True)
        try:
            verdict, what = "survived", attack(seed, folder)
        except Failure as failure:
            verdict, what = failure.kind, str(failure)
        except BaseException as error:
            verdict, what = "crashed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(json.dumps({"seed": seed, "verdict": verdict, "what": what}), file=output, flush=True)
