"""Stops that were asked for (Ctrl-C, SIGTERM, SIGHUP of a closed terminal), at a moment when nothing is half done."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


def _signals() -> list[int]:
    """What asks for a stop; a closed terminal does not under nohup, which has it ignored."""
    hangup = _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN
    return [*SIGNALS, _HANGUP] if hangup else [*SIGNALS]


class Stopped(KeyboardInterrupt):
    """A stop that was asked for. exit_code: 128 + the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class StopRequest:
    """Turns the first signal into `Stopped`: at once, or, inside `held`, when that ends. A second one stops at once.

    together: several processes train. Where one of them is asked to stop, all have to stop after the same iteration,
    so they stop where `agree` says so, and no earlier.
    """

    def __init__(self, *, main: bool, together: bool = False) -> None:
        """main: whether this process speaks."""
        self.main, self.together = main, together
        self.asked: int | None = None  # the signal's number
        self.agreed, self.whole = False, True  # whole: no iteration is half done
        self._held, self._ignored, self._previous = False, False, {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # the only one that may
            self._previous = {number: signal.signal(number, self._ask) for number in _signals()}
        return self

    def __exit__(self, *details: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raises Stopped at its end where a stop was asked for. `whole` is false where the block itself raised."""
        self._held, self.whole = True, False
        try:
            yield
            self.whole = True
        finally:
            self._held = False
        if self.agreed if self.together else self.asked is not None:
            raise Stopped(self.asked or signal.SIGTERM)

    @contextlib.contextmanager
    def ignored(self) -> Iterator[None]:
        """Inside, signals do nothing: for the last save, which takes a moment."""
        self._ignored = True
        try:
            yield
        finally:
            self._ignored = False

    def agree(self, asked: bool) -> None:
        """asked: whether any process was asked to stop; the same on all."""
        self.agreed = asked

    def _ask(self, number: int, frame: object) -> None:
        if self._ignored:
            return
        if self.asked is not None or not (self._held or self.together):
            raise Stopped(number)
        self.asked = number
        if self.main:
            with contextlib.suppress(OSError):  # not print: the signal may have come in the middle of one
                os.write(2, b"\nstopping after this iteration; Ctrl-C again: at once\n")
