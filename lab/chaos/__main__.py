"""Attack everything that reads, writes or stops, and count what survived; writes docs/results/chaos.json.

python -m lab.chaos [--scale 1] [--only images kills ...] [--jobs 2] [--seed 0] [--json FILE]

What each attack is: lab/chaos/attacks.py (one file or command line per seed), lab/chaos/runs.py (whole runs).
`full_disks` mounts small disks in memory and needs root.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import write_text
from common.paths import REPO_ROOT
from common.provenance import provenance
from lab.chaos import runs
from lab.chaos.harness import BAD, Row, attack_many, work

RESULTS = REPO_ROOT / "docs" / "results" / "chaos.json"
FILES = {  # attack -> how many at scale 1, and seconds for each
    "images": (10_000, 5.0),
    "tiff_tags": (2_000, 5.0),
    "states": (1_000, 5.0),
    "caches": (500, 5.0),
    "pickles": (500, 5.0),
    "command_lines": (1_000, 30.0),
}
RUNS: dict[str, tuple[int, Callable[[int, int, Path], Row]]] = {  # likewise; the longest first
    "long_run": (20_000, lambda count, seed, folder: runs.long_run(count, folder)),
    "kills": (100, runs.kills),
    "full_disks": (30, runs.full_disks),
    "two_at_once": (10, lambda count, seed, folder: runs.two_at_once(count, folder)),
    "special_files": (1, lambda count, seed, folder: runs.special_files(folder)),
}


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every, cores = [*RUNS, *FILES], len(os.sched_getaffinity(0))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of attacks (default 1)")
    parser.add_argument(
        "--only", nargs="+", default=every, choices=every, metavar="ATTACK", help=f"of {', '.join(every)}"
    )
    parser.add_argument(
        "--jobs", type=int, default=cores, metavar="N", help="kinds of attack at a time (default: one for each core)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first attack of each kind (default 0)")
    parser.add_argument("--json", default=str(RESULTS), metavar="FILE", help="default: %(default)s")
    # what this script starts itself with
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)  # attack, first and last seed, folder
    parser.add_argument("--long-run", nargs="+", help=argparse.SUPPRESS)  # steps, settings
    args = parser.parse_args(argv)
    if args.worker:
        from lab.chaos.attacks import ATTACKS, PHOTOS, limit_memory

        name, first, last, folder = args.worker
        if name in PHOTOS:
            limit_memory()
        work(*ATTACKS[name], range(int(first), int(last) + 1), Path(folder))
    elif args.long_run:
        runs.work_long_run(int(args.long_run[0]), args.long_run[1:])
    elif not 0 < args.scale < math.inf:
        raise UserError(f"--scale: expected above 0, found {args.scale}")
    elif args.jobs < 1:
        raise UserError(f"--jobs: expected at least 1, found {args.jobs}")
    else:
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // args.jobs))  # of what is started here
        return _attack(args.only, args.scale, args.seed, args.jobs, Path(args.json))
    return EXIT_OK


def _attack(names: list[str], scale: float, seed: int, jobs: int, file: Path) -> int:
    """`jobs` kinds of attack at a time; each replaces what an earlier run found for it, and no other."""
    began, saving = time.perf_counter(), Lock()
    # found once: the figures, written attack by attack, are a change themselves
    where = provenance() | {"scale": scale, "seed": seed, "jobs": jobs}
    # what repeats the attacks: where the figures went says nothing on another machine
    only = "" if set(names) == {*FILES, *RUNS} else f" --only {' '.join(names)}"
    where["command"] = f"python -m lab.chaos --scale {scale:g} --seed {seed} --jobs {jobs}{only}"

    def attack(name: str, folder: Path) -> int:
        row = _row(name, scale, seed, folder)
        with saving:
            say(
                f"{name:14} {row.injected:6} injected, {row.survived:6} survived in {row.seconds:.0f} s; seeds "
                f"from {seed}",
                *(f"  {example}" for example in row.examples),
            )
            results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            results[name] = asdict(row) | {"outcomes": dict(row.outcomes.most_common(12))} | where
            results[name]["after"] = round(time.perf_counter() - began, 1)
            write_text(file, json.dumps(results, indent=2) + "\n")
        return sum(getattr(row, kind) for kind in BAD)

    with tempfile.TemporaryDirectory(prefix="chaos") as temporary, ThreadPoolExecutor(jobs) as pool:
        bad = sum(pool.map(lambda name: attack(name, Path(temporary) / name), names))
    return EXIT_SOME_FAILED if bad else EXIT_OK


def _row(name: str, scale: float, seed: int, folder: Path) -> Row:
    """What came of one kind of attack, in a folder of its own."""
    started = time.perf_counter()
    folder.mkdir()
    if name in FILES:
        count, limit = FILES[name]
        row = attack_many(name, range(seed, seed + max(1, round(count * scale))), folder, limit)
    else:
        count, attack = RUNS[name]
        row = attack(max(1, round(count * scale)), seed, folder)
    row.seconds = round(time.perf_counter() - started, 1)
    return row


if __name__ == "__main__":
    run(main)
