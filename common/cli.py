"""What the scripts' command lines share: `--cfg`, `--set`, and exit codes.

0 success, 2 a user's mistake (one line on stderr), 3 some files of a folder failed, 1 a failure of
ours (with a traceback), 130 stopped by Ctrl-C.
"""

import argparse
import io
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError

EXIT_OK, EXIT_USER_ERROR, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 2, 3, 130


class ArgumentParser(argparse.ArgumentParser):
    """argparse, whose errors are UserErrors: one line, exit code 2."""

    def error(self, message: str) -> None:
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser(description: str, default_cfg: str, example: str = "exp.seed=1") -> ArgumentParser:
    """A parser with `--cfg` and `--set`; `example` of a setting, for the help."""
    parser = ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cfg",
        default=default_cfg,
        metavar="FILE",
        help="YAML config: a path, or a name under configs/ (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help=f"override a config key, for example --set {example}; may be repeated",
    )
    return parser


def yaml_text(text: str) -> str:
    """YAML that reads as exactly this text: a folder may be named `123`, `a: b`, or in bytes that are no Unicode."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def one_line(text: str) -> str:
    """The text with what would break its line, or the terminal, spelt out: file names may hold line breaks and worse."""
    odd = {"Cc", "Cs", "Zl", "Zp"}  # control characters, bytes that are no Unicode, line and paragraph separators
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in odd else c for c in text)


class _Output(io.TextIOWrapper):
    """stdout or stderr that never ends the work: where nobody reads any more (`... | head`), the rest is dropped."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def _patient(stream: io.TextIOWrapper | None) -> io.TextIOWrapper:
    if stream is None:  # closed by the caller, `>&-`
        return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")
    stream.flush()
    # by lines, so that they appear in a log file as they are printed; characters that the terminal lacks are spelt out
    return _Output(stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)


def run(main: Callable[[list[str]], int]) -> None:
    """Call `main(argv)` and leave the process with the exit code that its outcome means."""
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)
    module = sys.modules["__main__"].__spec__
    if module is not None:  # started by `python -m`: so --help and records of results name it
        sys.argv[0] = f"python -m {module.name.removesuffix('.__main__')}"
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code)
