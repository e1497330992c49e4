"""Which ground truth belongs to which result, by exact name and never by a part of it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError
from common.paths import one_form, read_text
from data.listing import list_images

NUMBERED = re.compile(r"(?P<name>.*\S)\s*\((?P<number>\d+)\)", re.DOTALL)  # "0152(1)", "0152 (1)"


@dataclass(frozen=True)
class Pair:
    """A result and its ground truth."""

    name: str
    """File name of the result, relative to its folder, with "/"."""
    enhanced: Path
    truth: Path
    first_of_family: bool
    """Of results `name(1)`, `name(2)`, ... (several inputs of one scene) the lowest number, `paper`'s own."""


@dataclass(frozen=True)
class Pairing:
    """All of two folders: what matches, and what does not. Names are relative to their folder."""

    pairs: list[Pair] = field(default_factory=list)
    unmatched_enhanced: list[str] = field(default_factory=list)
    unmatched_gt: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(name of a result, why it cannot be measured though there are ground truths of its name)."""


def pair(enhanced_dir: str | Path, gt_dir: str | Path) -> Pairing:
    """Match results with ground truths by sub-folder and file name without its last suffix, in one form of Unicode.

    The name is tried as it is, then without one trailing `(n)`: BAID has several inputs of one scene,
    `0152(1).png` and `0152(2).png`, and one ground truth `0152.png` (evaluation protocol). Several ground truths
    of one name (`1.png`, `1.jpg`) are a problem of the results that match them, and several results of one name a
    problem of their own: neither is a choice. Names compare in one Unicode form, whatever system wrote them.
    Raises UserError where a folder is missing or has no image.
    """
    enhanced = _by_stem(enhanced_dir, "data.enhanced_images_path")
    truths = _by_stem(gt_dir, "data.gt_images_path")
    result, first, matched = Pairing(), {}, set()
    for stem, paths in enhanced.items():
        base, number = _split_number(stem)
        key = next((key for key in (stem, base) if key in truths), None)
        if key is None:
            result.unmatched_enhanced.extend(_name(path, enhanced_dir) for path in paths)
            continue
        matched.add(key)
        if len(truths[key]) > 1:
            reason = f"several ground truths have its name: {', '.join(_name(path, gt_dir) for path in truths[key])}"
            result.problems.extend((_name(path, enhanced_dir), reason) for path in paths)
            continue
        if len(paths) > 1:
            reason = f"several results have its name: {', '.join(_name(path, enhanced_dir) for path in paths)}"
            result.problems.extend((_name(path, enhanced_dir), reason) for path in paths)
            continue
        for path in paths:
            name = _name(path, enhanced_dir)
            first[base] = min(first.get(base, (number, name)), (number, name))
            result.pairs.append(Pair(name, path, truths[key][0], first_of_family=False))
    first_names = {name for _, name in first.values()}
    result.pairs[:] = [Pair(p.name, p.enhanced, p.truth, p.name in first_names) for p in result.pairs]
    result.unmatched_gt.extend(
        _name(path, gt_dir) for key, paths in truths.items() if key not in matched for path in paths
    )
    return result


def read_names(file: str | Path, key: str) -> set[str]:
    """File names listed in a text file, one a line, as `common.paths.one_form` has them; empty lines and those that
    begin with # are left out. Raises UserError."""
    try:
        text = read_text(file)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    lines = (line.strip() for line in text.splitlines())
    return {one_form(line) for line in lines if line and not line.startswith("#")}


def _by_stem(folder: str | Path, key: str) -> dict[str, list[Path]]:
    """Image files by sub-folder and stem, "day/0152(1)", in sorted order."""
    files: dict[str, list[Path]] = {}
    for path in list_images(folder, key, results=True):
        files.setdefault(one_form(path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
    return files


def _split_number(stem: str) -> tuple[str, int]:
    """ "0152(2)" -> ("0152", 2); a name without a number comes before all numbered ones."""
    found = NUMBERED.fullmatch(stem)
    return (found["name"], int(found["number"])) if found else (stem, -1)


def _name(path: Path, folder: str | Path) -> str:
    # a file name need not be valid UTF-8; tables and JSON are
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()
