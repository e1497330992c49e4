"""Say what is wrong with a data set before training on it.

It checks names, sizes, duplicates, pairs, labels, and training photos that show a test scene.

python -m tools check-dataset --backlit DIR [--well-lit DIR] [--gt DIR] [--test DIR] [--image-size 512]

--well-lit: photos that need no enhancement, of any scenes. --gt: ground truths of --backlit. --test: photos that must
not be trained on. One line for each verdict: ok, warn, or bad. Exit code 0, or 3 where anything is bad.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import say
from common.errors import UserError
from data.checks import Summary, Verdict, check_folder, check_labels, check_leak, summarise

SAME_SCENE = 0.5  # rank correlation of a pair below which its photos hardly show one scene


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlit", required=True, metavar="DIR")
    parser.add_argument("--well-lit", metavar="DIR")
    parser.add_argument("--gt", metavar="DIR")
    parser.add_argument("--test", metavar="DIR")
    parser.add_argument("--image-size", type=int, default=512, help="data.image_size of the training (default 512)")
    args = parser.parse_args(argv)
    if args.image_size < 1:
        raise UserError(f"--image-size: expected at least 1, found {args.image_size}")
    folders = {"--backlit": args.backlit, "--well-lit": args.well_lit, "--gt": args.gt, "--test": args.test}
    photos = {key: summarise(folder, key) for key, folder in folders.items() if folder}
    found = [_print(key, verdict) for key, its in photos.items() for verdict in check_folder(its, args.image_size)]
    if args.gt:
        found += [_print("pairs", verdict) for verdict in check_pairs(photos["--backlit"], photos["--gt"])]
    for key in ("--well-lit", "--gt"):
        if key in photos:
            found += [_print("labels", verdict) for verdict in check_labels(photos["--backlit"], photos[key])]
    if args.test:
        training = [its for key, its in photos.items() if key != "--test"]
        found += [_print("test", verdict) for verdict in check_leak(photos["--test"], training)]
    return EXIT_SOME_FAILED if "bad" in found else EXIT_OK


def check_pairs(backlit: Summary, truths: Summary) -> Iterator[Verdict]:
    """Each backlit photo has its ground truth, of the same size and scene."""
    from metrics.pairing import pair

    pairing = pair(backlit.folder, truths.folder)
    for names, what in (
        (pairing.unmatched_enhanced, "backlit photos without a ground truth"),
        (pairing.unmatched_gt, "ground truths without a backlit photo"),
        ([name for name, _ in pairing.problems], "backlit photos with several ground truths"),
    ):
        if names:
            yield Verdict("bad", f"{len(names)} {what}, such as {names[0]}")
    index = {path: number for its in (backlit, truths) for number, path in enumerate(its.paths)}
    pairs = [
        (p.name, index[p.enhanced], index[p.truth]) for p in pairing.pairs if {p.enhanced, p.truth} <= index.keys()
    ]
    differ = [name for name, a, b in pairs if not np.array_equal(backlit.sizes[a], truths.sizes[b])]
    strange = [name for name, a, b in pairs if backlit.ranks[a] @ truths.ranks[b] < SAME_SCENE]
    if differ:
        yield Verdict("bad", f"{len(differ)} pairs of two sizes, such as {differ[0]}")
    if strange:
        yield Verdict("warn", f"{len(strange)} pairs that hardly show one scene, such as {strange[0]}")
    yield Verdict("ok" if pairs else "bad", f"{len(pairs)} pairs by name")


def _print(key: str, verdict: Verdict) -> str:
    say(f"{verdict.level:4} {key:10} {verdict.text}")
    return verdict.level


if __name__ == "__main__":
    run(main)
