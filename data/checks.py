"""What is wrong with a folder of photos, found before hours of training are spent on it. Verdicts are one line each."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import file_digest
from data.images import read_rgb8
from data.listing import list_images, other_photos

GRID = 24  # cells to a side of the grid on which photos are compared
SAME = 0.9  # rank correlation; seen: the same scene 0.95 and more, different scenes under 0.9
SAME_SCENE = 0.5  # rank correlation of a pair below which its photos hardly show one scene
LONG = 3.0  # aspect ratio above which squashing a photo to a square distorts it badly
SHOWN = 3  # names in a verdict
THREADS = 4


class Verdict(NamedTuple):
    """bad: this spoils a training or a measurement. warn: worth a look. ok: checked and fine."""

    level: str  # "ok" | "warn" | "bad"
    text: str


@dataclass
class Summary:
    """What is kept of the readable photos of one folder; the arrays have one row for each of `paths`."""

    folder: Path
    key: str  # what the user calls the folder, such as --backlit
    paths: list[Path]
    sizes: np.ndarray  # (N,2) int: height, width
    brightness: np.ndarray  # (N,) mean of all pixels and channels, 0 to 1
    ranks: np.ndarray  # (N,GRID²) unit vectors, see `ranks`
    digests: list[str]
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    def name(self, index: int) -> str:
        return self.paths[index].relative_to(self.folder).as_posix()


def ranks(photo: np.ndarray) -> np.ndarray:
    """Rank order of a photo's brightness (H,W,3) on a coarse grid, as a unit vector (GRID²,).

    The product of two is their rank correlation, which exposure hardly changes.
    """
    grey = Image.fromarray(photo).convert("L").resize((GRID, GRID), Image.Resampling.BILINEAR)
    order = np.argsort(np.argsort(np.asarray(grey), axis=None, kind="stable")).astype(np.float64)
    order -= order.mean()
    return order / np.linalg.norm(order)


def summarise(folder: str | Path, key: str) -> Summary:
    """Read each photo of a folder once. Raises UserError where there is no folder, or no photo in it."""
    folder = Path(folder)

    def look(path: Path) -> tuple | str:
        try:
            photo = read_rgb8(path)
            return photo.shape[:2], photo.mean() / 255, ranks(photo), file_digest(path)
        except UserError as error:
            return str(error)

    listed = list_images(folder, key)
    with ThreadPoolExecutor(THREADS) as pool:
        looked = list(pool.map(look, listed))
    good = [(path, its) for path, its in zip(listed, looked, strict=True) if not isinstance(its, str)]
    bad = [(path, its) for path, its in zip(listed, looked, strict=True) if isinstance(its, str)]
    if not good:
        raise UserError(f"{key}: expected photos that can be read, found none in {folder}: {bad[0][1]}")
    sizes, brightness, order, digests = zip(*(its for _, its in good), strict=True)
    paths = [path for path, _ in good]
    return Summary(folder, key, paths, np.array(sizes), np.array(brightness), np.stack(order), list(digests), bad)


def check_folder(photos: Summary, image_size: int) -> Iterator[Verdict]:
    """Readable, well named, large enough, each photo once. image_size: pixels to a side that training squashes photos
    to.
    """
    if photos.unreadable:
        path, reason = photos.unreadable[0]
        yield Verdict("bad", f"{len(photos.unreadable)} photos cannot be read, such as {path.name}: {reason}")
    if others := other_photos(photos.folder):
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        yield Verdict("warn", f"left out, formats that are not read here: {kinds}")
    yield from _check_names(photos)
    height, width = photos.sizes.T
    area = [f"{size[1]}×{size[0]}" for size in (photos.sizes[i] for i in np.argsort(height * width)[[0, -1]])]
    small = photos.sizes.min(axis=1) < image_size
    long = photos.sizes.max(axis=1) > LONG * photos.sizes.min(axis=1)
    if small.any():
        names = _names(photos, np.flatnonzero(small))
        yield Verdict("warn", f"{small.sum()} smaller than the {image_size} px of training: {names}")
    if long.any():
        names = _names(photos, np.flatnonzero(long))
        yield Verdict("warn", f"{long.sum()} longer than {LONG:g}:1, and squashed to a square: {names}")
    yield Verdict("ok", f"{len(photos.paths)} photos, {area[0]} to {area[1]}")
    equal = defaultdict(list)
    for index, digest in enumerate(photos.digests):
        equal[digest].append(index)
    if twice := [its for its in equal.values() if len(its) > 1]:
        names = " = ".join(photos.name(i) for i in twice[0][:SHOWN])
        yield Verdict("warn", f"{sum(len(its) - 1 for its in twice)} photos are there twice, byte for byte: {names}")


def _check_names(photos: Summary) -> Iterator[Verdict]:
    folded = defaultdict(list)
    for index in range(len(photos.paths)):
        folded[unicodedata.normalize("NFC", photos.name(index)).casefold()].append(index)
    if clashes := [its for its in folded.values() if len(its) > 1]:
        names = ", ".join(photos.name(i) for i in clashes[0])
        yield Verdict("warn", f"names that are one on macOS and Windows: {names}")
    stems = defaultdict(list)
    for index, path in enumerate(photos.paths):
        stems[path.with_suffix("")].append(index)
    if doubles := [its for its in stems.values() if len(its) > 1]:
        names = ", ".join(photos.name(i) for i in doubles[0])
        yield Verdict("warn", f"{len(doubles)} names with several endings, which pairing refuses: {names}")


def check_labels(backlit: Summary, well_lit: Summary) -> Iterator[Verdict]:
    """Whether the folders can be what they are called, and share no photo."""
    dark, light = np.median(backlit.brightness), np.median(well_lit.brightness)
    means = f"median brightness {dark:.2f} of {backlit.key}, {light:.2f} of {well_lit.key}"
    if dark >= light:
        yield Verdict("bad", f"{means}: are the folders exchanged?")
    else:
        brighter = (backlit.brightness > light).mean()
        share = f"{100 * brighter:.0f} % of {backlit.key} are brighter than the median of {well_lit.key}"
        yield Verdict("warn" if brighter > 0.25 else "ok", f"{means}; {share}")
    if both := set(backlit.digests) & set(well_lit.digests):
        name = backlit.name(backlit.digests.index(next(iter(sorted(both)))))
        yield Verdict("bad", f"{len(both)} photos are in both folders, byte for byte, such as {name}")


def check_pairs(backlit: Summary, truths: Summary) -> Iterator[Verdict]:
    """Each backlit photo has its ground truth, of the same size and scene."""
    from metrics.pairing import pair

    pairing = pair(backlit.folder, truths.folder)
    for names, what in (
        (pairing.unmatched_enhanced, "backlit photos without a ground truth"),
        (pairing.unmatched_gt, "ground truths without a backlit photo"),
        ([name for name, _ in pairing.problems], "backlit photos with several ground truths"),
    ):
        if names:
            yield Verdict("bad", f"{len(names)} {what}, such as {names[0]}")
    index = {path: number for its in (backlit, truths) for number, path in enumerate(its.paths)}
    pairs = [
        (p.name, index[p.enhanced], index[p.truth]) for p in pairing.pairs if {p.enhanced, p.truth} <= index.keys()
    ]
    differ = [name for name, a, b in pairs if not np.array_equal(backlit.sizes[a], truths.sizes[b])]
    strange = [name for name, a, b in pairs if backlit.ranks[a] @ truths.ranks[b] < SAME_SCENE]
    if differ:
        yield Verdict("bad", f"{len(differ)} pairs of two sizes, such as {differ[0]}")
    if strange:
        yield Verdict("warn", f"{len(strange)} pairs that hardly show one scene, such as {strange[0]}")
    yield Verdict("ok" if pairs else "bad", f"{len(pairs)} pairs by name")


def check_leak(test: Summary, training: Iterable[Summary]) -> Iterator[Verdict]:
    """Test photos whose scene is among the training photos."""
    for photos in training:
        correlation = test.ranks @ photos.ranks.T
        seen = np.flatnonzero(correlation.max(axis=1) > SAME)
        if len(seen):
            first = f"{test.name(seen[0])} as {photos.name(int(correlation[seen[0]].argmax()))}"
            yield Verdict("bad", f"{len(seen)} of {len(test.paths)} test photos are in {photos.key}, such as {first}")
        else:
            yield Verdict("ok", f"no scene of the {len(test.paths)} test photos is in {photos.key}")


def _names(photos: Summary, indices: np.ndarray) -> str:
    shown = ", ".join(photos.name(int(i)) for i in indices[:SHOWN])
    return shown + (", ..." if len(indices) > SHOWN else "")
