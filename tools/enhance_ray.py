"""Enhance a folder of any size on many processes or machines, through Ray Data.

python -m tools enhance-ray --input PHOTOS --output RESULTS [--actors 8]
python -m tools enhance-ray --input s3://bucket/photos --output s3://bucket/results

Folders are paths that every machine sees, or URLs of fsspec. Results are those of inference.py: names, metadata, bytes.
Called again, it leaves out what is finished with the same photo, weights and settings. Photos that failed are listed in
RESULTS_failures.csv, with exit code 3. Needs requirements-ray.txt; a cluster that RAY_ADDRESS names is used, else this
machine.
"""

import argparse
import importlib.util
import sys
import time

from common.cli import EXIT_OK, EXIT_SOME_FAILED, Flag, Given, given, make_parser, named_as_typed, run
from common.console import say
from common.errors import UserError
from models.shipped import find_weights

FLAGS = (
    Flag("--checkpoint", "model.checkpoint", "weights, at the same path on every machine", "FILE", short="-c"),
    Flag(
        "--strength", "model.strength", "0 (the photo) to 1 (the full result), or auto: by each photo", "F", parsed=True
    ),
    Flag("--format", "save.format", "keep, png, jpeg, webp or tiff", "F"),
    Flag("--overwrite", "save.overwrite", "replace files of the results' names, whoever's"),
)
SHOWN = 20  # failures that are printed; the table has all


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, "configs/inference/inference.yaml", example="save.quality=90")
    parser.add_argument("-i", "--input", required=True, metavar="DIR", help="folder of photos, or its URL")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of results, or its URL")
    for flag in FLAGS:
        flag.add_to(parser)
    parser.add_argument("--actors", type=int, metavar="N", help="processes (default: one a GPU, or for four cores)")
    args = parser.parse_args(argv)
    if args.actors is not None and args.actors < 1:
        raise UserError(f"--actors: expected at least 1, found {args.actors}")
    flags = given(args, FLAGS)
    with named_as_typed(flags.typed):
        return _enhance(args, flags)


def _enhance(args: argparse.Namespace, flags: Given) -> int:
    from configs.load import load_config
    from configs.schema import InferenceConfig

    config = load_config(InferenceConfig, args.cfg, flags.overrides, flags.values)
    weights = find_weights(config.model.checkpoint, "model.checkpoint").resolve()

    from models.checkpoints import load_unet
    from serving.cluster import enhance
    from serving.shards import plan

    places, tasks, done = plan(config, args.input, args.output, weights)
    if missing := [name for name in ("ray", "pyarrow", "fsspec") if importlib.util.find_spec(name) is None]:
        raise UserError(f"enhance-ray: expected the packages of requirements-ray.txt, found no {missing[0]}")
    load_unet(weights, config.model.padding_mode, must_enhance=True)  # what cannot be used is told before a start
    say(f"weights: {weights}", f"photos:  {done + len(tasks)}, of which {done} are finished", f"output:  {args.output}")
    started = time.perf_counter()
    became = enhance(config, weights, places, tasks, args.actors)
    table, failures, seconds = places.write_failures(became.failures), became.failures, time.perf_counter() - started
    counts = f"enhanced {became.enhanced}, finished before {done}, failed {len(failures)} of {done + len(tasks)}"
    say(f"{counts} in {seconds:.1f} s ({became.pixels / 1e6 / max(seconds, 1e-9):.2f} megapixels/s)")
    if became.fault:
        print(f"\n{became.fault}This is a bug, please report it; the other photos were done.\n", file=sys.stderr)
    say(*(f"failed: {photo}: {reason}" for photo, reason in failures[:SHOWN]), file=sys.stderr)
    say(*[f"failed: {len(failures)} photos, all in {table}"] * bool(failures), file=sys.stderr)
    return EXIT_SOME_FAILED if failures else EXIT_OK


if __name__ == "__main__":
    run(main)
