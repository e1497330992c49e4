"""Remove cached photos and embeddings, the longest unused first.

python -m tools clean-cache [--cache-dir .cache] [--keep-gb 0] [--dry-run]

Everything there can be computed again; runs, weights and photos are not touched. Trainings keep their caches below
exp.cache_gb by themselves.
"""

import argparse
import math

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.paths import find_folder
from data.caches import cached_files, shrink


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache-dir", default=".cache", metavar="DIR", help="exp.cache_dir of the trainings (default .cache)"
    )
    parser.add_argument(
        "--keep-gb", type=float, default=0.0, metavar="GB", help="leave that much, the latest used (default 0)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what is there")
    args = parser.parse_args(argv)
    if not 0 <= args.keep_gb < math.inf:
        raise UserError(f"--keep-gb: expected 0 or more, found {args.keep_gb}")
    folder = find_folder(args.cache_dir, "--cache-dir")
    if args.dry_run:
        files = cached_files(folder)
        say(f"{folder}: {len(files)} files, {sum(file.size for file in files) / 1e9:.2f} GB")
        return EXIT_OK
    removed, left = shrink(folder, args.keep_gb * 1e9)
    say(
        f"{folder}: {len(removed)} files removed, {sum(f.size for f in removed) / 1e9:.2f} GB; {left / 1e9:.2f} GB left"
    )
    return EXIT_OK


if __name__ == "__main__":
    run(main)
