"""What the scripts print: nothing from outside moves the cursor, turns the reading direction or ends a line."""

import contextlib
import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

_SPELT_OUT = {
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
}  # control, direction and other format marks, bytes that are no Unicode, line ends
_JOINERS = "\u200c\u200d"  # in Persian words and in emoji
_CURSOR_UP = "\x1b[A"  # tqdm's, between bars
_COLOURS = {"error": 31, "failed": 31, "note": 33, "new best": 32}  # of a line's first word, on a terminal
_MARKED = re.compile(rf"(?:{'|'.join(_COLOURS)})\b")
_QUIET: list[bool] = []  # not empty: only errors, failures and notes are told


def visible(text: str, keep: str = "") -> str:
    r"""The text with what would act on a terminal spelt out, such as `\x1b` or `\u202e`, but for those in `keep`."""
    if text.isprintable():
        return text
    keep += _JOINERS
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _SPELT_OUT and c not in keep else c
        for c in text
    )


def one_line(text: str) -> str:
    """The text as one line: file names may hold line breaks and worse."""
    return visible(text)


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print each as one line, on stdout or `file`, above progress bars; of several processes, the first speaks."""
    if speaks() or (file is not None and is_first()):
        tqdm = sys.modules.get("tqdm")  # without it there is no bar
        with tqdm.tqdm.external_write_mode(file or sys.stdout) if tqdm else contextlib.nullcontext():
            for line in lines:
                print(one_line(line), file=file)


def is_first() -> bool:
    """Whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def speaks() -> bool:
    """Whether this process tells how it goes on stdout: it is the first, and nobody asked for quiet."""
    return is_first() and not _QUIET


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Inside, where `quiet`, nothing is told but what goes to stderr: errors, failures and notes."""
    _QUIET.extend([True] if quiet else [])
    try:
        yield
    finally:
        del _QUIET[: 1 if quiet else 0]


def note(text: str) -> None:
    """Tell a user what they may not expect, in one line on stderr."""
    say(f"note: {text}", file=sys.stderr)


def print_json(content: Mapping[str, object], name: str, items: Iterable[object]) -> None:
    """`content` and the list `name` as one JSON object in one line on stdout.

    The list is written item by item: it may be as long as a folder has photos, and is never in memory whole.
    """
    sys.stdout.write(f"{json.dumps(content)[:-1]}{', ' if content else ''}{json.dumps(name)}: [")
    for number, item in enumerate(items):
        sys.stdout.write(f"{', ' if number else ''}{json.dumps(item)}")
    print("]}")


class Output(io.TextIOWrapper):
    """stdout or stderr through which nothing acts on the terminal, and which never ends the work.

    Every print, bar, table, warning and traceback passes `visible`; only line ends, and what moves a progress bar, pass
    as they are. Where nobody reads any more (`... | head`), or the disk is full, the rest is dropped.
    """

    failure: str | None = None  # why a part was dropped that somebody may wait for: all but a reader who left

    def write(self, text: str) -> int:
        start = "\r" if text.startswith("\r") else ""
        safe = start + _CURSOR_UP.join(visible(part, "\n\t") for part in text[len(start) :].split(_CURSOR_UP))
        if self._coloured() and (word := _MARKED.match(safe)):
            safe = f"\x1b[{_COLOURS[word[0]]}m{word[0]}\x1b[0m{safe[word.end() :]}"
        try:
            super().write(safe)
        except OSError as error:
            self._drop(error)
        return len(text)

    def _coloured(self) -> bool:
        return self.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.failure = self.failure or error.strerror
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def guarded(stream: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """The stream as an `Output`; None (closed by the caller, `>&-`) as one that drops everything."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")
    stream.flush()
    # by lines, so that they appear in a log file as they are printed; characters that the terminal lacks are spelt out
    return Output(stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)
