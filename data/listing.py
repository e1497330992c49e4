"""The images below a folder. Without PyTorch, so that a wrong path is told at once."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from common.errors import UserError


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes (".jpg", ...) of every format that Pillow can open."""
    suffixes = Image.registered_extensions()  # loads Pillow's plug-ins
    # Pillow also opens documents and video stills, which nobody means by a folder of photos
    return frozenset(
        s for s, name in suffixes.items() if name in Image.OPEN and name not in {"PDF", "MPEG", "EPS", "WMF", "HDF5"}
    )


# Photos that people have beside those that Pillow opens: camera raw files, and HEIC where no plug-in is installed
CAMERA_SUFFIXES = frozenset({
    ".heic", ".heif", ".hif", ".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw",
    ".3fr", ".iiq", ".x3f",
})  # fmt: skip


def list_images(folder: str | Path, key: str, leave_out: Collection[str] = ()) -> list[Path]:
    """Every image file below `folder`, sorted; hidden files and folders are left out, and those that `leave_out` names.

    `leave_out` holds file names, or paths relative to the folder. Links are followed. What cannot be read (broken links,
    sub-folders without permission) is listed too, so that whoever reads it names it and goes on with the others.
    `key` is the config key or option that named the folder, for the error.
    Raises UserError where the folder is missing, a file, out of reach, or holds no image.
    """
    folder = Path(folder)
    try:
        found = "nothing there" if not folder.exists() else None if folder.is_dir() else "a file"
        if not found:
            next(os.scandir(folder), None)
    except PermissionError:
        found = "no permission to read"
    if found:
        raise UserError(f"{key}: expected a folder, found {found}: {folder}")
    paths = [
        path
        for path in sorted(_files(folder, image_suffixes(), locked=True))
        if not named(path.relative_to(folder), leave_out)
    ]
    if not paths:
        raise UserError(f"{key}: expected images, found none in {folder}")
    return paths


def named(relative: Path, names: Collection[str]) -> bool:
    """Whether a list names a photo, by its file name or by its path in the folder."""
    return relative.name in names or relative.as_posix() in names


def photo_sizes(paths: Collection[Path], folder: str | Path) -> dict[str, int]:
    """Path relative to the folder -> bytes; -1 for what cannot be read. It tells whether a folder's photos are still the same."""

    def size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return -1

    return {path.relative_to(folder).as_posix(): size(path) for path in paths}


def other_photos(folder: str | Path) -> Counter[str]:
    """How many photos below `folder` have a format that is not read here, by suffix (".heic")."""
    return Counter(
        path.suffix.lower() for path in _files(Path(folder), CAMERA_SUFFIXES - image_suffixes(), locked=False)
    )


def _files(folder: Path, suffixes: Collection[str], *, locked: bool) -> Iterator[Path]:
    """Files and broken links of these suffixes below a folder; nothing hidden, no folder twice.

    locked: the folders that cannot be read too.
    """
    root, closed, seen = folder.resolve(), [], set()

    def elsewhere(path: Path) -> bool:
        """Whether the walk meets this folder under no other name."""
        if not path.is_symlink():
            return True
        target = path.resolve()
        inside = target.is_relative_to(root) and not any(
            part.startswith(".") for part in target.relative_to(root).parts
        )
        return not inside and target not in seen and not root.is_relative_to(target)

    for where, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: closed.append(Path(error.filename))
    ):
        here = Path(where)
        seen.add(here.resolve())
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and elsewhere(here / name)]
        shown = (here / name for name in names if not name.startswith("."))
        yield from (path for path in shown if path.suffix.lower() in suffixes and _is_file(path))
    if locked:
        yield from closed


def _is_file(path: Path) -> bool:
    """A file, or what only reading can tell: a broken link, a file out of reach."""
    try:
        return path.is_file() or path.is_symlink()
    except OSError:
        return True
