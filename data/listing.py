"""The images below a folder. Without PyTorch, so that a wrong path is reported at once."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from common.errors import UserError
from common.files import real_path
from common.paths import how_to_get, one_form
from data.outputs import RESULTS_FILE, RecordedResults, holds_results, is_nobodys, kind_of_folder

NAMES_TOLD = 20  # of a list, one by one


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes (".jpg", ...) of every format that is read here."""
    from data.images.pillow import FORMATS, heif_installed

    suffixes = Image.registered_extensions()  # loads Pillow's plug-ins
    read = {suffix for suffix, name in suffixes.items() if name in FORMATS or name == "MPO"}  # MPO is JPEG to Pillow
    return frozenset(read | (HEIF_SUFFIXES if heif_installed() else set()))


HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
# Photos that people have beside those that are read here: camera raw files, and what no package is installed for
OTHER_SUFFIXES = HEIF_SUFFIXES | {
    ".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr",
    ".iiq", ".x3f", ".kdc", ".dcr", ".mrw", ".erf", ".mef", ".raw",
    ".gpr", ".rwl", ".jxl", ".jxr", ".wdp", ".hdp", ".exr", ".hdr",
}  # fmt: skip


def list_images(folder: str | Path, key: str, leave_out: Collection[str] = (), *, results: bool = False) -> list[Path]:
    """Every image file below `folder`, sorted; hidden files and folders are left out, and those that `leave_out` names.

    Left out too is what is no photo of the user's: recycle bins and folders of previews, and what this project wrote
    (results, run folders, caches). results: the results that this very folder was made for are listed all the same.
    `leave_out` holds file names, or paths relative to the folder. Links are followed. What cannot be read (broken
    links, pipes, sub-folders without permission) is listed too, so that whoever reads it names it and goes on with the
    others. `key` is the config key or option that named the folder, for the error. Raises UserError where the folder is
    missing, a file, out of reach, or holds no image.
    """
    folder = Path(folder)
    try:
        found = "nothing there" if not folder.exists() else None if folder.is_dir() else "a file"
        if not found:
            with os.scandir(folder) as entries:
                next(entries, None)
    except PermissionError:
        found = "no permission to read"
    if found:
        raise UserError(f"{key}: expected a folder, found {found}: {folder}{how_to_get(folder, [key])}")
    paths = [
        path
        for path in sorted(_files(folder, image_suffixes(), locked=True, results=results))
        if not named(path.relative_to(folder), leave_out)
    ]
    if not paths:
        raise UserError(f"{key}: expected images, found {_instead(folder)} in {folder}")
    return paths


def named(relative: Path, names: Collection[str]) -> bool:
    """Whether a list names a photo, by its file name or by its path in the folder. names: as `common.paths.one_form`
    has them.
    """
    return one_form(relative.name) in names or one_form(relative.as_posix()) in names


def unknown_names(names: Collection[str], photos: Iterable[Path], what: str) -> list[str]:
    """A note for each name of a list that no photo has, and for those above a limit together. photos: relative paths.

    what: the list, and what its names should be, as the note begins.
    """
    known = {one_form(name) for photo in photos for name in (photo.name, photo.as_posix())}
    unknown = sorted(set(names) - known)
    notes = [f"{what}, found '{name}'" for name in unknown[:NAMES_TOLD]]
    more = len(unknown) - NAMES_TOLD
    return [*notes, f"{what}, found {more} more names"] if more > 0 else notes


def other_photos(folder: str | Path) -> Counter[str]:
    """How many photos below `folder` have a format that is not read here, by suffix (".heic")."""
    return Counter(
        path.suffix.lower() for path in _files(Path(folder), OTHER_SUFFIXES - image_suffixes(), locked=False)
    )


def left_out(folders: Collection[str | Path]) -> str:
    """The photos below folders that are not read here, in words: "2 .nef, 1 .raw, formats that are not read here"."""
    counts = sum(map(other_photos, folders), Counter())
    if not counts:
        return ""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    remedy = "; HEIC is with requirements-formats.txt" if counts.keys() & HEIF_SUFFIXES else ""
    return f"{kinds}, formats that are not read here{remedy}"


def _instead(folder: Path) -> str:
    """What a folder without photos holds instead, as far as it is ours."""
    names = {path.name for path in folder.iterdir()}
    if holds_results(names):
        return f"only results of an earlier enhancement (delete {RESULTS_FILE} to use them as photos)"
    return f"those of {kind}" if (kind := kind_of_folder(names)) else "none"


def _files(folder: Path, suffixes: Collection[str], *, locked: bool, results: bool = False) -> Iterator[Path]:
    """All but folders that has one of these suffixes, below a folder; nothing hidden, no folder twice, nothing that we
    wrote.

    locked: the folders that cannot be read too. results: the results recorded in the folder itself count as photos.
    """
    root, closed, seen = real_path(folder), [], set()
    recorded: list[tuple[Path, RecordedResults]] = []

    def elsewhere(path: Path) -> bool:
        """Whether the walk meets this folder under no other name."""
        if not path.is_symlink():
            return True
        target = real_path(path)
        inside = target.is_relative_to(root) and not any(
            part.startswith(".") for part in target.relative_to(root).parts
        )
        return not inside and target not in seen and not root.is_relative_to(target)

    for where, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: closed.append(Path(error.filename))
    ):
        here = Path(where)
        seen.add(real_path(here))
        if kind_of_folder(names):
            folders.clear()
            continue
        if holds_results(names) and not (results and here == folder):
            recorded.append((here, RecordedResults(here)))
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and not is_nobodys(name) and elsewhere(here / name)
        ]
        above = [(top, known) for top, known in recorded if here.is_relative_to(top)]
        for path in (here / name for name in names if not name.startswith(".")):
            ours = (path.relative_to(top) in known for top, known in above)
            if path.suffix.lower() in suffixes and not any(ours):
                yield path
    if locked:
        yield from closed
