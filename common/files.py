"""How files are read and written here: input files without waiting for them, results whole or not at all."""

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError

LARGEST_INPUT = 2**31  # bytes; a TIFF of 250 megapixels with four channels of 16 bits takes as many
PART = ".part-"  # how the names of unfinished files begin
STALE_AFTER = 24 * 3600  # seconds without a write, after which an unfinished file of another machine is nobody's
# as `writing` names them, and as earlier versions did; other names of that beginning are a user's
_UNFINISHED = re.compile(r"\.part-([0-9a-f]{8}-\d{1,9}-[0-9a-f]{8}|[0-9a-f]{16})(\.[^.]*)?")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class DiskFull(UserError):
    """No room for a file: on the disk, in the user's quota, or below the limit for one file."""


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


def open_file(path: str | Path, *, limit: int = LARGEST_INPUT) -> BinaryIO:
    """Open a regular file for reading, without ever waiting for it.

    A pipe would block until somebody writes into it, and a device may never end; both are refused, also behind links.
    Raises UserError for those, for folders, and for files of more than `limit` bytes; OSError where there is nothing to
    open.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116
    mine = {"effective_ids": os.access in os.supports_effective_ids}
    if stat.S_ISDIR(mode) and not os.access(path, os.R_OK | os.X_OK, **mine):  # which a listing could not look into
        raise UserError(f"{path}: expected a folder that may be entered, found no permission")
    _refuse_special(path, mode)  # before it is opened: opening alone may move a tape
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    try:
        status = os.fstat(file.fileno())
        _refuse_special(path, status.st_mode)  # it may have become another since
        if status.st_size > limit:
            raise UserError(f"{path}: expected a file of at most {limit:,} bytes, found one of {status.st_size:,}")
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: str | Path, *, limit: int = LARGEST_INPUT) -> bytes:
    """The bytes of a regular file; raises as `open_file` does."""
    with open_file(path, limit=limit) as file:
        return file.read(limit)


def file_digest(path: str | Path, *, limit: int = LARGEST_INPUT) -> str:
    """SHA-256 of a regular file's bytes, as 64 hexadecimal digits; raises as `open_file` does."""
    with open_file(path, limit=limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def real_path(path: str | Path) -> Path:
    """The path without links, as `Path.resolve` gives it, but also for links that lead to themselves."""
    return Path(os.path.realpath(path))


def status_of(path: Path) -> os.stat_result | None:
    """What the system knows of a file or folder; None where it is not there, or out of reach."""
    try:
        return path.stat()
    except OSError:
        return None


def version_of(path: Path) -> tuple[int, int] | None:
    """Bytes and time of a file; None where it is out of reach."""
    status = status_of(path)
    return (status.st_size, status.st_mtime_ns) if status else None


def kind_of_file(mode: int) -> str | None:
    """What a path is that is no regular file, such as "a pipe"; None for a regular one. mode: `st_mode`."""
    return next((what for test, what in _KINDS.items() if test(mode)), None)


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def _refuse_special(path: str | Path, mode: int) -> None:
    if what := kind_of_file(mode):
        raise UserError(f"{path}: expected a file, found {what}")


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def make_folder(path: str | Path, key: str) -> None:
    """Make a folder for results. Raises as `check_folder`."""
    check_folder(path, key)
    Path(path).mkdir(parents=True, exist_ok=True)


def check_folder(path: str | Path, key: str) -> None:
    """Raises UserError where a folder for results cannot be made or written to. Leaves nothing. key: what named it."""
    place = Path(path)
    try:
        while not _is_there(place):  # the nearest that is there is where the others will be made
            place = place.parent
        with tempfile.TemporaryFile(dir=place):  # permissions do not tell all: root has them in /proc too
            pass
    except OSError as error:
        why = "no file can be made there" if error.errno == errno.ENOENT else error.strerror
        raise UserError(f"{key}: expected a folder that can be written, found {place}: {why}") from None


def check_file(path: str | Path, key: str) -> None:
    """Raises UserError where `writing` could not write a file. Leaves nothing. key: what named it."""
    try:
        with telling_errors(Path(path)):
            _refuse_place(Path(path))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    check_folder(Path(path).parent, key)


def _is_there(path: Path) -> bool:
    """Raises OSError where that cannot be known, as for a name that is too long."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _refuse_place(path: Path) -> None:
    """Renaming onto /dev/null would put a file in its place."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _refuse_special(f"{path}: cannot be written", path.stat().st_mode)
        folder = real_path(path.parent)
        if path.is_symlink() and (folder == Path("/dev") or folder.is_relative_to("/proc")):  # such as /dev/stdout
            raise UserError(f"{path}: cannot be written: expected a file, found a link of the system")


@contextlib.contextmanager
def writing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a file whole: yields a temporary path in its folder, which takes the file's name when the block ends.

    A reader never sees half a file, and what was there before stays until then. Folders are made; the mode follows the
    umask. durable: the bytes are on the disk before the name is taken, so that not even a power cut loses both
    versions. Raises DiskFull where there is no room, UserError where the file cannot be written for another reason that
    the system gives; other errors of the block pass.
    """
    path = Path(path)
    with telling_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_place(path)
        _remove_stale_once(path.parent)
        temporary = path.parent / f"{PART}{machine()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        try:
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != mode:
                temporary.chmod(mode)  # some libraries make files that nobody else may read
            if durable:
                _sync(temporary)
            temporary.replace(path)
            if durable:
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Write UTF-8 text as `writing` does. What is no Unicode (odd file names) is spelt out."""
    with writing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file, whole or not at all. Raises as `writing` does."""
    path = Path(path)
    with telling_errors(path):
        _refuse_place(path)
        with open(path, "a+b", buffering=0, opener=_without_waiting) as file:
            _refuse_special(f"{path}: cannot be written", os.fstat(file.fileno()).st_mode)  # it may be another since
            size = file.seek(0, os.SEEK_END)
            data = f"{line}\n".encode(errors="backslashreplace")
            file.seek(max(size - 1, 0))
            if file.read(1) not in (b"", b"\n"):  # a stop cut the last line off, it would take this one with it
                data = b"\n" + data
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise


def remove_stale(folder: str | Path) -> list[Path]:
    """Remove unfinished files that nobody writes any more, those of killed processes, and return them.

    Such are those of this machine whose process is gone, and those of others without a write for a day.
    """
    removed = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _is_stale(entry):
                with contextlib.suppress(OSError):
                    path = Path(entry.path)
                    path.unlink()
                    removed.append(path)
    return removed


def is_running(process: int) -> bool:
    """Whether this machine has a process of this number."""
    if sys.platform == "win32":  # where os.kill(process, 0) sends Ctrl-C
        import psutil

        return psutil.pid_exists(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, which may not be asked
        return True
    return True


@contextlib.contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for the time of the block. Those that killed processes left are removed before."""
    for path in Path(tempfile.gettempdir()).iterdir():
        owner = _owner(path.name, prefix)
        if owner and owner[0] == machine() and not is_running(owner[1]):
            shutil.rmtree(path, ignore_errors=True)  # another user's stays
    name = f"{prefix}{machine()}-{os.getpid()}-"
    # a thread that still writes when the block ends leaves the folder to the next process
    with tempfile.TemporaryDirectory(prefix=name, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


_remove_stale_once = cache(remove_stale)  # a process looks once into each folder that it writes to


def _is_stale(entry: os.DirEntry) -> bool:
    if not _UNFINISHED.fullmatch(entry.name):
        return False
    owner = _owner(entry.name, PART)
    if owner and owner[0] == machine():
        return not is_running(owner[1])
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_AFTER


def _owner(name: str, prefix: str) -> tuple[str, int] | None:
    """Machine and process in a temporary name; None for a name of another form."""
    found = re.match(rf"{re.escape(prefix)}([0-9a-f]{{8}})-(\d{{1,9}})-", name)
    return (found[1], int(found[2])) if found else None


@cache
def machine() -> str:
    """What tells this machine from others in names of files: 8 hexadecimal digits of its name's SHA-256."""
    return hashlib.sha256(platform.node().encode(errors="replace")).hexdigest()[:8]


@contextlib.contextmanager
def telling_errors(path: Path) -> Iterator[None]:
    """Errors of the system while `path` is written, as one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = _system_error(error, path)
        code = errno.ENOTDIR if code == errno.EEXIST else code  # a file where a folder is to be made
        if code in _FULL:
            raise DiskFull(f"{path}: cannot be written: {os.strerror(code)}; what was there before is intact") from None
        if code is not None:
            raise UserError(f"{path}: cannot be written: {os.strerror(code)}") from None
        raise


def _system_error(error: BaseException, path: Path) -> int | None:
    """The number of the system's error behind an exception, where it is about a file in the folder of `path`.

    Libraries put their own errors on top: PyTorch raises another one while it closes its archive, safetensors spells it
    out.
    """
    if isinstance(error, OSError) and error.errno is not None:
        about = error.filename
        inside = about is None or isinstance(about, int) or Path(os.fsdecode(about)).parent in path.parents
        return error.errno if inside else None
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return int(found[1])
    while error := error.__cause__ or error.__context__:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.errno
    return None


def _sync(path: Path) -> None:
    """Have the system put a file, or a folder's names, on the disk, where the file system can be told to."""
    if sys.platform == "win32" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows writes back what is open for writing
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)
