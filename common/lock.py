"""A lock on a folder that one process at a time may write: told apart from one that a killed process left."""

import contextlib
import errno
import json
import os
import platform
import sys
import time
from pathlib import Path
from types import TracebackType

from common.errors import UserError
from common.files import is_running, real_path, telling_errors
from common.parse import parse_json

_HELD: set[Path] = set()  # by this process, which the system would let in twice
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}  # file systems without locks


class Lock:
    """The right to write what `path` stands for; the file says which process on which host has it.

    The system holds the lock and lets go of it when the process ends, however it does. A file that is left is one of a
    process that was killed: it is taken over, and `note` tells so. Where the file system has no locks, a process of
    another host cannot be asked whether it still runs, and its lock counts until its file is deleted.
    what: what is locked, for the errors.
    """

    def __init__(self, path: str | Path, what: str) -> None:
        self.path, self.what = Path(path), what
        self.note: str | None = None
        self._handle: int | None = None

    def acquire(self) -> "Lock":
        """Raises UserError where another process has it, or where the file cannot be written."""
        with telling_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if real_path(self.path) in _HELD:
                raise UserError(self._taken(_mine()))
            while self._handle is None:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    held = self._hold(handle)
                    if not self._is_ours(handle):
                        continue  # its owner removed it between our opening and our locking it: the next one counts
                    before = _read(handle)
                    here = before.get("host") == platform.node()
                    if not held and here and not is_running(before["process"]):
                        held = True
                    if not held and before:
                        raise UserError(self._taken(before))
                    if before:
                        self.note = f"the lock of process {before['process']} on {before['host']}, which ended without "
                        self.note += f"removing it, was taken over: {self.path}"
                    os.ftruncate(handle, 0)
                    os.lseek(handle, 0, os.SEEK_SET)
                    os.write(handle, json.dumps(_mine()).encode() + b"\n")
                    self._handle, handle = handle, None
                    _HELD.add(real_path(self.path))
                finally:
                    if handle is not None:
                        os.close(handle)
        return self

    def release(self) -> None:
        """Give it back; without effect where this process does not have it."""
        if self._handle is not None:
            _HELD.discard(real_path(self.path))
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._handle)
            self._handle = None
            if sys.platform == "win32":  # removes no file that is open
                with contextlib.suppress(OSError):
                    self.path.unlink()

    def __enter__(self) -> "Lock":
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _hold(self, handle: int) -> bool:
        """Whether the system holds the lock for us; False where it knows no locks. Raises UserError where another has
        it."""
        try:
            import fcntl
        except ImportError:  # Windows: what the file says decides alone
            return False
        try:
            fcntl.lockf(
                handle, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # of the process: children of a killed one do not keep it
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(self._taken(_read(handle))) from None
            if error.errno in _UNSUPPORTED:
                return False
            raise
        return True

    def _is_ours(self, handle: int) -> bool:
        mine = os.fstat(handle)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def _taken(self, owner: dict) -> str:
        who = f"process {owner['process']} on {owner['host']} since {owner['since']}" if owner else "another process"
        return (
            f"{self.what}: expected no other process at it, found {who}; "
            f"wait for it or choose another name (if it does not run any more, delete {self.path})"
        )


def _mine() -> dict:
    return {"host": platform.node(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _read(handle: int) -> dict:
    """Who is written in a lock file; nothing where that cannot be read."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        owner = parse_json(os.read(handle, 4096))
        return {"host": str(owner["host"]), "process": int(owner["process"]), "since": str(owner["since"])}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
