"""A stop that was asked for takes place between two iterations: inside one it would leave half an update."""

import contextlib
import os
import signal
import threading


class StopRequest:
    """Ctrl-C, held back until the loop asks for it. A second Ctrl-C stops at once."""

    def __init__(self, main: bool) -> None:
        """main: whether this process speaks."""
        self.asked, self.between_iterations, self.main = False, False, main
        self.main_thread = threading.current_thread() is threading.main_thread()
        self.previous = signal.signal(signal.SIGINT, self._ask) if self.main_thread else None

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self.main:
            with contextlib.suppress(OSError):  # not print: the signal may have come in the middle of one
                os.write(2, b"\nstopping after this iteration; Ctrl-C again: at once\n")

    def raise_if_asked(self) -> None:
        """Raises KeyboardInterrupt where a stop was asked for; called between two iterations."""
        if self.asked:
            self.between_iterations = True
            raise KeyboardInterrupt

    def close(self) -> None:
        """Give the signal back to whoever had it."""
        if self.main_thread:
            signal.signal(signal.SIGINT, self.previous)
