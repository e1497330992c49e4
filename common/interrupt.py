"""Ctrl-C, from a script's first line on. It imports next to nothing: each script imports it before all else."""

import _signal as signal  # the part of `signal` that is loaded already: its enums take 5 ms, in which Ctrl-C would hit
import os

EXIT_INTERRUPTED = 130
_CATCHER = ("common.cli", "exit_code")  # module and function that tell a KeyboardInterrupt in one word


def without_traceback() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt where a script catches it, and ends the process anywhere else.

    Anywhere else: before `common.cli.exit_code` and after it, and while a module is imported, as extension modules
    turn a KeyboardInterrupt into errors of their own. Nothing is half written: files take their names when they are
    whole. Where Ctrl-C is ignored, as under `&` in a shell script, or has another handler, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def sigterm_too() -> None:
    """SIGTERM ends the process as Ctrl-C does from now on, for a script that has something to tidy up."""
    signal.signal(signal.SIGTERM, _interrupted)


def _interrupted(number: int, frame: object) -> None:
    while frame:
        module = frame.f_globals.get("__name__")
        if (module, frame.f_code.co_name) == _CATCHER:
            raise KeyboardInterrupt
        if module == "importlib._bootstrap":
            break
        frame = frame.f_back
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(EXIT_INTERRUPTED)
