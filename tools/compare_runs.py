"""Put runs side by side: scores, seconds, the config keys that differ, curves.

python -m tools compare-runs RUN RUN [...] [--report FILE.html]
"""

import argparse
from pathlib import Path

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import note, say
from common.errors import UserError
from common.files import real_path
from common.written import check_replaceable


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, such as runs/rave")
    parser.add_argument("--report", metavar="FILE", help="also write one HTML page with curves and previews")
    args = parser.parse_args(argv)
    if len({real_path(folder) for folder in args.runs}) < 2:
        raise UserError("compare-runs: expected two runs or more, found one")

    if args.report:
        check_replaceable(Path(args.report), "--report")

    from training.comparison import cautions, console_lines, write_comparison
    from training.runs import read_run

    runs = [read_run(folder) for folder in args.runs]
    say(*console_lines(runs))
    for text in cautions(runs):
        note(text)
    for its in runs:
        if its.missing:
            note(f"{its.files.path}: without {', '.join(its.missing)}")
    if args.report:
        write_comparison(runs, Path(args.report))
        say("", f"report     {args.report}")
    return EXIT_OK


if __name__ == "__main__":
    run(main)
