"""What the scripts' command lines share: `--cfg`, `--set`, and exit codes.

0 success, 2 a user's mistake (one line on stderr), 3 some files of a folder failed, 1 a failure of
ours (with a traceback), 130 stopped by Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Callable

from errors import UserError

EXIT_OK, EXIT_USER_ERROR, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 2, 3, 130


class ArgumentParser(argparse.ArgumentParser):
    """argparse, whose errors are UserErrors: one line, exit code 2."""

    def error(self, message: str) -> None:
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser(description: str, default_cfg: str) -> ArgumentParser:
    """A parser with `--cfg` and `--set`."""
    parser = ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cfg", default=default_cfg, metavar="FILE", help="YAML config: a path, or a name under configs/ (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a config key, for example --set exp.seed=1; may be repeated",
    )
    return parser


def yaml_text(text: str) -> str:
    """YAML that reads as exactly this text: a folder may be named `123`, `a: b`, or in bytes that are no Unicode."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def run(main: Callable[[list[str]], int]) -> None:
    """Call `main(argv)` and leave the process with the exit code that its outcome means."""
    sys.stdout.reconfigure(line_buffering=True)  # in a log file, lines appear as they are printed
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except BrokenPipeError:  # `... | head`: whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_OK
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code)
