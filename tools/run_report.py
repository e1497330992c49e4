"""Write the report on a training again, out of what its run folder holds.

python -m tools run-report RUN [...] [--out FILE]

Also for a run that goes on, that was killed, or of an earlier version; what is not there is left out, with one note.
"""

import argparse

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, such as runs/rave")
    parser.add_argument("--out", metavar="FILE", help="HTML to write (default: report.html in the run folder)")
    args = parser.parse_args(argv)
    if args.out and len(args.runs) > 1:
        raise UserError(f"--out: expected one run, found {len(args.runs)}")

    from training.report import write_report

    for folder in args.runs:
        written = write_report(folder, args.out)
        say(args.out or str(written.files.report_file))
    return EXIT_OK


if __name__ == "__main__":
    run(main)
