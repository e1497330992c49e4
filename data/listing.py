"""The images below a folder. Without PyTorch, so that a wrong path is told at once."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from errors import UserError


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes (".jpg", ...) of every format that Pillow can open."""
    suffixes = Image.registered_extensions()  # loads Pillow's plug-ins
    # Pillow also opens documents and video stills, which nobody means by a folder of photos
    return frozenset(s for s, name in suffixes.items() if name in Image.OPEN and name not in {"PDF", "MPEG", "EPS", "WMF", "HDF5"})


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
    out = set(leave_out)
    paths = [
        path
        for path in sorted(_files(folder))
        if (path.suffix.lower() in image_suffixes() or path.is_dir()) and out.isdisjoint({path.name, path.relative_to(folder).as_posix()})
    ]
    if not paths:
        raise UserError(f"{key}: expected images, found none in {folder}")
    return paths


def photo_sizes(paths: Collection[Path], folder: str | Path) -> dict[str, int]:
    """Path relative to the folder -> bytes; -1 for what cannot be read. It tells whether a folder's photos are still the same."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size if path.is_file() else -1 for path in paths}


def other_photos(folder: str | Path) -> Counter[str]:
    """How many photos below `folder` have a format that is not read here, by suffix (".heic")."""
    suffixes = (path.suffix.lower() for path in _files(Path(folder)))
    return Counter(suffix for suffix in suffixes if suffix in CAMERA_SUFFIXES - image_suffixes())


def _files(folder: Path) -> Iterator[Path]:
    """Files and broken links below a folder, and folders that cannot be read; nothing hidden, no folder twice."""
    locked: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=lambda error: locked.append(Path(error.filename))):
        status = os.stat(where)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above, or to one that was listed already
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(where, name) for name in files if not name.startswith("."))
        yield from (path for path in paths if path.is_file() or path.is_symlink())
    yield from locked
