"""How far work is: a bar on a terminal; in a log, which cannot redraw a line, a line now and then."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from types import TracebackType
from typing import TypeVar

from common.console import say, speaks

LINE_SECONDS = 30.0  # between lines in a log
WORDS = {"it": "iterations", "B": "bytes"}  # units that are told by a sign beside speeds
ItemT = TypeVar("ItemT")


class Progress:
    """Progress on `what`, over `total` units (None: nobody knows), of which `done` are done already.

    every: seconds between lines in a log (`LINE_SECONDS`). note: what is told beside it, such as a loss. Where nothing
    is to be told (`common.console.speaks`), it is silent. sizes: bytes of each unit, by which a log guesses the time
    left where units differ much.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "photo",
        *,
        done: int = 0,
        every: float | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        self.every = LINE_SECONDS if every is None else every
        self._ends = [*accumulate(sizes, initial=0)] if sum(sizes) else []
        self.what, self.total, self.unit, self.done, self.note = what, total, unit, done, ""
        self.part = 0.0  # of the next unit, where one takes long
        self._bar = None
        self.restart_clock()
        if speaks() and _has_screen():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=what, unit=unit, initial=done, leave=False, dynamic_ncols=True, unit_scale=unit == "B"
            )

    def restart_clock(self) -> None:
        """Speed is measured from here on: what came before was no unit's time."""
        self._first, self._start = self.done, time.monotonic()
        self._told = self._start
        if getattr(self, "_bar", None):
            self._bar.unpause()

    def add(self, count: int = 1) -> None:
        """So many units more."""
        self.at(self.done + count)

    def at(self, done: int, total: int | None = None) -> None:
        """So many units are done, of `total` where that has changed; fewer than before where work starts over."""
        self.total = self.total if total is None else total
        back, step, self.done, self.part = done < self.done, done - self.done, done, 0.0
        if back:
            self.restart_clock()
        if self._bar is not None:
            self._bar.total, self._bar.n = self.total, done - step
            self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update(step)
        elif self.done != self.total:  # the end is told by whoever began the work
            self._tell_if_due()

    def within(self, part: float) -> None:
        """So much of the next unit is done, in [0, 1]."""
        if part >= 1:
            return  # it is about to count
        self.part = part
        if self._bar is not None:
            self._bar.n = self.done + round(part, 2)
            self._bar.refresh()
        else:
            self._tell_if_due()

    def _tell_if_due(self) -> None:
        if time.monotonic() - self._told >= self.every:
            self._told = time.monotonic()
            say(self.line())

    def line(self) -> str:
        """How far it is: done, of how many, note, speed, time left."""
        share = left = ""
        if self.total:
            begun, now = self._share(self._first), self._share(self.done + self.part)
            share = f" ({100 * now:.0f} %{' of their bytes' if self._ends else ''})"
            left = f"{duration((1 - now) * self._since()[1] / (now - begun))} left" if now > begun else ""
        of = f" of {self.total:,}" if self.total else ""
        parts = [f"{self.what}: {self.done:,}{of} {self._units}{share}", self.note, self.rate(), left]
        return ", ".join(filter(None, parts))

    def _share(self, units: float) -> float:
        """Of all the work that so many units are, in [0, 1]."""
        whole = int(units)
        if whole + 1 >= len(self._ends):
            return units / self.total
        before, after = self._ends[whole], self._ends[whole + 1]
        return (before + (units - whole) * (after - before)) / self._ends[-1]

    def ended(self) -> str:
        """What it came to, once it is over: how many, how long, note, speed."""
        made, seconds = self._since()
        last = "" if made == self.done else f", the last {made:,.0f}"
        parts = [f"{self.what}: {self.done:,} {self._units}{last} in {duration(seconds)}", self.note, self.rate()]
        return ", ".join(filter(None, parts))

    def rate(self) -> str:
        """Speed since the clock was started: "12.3 it/s", "2.1 photos/s", "3.5 s/photo"."""
        made, seconds = self._since()
        if made <= 0 or seconds <= 0:
            return ""
        if made < seconds:
            return f"{seconds / made:.1f} s/{self.unit}"
        return f"{made / seconds:.1f} {self.unit if self.unit in WORDS else self._units}/s"

    def _since(self) -> tuple[float, float]:
        """Units and seconds since the clock was started."""
        return self.done + self.part - self._first, time.monotonic() - self._start

    @property
    def _units(self) -> str:
        return WORDS.get(self.unit, f"{self.unit}s")

    def close(self) -> None:
        """The bar goes, if there was one."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _has_screen() -> bool:
    """Whether stderr is a terminal on which a bar can be drawn; some, as of `script` in a job, have no size."""
    try:
        return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 1
    except (OSError, ValueError):
        return False


def track(items: Iterable[ItemT], what: str, total: int | None = None, unit: str = "photo") -> Iterator[ItemT]:
    """The items, with progress told as they are asked for. total: how many; None: `len(items)`."""
    with Progress(what, len(items) if total is None else total, unit) as progress:
        for item in items:
            yield item
            progress.add()


def duration(seconds: float | None) -> str:
    """Seconds in words: "48 s", "12 min 5 s", "3 h 20 min"."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
