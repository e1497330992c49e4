"""The attacks of one file or command line per seed, by name, and the memory that they may take."""

import resource
from collections.abc import Callable
from pathlib import Path

from lab.chaos import command_lines, damaged_files, damaged_photos

ROOM = 3_000_000_000  # bytes of address space that a photo may take beyond what the process has
PHOTOS = ("images", "tiff_tags")  # attacks by files that claim to be photos

# name -> the attack, and what it needs before the first one
ATTACKS: dict[str, tuple[Callable[[int, Path], str], Callable[[Path], object]]] = {
    "images": (damaged_photos.image, lambda folder: damaged_photos.originals()),
    "tiff_tags": (damaged_photos.tiff, lambda folder: damaged_photos.originals()),
    "states": (damaged_files.state, lambda folder: damaged_files.prepare_states()),
    "caches": (damaged_files.cached, lambda folder: damaged_files.cached(0, folder)),
    "pickles": (damaged_files.pickled, lambda folder: damaged_files.pickled(0, folder)),
    "command_lines": (command_lines.command_line, lambda folder: command_lines.commands()),
}


def limit_memory() -> None:
    """A worker may take so much more than it has: a file that asks for terabytes must not end the machine."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
