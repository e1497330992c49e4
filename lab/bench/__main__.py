"""How fast, and in how much memory, beside the plain way in the same run (`make bench`).

python -m lab.bench [--cases 0.5 3 photo 24 folder png0.5 png3 previews rave256 rave512 lite256 guidance residual
                    scaling layers frame unet256 megapixels photos words embedded gpu_network gpu_photo gpu_train]
                    [--repeats 5] [--json docs/results/bench.json]

What each case is: the modules of lab/bench. The plain way ("baseline"): lab/bench/plain.py.
"""

import argparse
import json
import os
from pathlib import Path

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text
from common.paths import REPO_ROOT
from common.provenance import provenance
from lab.bench import convolutions, folders, gpu, growth, inference, layers, plain, previews, training

KINDS = {
    inference: "inference",
    previews: "inference",
    training: "training",
    folders: "training",
    convolutions: "network",
    layers: "network",
    growth: "growth",
    gpu: "gpu",
}
RESULTS = REPO_ROOT / "docs" / "results" / "bench.json"


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = [case for kind in KINDS for case in kind.CASES]
    parser.add_argument(
        "--cases", nargs="+", default=None, choices=cases, metavar="CASE", help="default: all that this machine can run"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of all but large photos (default: %(default)s)")
    parser.add_argument("--json", default=str(RESULTS), metavar="FILE", help="default: %(default)s")
    # what this script starts itself with
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)  # variant, photo, result
    parser.add_argument("--train-worker", nargs=2, help=argparse.SUPPRESS)  # case, way
    parser.add_argument("--growth-worker", nargs=3, help=argparse.SUPPRESS)  # case, number, folder
    parser.add_argument("--plain-run", nargs=2, help=argparse.SUPPRESS)  # folder, folder of results
    args = parser.parse_args(argv)
    if args.worker:
        inference.work(*args.worker)
    elif args.train_worker:
        training.work(*args.train_worker)
    elif args.growth_worker:
        growth.work(*args.growth_worker)
    elif args.plain_run:
        plain.plain_run(inference.WEIGHTS, *map(Path, args.plain_run))
    elif args.repeats < 1:
        raise UserError(f"--repeats: expected at least 1, found {args.repeats}")
    else:
        _measure(args.cases or _possible(cases), args.repeats, Path(args.json))
    return EXIT_OK


def _possible(cases: list[str]) -> list[str]:
    """All cases, without those of a GPU where there is none."""
    import torch

    return [case for case in cases if case not in gpu.CASES or torch.cuda.is_available()]


def _measure(cases: list[str], repeats: int, path: Path) -> None:
    """Measure case by case; each replaces what an earlier run found for it, and no other."""
    # found once: the figures, written case by case, are a change themselves
    found = {"uncommitted_changes": provenance()["uncommitted_changes"]}
    for case in cases:
        kind = next(kind for kind in KINDS if case in kind.CASES)
        measured = kind.measure(case, repeats)
        for name, row in measured["rows"].items():
            print(f"{case:>8} {kind.shown(name, row)}", flush=True)
        threads, load = os.environ.get("OMP_NUM_THREADS"), round(os.getloadavg()[0], 1)
        results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        section = results.setdefault(KINDS[kind], {})
        section[case] = {"OMP_NUM_THREADS": threads and int(threads), "load": load, **measured, **provenance(), **found}
        write_text(path, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
