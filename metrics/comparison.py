"""What rows of `compare-weights` are measured on, and the figures of a row.

Photos and ground truths are (H,W,3) sRGB uint8.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.paths import one_form
from common.progress import track
from data.images import read_all
from data.listing import named
from metrics.choice import VALIDATION
from metrics.harm import change, changes, probe
from metrics.pairing import Pair
from metrics.scores import Row, check_size, low_key_parts, means, reduced, score, unfit

PROBED = 4  # ground truths that are darkened and simulated


@dataclass(frozen=True)
class Material:
    """Photos that could be read."""

    pairs: list[Pair]  # `enhanced` is the backlit photo
    pixels: dict[Path, np.ndarray]  # of both sides of the pairs
    stay: dict[str, list[Path]]  # photos that should stay as they are, by list
    low_key: list[np.ndarray]  # the darkest parts of those, where they are dark


def read_material(pairs: list[Pair], stay: dict[str, list[Path]], rows: Iterable[Row], failures: list[str]) -> Material:
    """Read photos, ground truths and other programs' results; what cannot be compared is left out, and why is added to
    `failures`.

    Raises UserError for a result of another size than its photo.
    """
    pixels = dict(read_all([path for p in pairs for path in (p.enhanced, p.truth)], failures))
    kept = {path: photo.shape for paths in stay.values() for path, photo in read_all(paths, failures)}
    shapes = kept | {path: photo.shape for path, photo in pixels.items()}
    unread = {p.enhanced for p in pairs if unfit(p.truth, pixels.get(p.truth), shapes.get(p.enhanced), failures)}
    for row in rows:
        readable = dict(read_all(row.results.values(), failures))
        for photo, path in row.results.items():
            if path not in readable:
                unread.add(photo)
            elif photo in shapes:
                check_size(path, readable[path], shapes[photo])
    pairs = [p for p in pairs if p.enhanced not in unread]
    stay = {part: [path for path in paths if path in kept and path not in unread] for part, paths in stay.items()}
    return Material(pairs, pixels, stay, low_key_parts(path for paths in stay.values() for path in paths))


def groups(pairs: list[Pair], lists: dict[str, set[str]], kinds: dict[str, str]) -> dict[str, list[Pair]]:
    """The parts of a row: all pairs, those of each list, of each kind, and of both. Empty ones are left out.

    lists: names of photos by list. kinds: file name -> kind.
    """
    lists = lists if len(lists) > 1 or VALIDATION in lists else {}  # a single list is what there is
    tests: dict[str, Callable[[Pair], bool]] = {"all": lambda p: True}
    tests |= {part: lambda p, names=names: named(Path(p.name), names) for part, names in lists.items()}
    of_kind = {kind: lambda p, kind=kind: kinds.get(one_form(p.name)) == kind for kind in sorted(set(kinds.values()))}
    both = {
        f"{part}, {kind}": lambda p, a=tests[part], b=test: a(p) and b(p)
        for part in lists
        for kind, test in of_kind.items()
    }
    found = {name: [p for p in pairs if test(p)] for name, test in (tests | of_kind | both).items()}
    return {name: members for name, members in found.items() if members}


def figures(name: str, row: Row, material: Material, groups: dict[str, list[Pair]]) -> dict:
    """A row: by group the means of `metrics.scores.score`, by list of photos that should stay `metrics.harm.changes`,
    and `metrics.harm.probe`; without what the row has no results for. name: of the row, for the progress bar.
    """
    scores = {
        p: score(row, p.enhanced, material.pixels[p.enhanced], material.pixels[p.truth])
        for p in track(material.pairs, name)
    }
    found: dict = {group: means([scores[p] for p in members]) for group, members in groups.items()}
    for part, paths in material.stay.items():
        if paths and row.has(paths):
            found[f"change, {part}"] = changes([row.change(path) for path in track(paths, f"{name}, {part}")])
    if row.method:
        if material.low_key:
            found["change, low key"] = changes([change(part, row(Path(), part)) for part in material.low_key])
        truths = [reduced(material.pixels[p.truth]) for p in material.pairs[:: -(-len(material.pairs) // PROBED)]]
        found["probes"] = probe(row.method, track(truths, f"{name}, darkened"))
    return found
