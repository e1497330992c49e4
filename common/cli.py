"""What the scripts' command lines share: `--cfg`, `--set`, and exit codes.

0 success, 2 a user's mistake (one line on stderr), 3 some files of a folder failed, 1 a failure of
ours (with a traceback), 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.console import guarded, one_line
from common.errors import UserError
from common.interrupt import EXIT_INTERRUPTED, without_traceback

EXIT_OK, EXIT_USER_ERROR, EXIT_SOME_FAILED = 0, 2, 3
LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")  # numbers that torchrun sets


class ArgumentParser(argparse.ArgumentParser):
    """argparse, whose errors are UserErrors: one line, exit code 2. An empty value, as of an unset `$NAME`, is one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", None, _not_empty)  # of all that is text

    def error(self, message: str) -> None:
        if message.startswith("unrecognized arguments: ") and re.search(r"[ ]\w[\w.]*=", message):
            message += "; --set takes one KEY=VALUE and may be repeated"
        raise UserError(f"{message} (see {self.prog} --help)")


def _not_empty(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a value, found an empty name")
    return text


def make_parser(description: str, default_cfg: str, example: str = "exp.seed=1") -> ArgumentParser:
    """A parser with `--cfg` and `--set`; `example` of a setting, for the help."""
    parser = ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cfg",
        default=default_cfg,
        metavar="FILE",
        help="YAML config: a path, or a name under configs/ (default: %(default)s)",
    )
    add_set(parser, f"override a config key, for example --set {example}; may be repeated")
    return parser


def add_output(parser: ArgumentParser, what: str | None = None) -> None:
    """`--quiet`, and `--json` where the last line on stdout can be one JSON object about `what`."""
    parser.add_argument("--quiet", action="store_true", help="tell errors, failures and notes only")
    if what:
        parser.add_argument("--json", action="store_true", help=f"the last line on stdout is one JSON object: {what}")


def add_set(parser: ArgumentParser, text: str) -> None:
    """`--set KEY=VALUE`, as often as wanted, into `overrides`; `text` is its help."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=text)


@dataclass(frozen=True)
class Flag:
    """A flag of a command line that sets a key of the config."""

    name: str
    """As it is typed, "--same-for"."""
    key: str
    """Of the config, "model.same_for"."""
    help: str
    """The key is told behind it."""
    metavar: str | None = None
    """None: a switch, which sets true."""
    short: str | None = None
    """A second name, "-o"."""
    parsed: bool = False
    """Whether its value is read as `--set` reads it, for keys that are no text; otherwise it is text whatever it
    says, so that a folder may be called 1e5."""

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        names = [self.short, self.name] if self.short else [self.name]
        options = {"metavar": self.metavar} if self.metavar else {"action": "store_true"}
        parser.add_argument(*names, help=f"{self.help}; sets {self.key}", **options)


@dataclass(frozen=True)
class Given:
    """What was given of some flags, as `configs.load.load_config` takes it."""

    overrides: list[str]
    """KEY=VALUE, those of `--set` first."""
    values: dict[str, Any]
    """Config key -> value."""
    typed: dict[str, str]
    """Config key -> the flag, for `named_as_typed`."""


def given(args: argparse.Namespace, flags: Iterable[Flag]) -> Given:
    """What stands on a parsed command line of some flags, and of `--set`."""
    found = [(flag, getattr(args, flag.name.removeprefix("--").replace("-", "_"))) for flag in flags]
    found = [(flag, value) for flag, value in found if value not in (None, False)]
    return Given(
        [*args.overrides, *(f"{flag.key}={value}" for flag, value in found if flag.parsed)],
        {flag.key: value for flag, value in found if not flag.parsed},
        {flag.key: flag.name for flag, _ in found},
    )


@contextlib.contextmanager
def named_as_typed(flags: Mapping[str, str]) -> Iterator[None]:
    """A user's mistakes inside the block name the flag where the command line gave a value, not its config key.

    flags: {config key: what was typed, such as "--output"}, of the flags that were given.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        for key, flag in flags.items():
            text = re.sub(rf"(?:(?<=^)|(?<=[,:] )){re.escape(key)}(?![\w.=])", flag, text)
        error.args = (text if text == str(error) else text.removeprefix("command line: "),)
        raise


def run(main: Callable[[list[str]], int]) -> None:
    """Call `main(argv)` and leave the process with the exit code that its outcome means."""
    without_traceback()
    sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)
    threading.excepthook = _leave_to_main
    module = sys.modules["__main__"].__spec__
    if module is not None:  # started by `python -m`: so --help and records of results name it
        sys.argv[0] = f"python -m {module.name.removesuffix('.__main__')}"
    try:
        code = exit_code(main, sys.argv[1:])
    except SystemExit as stop:  # argparse's, after --help
        code = stop.code or EXIT_OK
    sys.stdout.flush()
    if code == EXIT_OK and (failure := getattr(sys.stdout, "failure", None)):  # as cat and cp -v do; the work is done
        print(f"error: standard output: cannot be written: {failure}", file=sys.stderr)
        code = EXIT_USER_ERROR
    sys.exit(code)


def _leave_to_main(fault: threading.ExceptHookArgs) -> None:
    """A thread's error of the system (TensorBoard's, on a full disk) is raised again where the main thread meets it."""
    if not isinstance(fault.exc_value, OSError):
        threading.__excepthook__(fault)


def exit_code(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """What `main(argv)` returns; for what a user or the system can mend, one line on stderr and 2.

    What the system refuses (no permission, no room, a name that is too long) needs no care where it happens, unless
    more can be said there. All else is a failure of ours, and passes.
    """
    try:
        _check_surroundings()
        return main(argv)
    except UserError as error:
        message = str(error)
    except OSError as error:
        if error.errno is None:
            raise
        message = ": ".join(str(part) for part in (error.filename, error.strerror) if part is not None)
    except KeyboardInterrupt as stop:
        print("; ".join(["stopped", *getattr(stop, "__notes__", ())]), file=sys.stderr)
        return getattr(stop, "exit_code", EXIT_INTERRUPTED)  # another one for another signal
    print(one_line(f"error: {message}"), file=sys.stderr)
    return EXIT_USER_ERROR


def _check_surroundings() -> None:
    """Raises UserError where this process has no folder to work in, or is one of several in a way that cannot be."""
    try:
        Path.cwd()
    except OSError:
        raise UserError("the current folder is gone or cannot be entered; change to another one") from None
    for name in LAUNCHERS:
        value = os.environ.get(name, "0")
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise UserError(f"{name}: expected a whole number, as torchrun sets it, found '{value}'")
    rank, world = (int(os.environ.get(name, usual)) for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if rank >= max(world, 1):
        raise UserError(f"RANK: expected below WORLD_SIZE ({world}), as torchrun sets it, found {rank}")
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if world > 1 and missing:
        raise UserError(f"{missing[0]}: expected beside WORLD_SIZE, as torchrun sets it, found none")
