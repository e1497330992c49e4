"""Find photos of one folder that show a scene of another, whatever their exposure.

python -m tools near-duplicates TEST_PHOTOS TRAINING_PHOTOS [--unseen FILE]

Compares rank orders of brightness on a coarse grid, which exposure hardly changes. --unseen writes the names without a
match.
"""

import argparse
import contextlib
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import check_file, write_text
from common.paths import read_text
from data.checks import SAME, ranks
from data.images import read_all
from data.listing import list_images


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="folder of test photos")
    parser.add_argument("others", help="folder of training photos")
    parser.add_argument("--unseen", metavar="FILE", help="write the names of photos without a match, one a line")
    args = parser.parse_args(argv)
    names = {path: path.relative_to(args.photos).as_posix() for path in list_images(args.photos, "photos")}
    if args.unseen:
        _check_replaceable(Path(args.unseen), names.values())
    failures: list[str] = []
    read = [
        [(path, ranks(pixels)) for path, pixels in read_all(paths, failures)]
        for paths in (names, list_images(args.others, "others"))
    ]
    for reason in failures:
        say(f"failed: {reason}", file=sys.stderr)
    if not all(read):
        raise UserError(
            f"expected photos that can be read in both folders, found none in {args.others if read[0] else args.photos}"
        )
    (photos, ours), (others, theirs) = (zip(*side, strict=True) for side in read)
    correlation = np.stack(ours) @ np.stack(theirs).T
    seen = correlation.max(axis=1) > SAME
    for path, row in zip(photos, correlation, strict=True):
        if row.max() > SAME:
            say(f"{path.name}  {others[row.argmax()].name}  correlation {row.max():.3f}")
    say(f"{seen.sum()} of {len(photos)} photos have a match among {len(others)}")
    if args.unseen:
        unseen = [names[path] for path, match in zip(photos, seen, strict=True) if not match]
        write_text(args.unseen, "".join(f"{name}\n" for name in unseen))
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _check_replaceable(file: Path, names: Collection[str]) -> None:
    """Raises UserError where `file` is there and lists other than these photos, and where it cannot be written."""
    check_file(file, "--unseen")
    with contextlib.suppress(UserError):
        if not file.exists() or set(read_text(str(file)).splitlines()) <= set(names):
            return
    raise UserError(f"--unseen: expected a new name or a list written here before, found another file: {file}")


if __name__ == "__main__":
    run(main)
