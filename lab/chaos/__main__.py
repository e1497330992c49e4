"""Attack everything that reads, writes or stops, and count what survived; writes docs/results/chaos.json.

python -m lab.chaos [--scale 1] [--only images kills ...] [--seed 0] [--json FILE]

What each attack is: lab/chaos/attacks.py (one file or command line per seed) and lab/chaos/runs.py (whole runs).
`full_disks` mounts small disks in memory and needs root.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

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
RUNS: dict[str, tuple[int, Callable[[int, int, Path], Row]]] = {  # likewise
    "kills": (100, runs.kills),
    "full_disks": (30, runs.full_disks),
    "two_at_once": (10, lambda count, seed, folder: runs.two_at_once(count, folder)),
    "special_files": (1, lambda count, seed, folder: runs.special_files(folder)),
    "long_run": (20_000, lambda count, seed, folder: runs.long_run(count, folder)),
}


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*FILES, *RUNS]
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of attacks (default 1)")
    parser.add_argument(
        "--only", nargs="+", default=every, choices=every, metavar="ATTACK", help=f"of {', '.join(every)}"
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
    else:
        return _attack(args.only, args.scale, args.seed, Path(args.json))
    return EXIT_OK


def _attack(names: list[str], scale: float, seed: int, file: Path) -> int:
    """Attack by attack; each replaces what an earlier run found for it, and no other."""
    bad = 0
    # found once: the figures, written attack by attack, are a change themselves
    where = provenance() | {"scale": scale, "seed": seed}
    # what repeats the attacks: where the figures went says nothing on another machine
    where["command"] = f"python -m lab.chaos --scale {scale:g} --seed {seed} --only {' '.join(names)}"
    with tempfile.TemporaryDirectory(prefix="chaos") as temporary:
        for name in names:
            started = time.perf_counter()
            folder = Path(temporary) / name
            folder.mkdir()
            if name in FILES:
                count, limit = FILES[name]
                row = attack_many(name, range(seed, seed + max(1, round(count * scale))), folder, limit)
            else:
                count, attack = RUNS[name]
                row = attack(max(1, round(count * scale)), seed, folder)
            row.seconds = round(time.perf_counter() - started, 1)
            say(
                f"{name:14} {row.injected:6} injected, {row.survived:6} survived in {row.seconds:.0f} s; seeds "
                f"from {seed}"
            )
            for example in row.examples:
                say(f"  {example}")
            results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            results[name] = asdict(row) | {"outcomes": dict(row.outcomes.most_common(12))} | where
            write_text(file, json.dumps(results, indent=2) + "\n")
            bad += sum(getattr(row, kind) for kind in BAD)
    return EXIT_SOME_FAILED if bad else EXIT_OK


if __name__ == "__main__":
    run(main)
