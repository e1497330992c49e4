"""The caches below `exp.cache_dir`: what they take, and how they are kept from growing without end."""

import contextlib
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from common.console import note
from common.files import PART, remove_stale
from data.outputs import tag_cache

KINDS = ("resized", "embeddings", "vocabulary", "openvino")  # folders of a cache: each file can be computed again
_NAME = re.compile(r"[0-9a-f]{16,64}\.(rgb|safetensors|npy|json|blob)")  # part of a digest, and no other
SPARED = 2 * 24 * 3600  # seconds since its last use for which a file may be one of a running training


@dataclass(frozen=True)
class Cached:
    """A file of a cache. used: seconds since 1970, the last time that it was read or written."""

    path: Path
    size: int
    used: float


def cached_files(cache_dir: str | Path) -> list[Cached]:
    """The files of all caches below `cache_dir`, the longest unused first; nothing else that may lie there."""
    found = []
    for kind in KINDS:
        for path in (Path(cache_dir) / kind).rglob("*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                status = path.lstat()
                if _NAME.fullmatch(path.name) and stat.S_ISREG(status.st_mode):
                    found.append(Cached(path, status.st_size, max(status.st_atime, status.st_mtime)))
    return sorted(found, key=lambda file: file.used)


def shrink(cache_dir: str | Path, limit: float, *, spared: float = 0) -> tuple[list[Cached], float]:
    """Remove the longest unused files until the rest takes at most `limit` bytes. Returns them, and the bytes that are
    left.

    spared: seconds; what was used within them stays. A training that runs meanwhile computes what it misses again.
    Folders of caches are marked as such, but for those that hold files of the user's too, which listings would not find
    any more.
    """
    files = cached_files(cache_dir)
    ours = {file.path for file in files}
    for kind in KINDS:
        folder = Path(cache_dir) / kind
        if folder.is_dir():
            if all(path in ours or path.is_dir() or path.name.startswith(PART) for path in folder.rglob("*")):
                tag_cache(folder)
            for inner in (folder, *(path for path in folder.iterdir() if path.is_dir())):
                remove_stale(inner)
    left, removed = float(sum(file.size for file in files)), []
    for file in files:
        if left <= limit or time.time() - file.used < spared:
            break
        with contextlib.suppress(OSError):
            file.path.unlink()
            removed.append(file)
            left -= file.size
    return removed, left


def limit_caches(cache_dir: str | Path, gigabytes: float) -> None:
    """Keep the caches below a size, where that is possible without what was used lately; tell what was done."""
    removed, left = shrink(cache_dir, gigabytes * 1e9, spared=SPARED)
    if removed:
        note(f"{cache_dir}: {len(removed)} cached files removed, the longest unused (exp.cache_gb)")
    if left > gigabytes * 1e9:
        note(f"{cache_dir}: caches in use take {left / 1e9:.1f} GB, more than exp.cache_gb")
