"""Faults that tests make on purpose: full disks and files that are none."""

import contextlib
import os
import resource
import socket
from pathlib import Path


@contextlib.contextmanager
def room_for(size: int):
    """A disk with room for files of `size` bytes, as the system's limit for one file: writes beyond it fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def special_files(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / "pipe")
    (folder / "link.jpg").symlink_to(folder / "pipe")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    server.close()
    (folder / "folder.png").mkdir()
    return {
        "a pipe": folder / "link.jpg",
        "a device": folder / "zero.jpg",
        "a socket": folder / "socket",
        "a folder": folder / "folder.png",
    }


@contextlib.contextmanager
def as_nobody():
    """Root may read everything, and tests in containers are root's: as somebody who may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
