"""Say what is wrong with a data set before training on it.

It checks names, sizes, duplicates, pairs, labels, and training photos that show a test scene.

python -m tools check-dataset --backlit DIR [--well-lit DIR] [--gt DIR] [--test DIR] [--image-size 512]

--well-lit: photos that need no enhancement, of any scenes. --gt: ground truths of --backlit. --test: photos that must
not be trained on. One line for each verdict: ok, warn, or bad. Exit code 0, or 3 where anything is bad.
"""

import argparse

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import say
from common.errors import UserError
from data.checks import Verdict, check_folder, check_labels, check_leak, check_pairs, summarise


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


def _print(key: str, verdict: Verdict) -> str:
    say(f"{verdict.level:4} {key:10} {verdict.text}")
    return verdict.level


if __name__ == "__main__":
    run(main)
