"""Photos decoded and squashed to one size once, by a pool of threads, and kept on disk one by one:
a stop loses nothing.

Where a photo lies in the cache depends on its content and the size, so that moved or renamed photos are found again and
changed ones are not. Each file ends with a checksum; a damaged one is rebuilt.

Shapes: N photos, S side in pixels.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import file_digest, read_file, writing
from common.progress import track
from data.images import STANDARD, ImageError, Limits, read_rgb8

VERSION = "v3"  # of what decoding and resizing give; another one rebuilds the cache
MOST_WORKERS = 16  # each holds a decoded photo: 36 MB at 12 megapixels
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class StoredPhotos(Sequence):
    """Photos on disk, each (S,S,3) uint8. A file that is gone or damaged is rebuilt from its photo."""

    def __init__(self, paths: Sequence[Path], contents: Sequence[str], size: int, folder: Path, limits: Limits) -> None:
        self.paths, self.contents, self.size, self.folder = list(paths), list(contents), size, folder
        self.limits = limits
        self.uniform: frozenset[int] = frozenset()  # indices of those that are of one colour everywhere

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.size, self.size, 3

    def __len__(self) -> int:
        return len(self.paths)

    def without(self, indices: Collection[int]) -> "StoredPhotos":
        kept = [i for i in range(len(self)) if i not in indices]
        paths, contents = [self.paths[i] for i in kept], [self.contents[i] for i in kept]
        return StoredPhotos(paths, contents, self.size, self.folder, self.limits)

    def __getitem__(self, index: int) -> np.ndarray:
        return stored_photo(self.paths[index], self.contents[index], self.size, self.folder, self.limits)


def store_photos(
    paths: Sequence[Path], size: int, cache_dir: str | Path, limits: Limits = STANDARD
) -> tuple[StoredPhotos, list[str]]:
    """Decode what is not in the cache yet. Returns the photos that can be read, in the order of `paths`,
    and why not others.

    Raises UserError where no photo can be read, or the cache cannot be written.
    """
    what = "-incomplete" if limits.incomplete == "accept" else ""
    folder = Path(cache_dir) / "resized" / f"{VERSION}-{size}{what}"
    contents = photo_contents(paths)

    def prepare(number: int) -> ImageError | bool:
        """Why a photo cannot be read, or whether it is of one colour everywhere."""
        if isinstance(contents[number], ImageError):
            return contents[number]
        try:
            pixels = stored_photo(paths[number], contents[number], size, folder, limits)
            return bool((pixels == pixels[0, 0]).all())
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(f"{paths[number]}: expected a photo that fits into memory, found a larger one")

    outcomes = in_parallel(prepare, range(len(paths)), "reading photos")
    read = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, bool)]
    skipped = [str(outcome) for outcome in outcomes if isinstance(outcome, ImageError)]
    if not read:
        where = paths[0].parent
        raise UserError(f"{where}: none of the {len(paths)} photos can be read, the first because: {skipped[0]}")
    stored = StoredPhotos([paths[i] for i in read], [contents[i] for i in read], size, folder, limits)
    stored.uniform = frozenset(place for place, number in enumerate(read) if outcomes[number])
    return stored, skipped


def stored_photo(path: Path, content: str, size: int, folder: Path, limits: Limits = STANDARD) -> np.ndarray:
    """(S,S,3) uint8 of a photo, out of the cache, or decoded and put there.

    Raises ImageError, or UserError as `writing` does.
    """
    file = folder / f"{content[:32]}.rgb"
    length = size * size * 3
    try:
        data = read_file(file)
    except (OSError, UserError):
        data = b""
    if len(data) == length + 32 and hashlib.sha256(data[:length]).digest() == data[length:]:
        return np.frombuffer(data, np.uint8, length).reshape(size, size, 3)
    photo = Image.fromarray(read_rgb8(path, limits=limits))
    photo = photo.resize((size, size), Image.Resampling.BILINEAR)  # Pillow's antialiases
    pixels = np.array(photo)
    with writing(file) as temporary:
        temporary.write_bytes(pixels.tobytes() + hashlib.sha256(pixels).digest())
    return pixels


def photo_contents(paths: Sequence[Path]) -> list[str | ImageError]:
    """SHA-256 of each file, 64 hexadecimal digits, or why it cannot be read.

    A file is read once in the life of a process.
    """

    def content(path: Path) -> str | ImageError:
        try:
            status = path.stat()
            return _content(path, status.st_ino, status.st_size, status.st_mtime_ns)
        except UserError as error:
            return ImageError(str(error))
        except OSError as error:
            return ImageError(f"{path}: expected a readable file, found: {error.strerror}")

    return in_parallel(content, paths, "looking at photos")


@cache
def _content(path: Path, inode: int, size: int, modified: int) -> str:
    return file_digest(path)


def in_parallel(work: Callable[[ItemT], ResultT], items: Sequence[ItemT], what: str) -> list[ResultT]:
    """`work` of each item, in order, by as many threads as there are cores; `what` names the progress bar.

    Where one raises, or Ctrl-C is pressed, what has not begun is left.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(cores, MOST_WORKERS)) as pool:
        try:
            results = pool.map(work, items)
            return list(track(results, what, len(items)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
