"""What `compare-weights` is given beside photos: weight files, lists of photos, a table of kinds."""

import csv
from collections.abc import Iterable
from pathlib import Path

from common.console import note
from common.errors import UserError
from common.paths import one_form, read_text
from data.listing import named, unknown_names
from metrics.pairing import read_names
from models.shipped import find_weights

WEIGHT_SUFFIXES = (".safetensors", ".pth")
RESERVED = ("all", "probes", "low key")  # names of parts of a row


def weight_files(items: list[str]) -> tuple[dict[str, Path], set[str]]:
    """Row name -> file, of `FILE`, `NAME=FILE` and `FOLDER` (searched recursively); the names that no folder gave.

    Raises UserError for anything else, and where two rows have one name.
    """
    files: dict[str, Path] = {}
    asked_for: set[str] = set()
    for item in items:
        name, _, path = item.rpartition("=")
        if not path.strip():
            raise UserError(f"--weights: expected NAME=FILE, found {item}")
        path = Path(path)
        if folder := path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix in WEIGHT_SUFFIXES)
        else:
            found = [find_weights(str(path), "--weights")]
        if not found:
            raise UserError(f"--weights: expected a weight file or a folder of them, found {item}")
        for file in found:
            row = name or (f"{file.parent.name}/{file.stem}" if folder else file.stem)
            if row in files:
                raise UserError(
                    f"--weights: expected a name for each row (NAME=FILE), found {row} twice: {files[row]}, {file}"
                )
            files[row] = file
            if not folder:
                asked_for.add(row)
    return files, asked_for


def read_lists(files: Iterable[str], key: str, photos: list[Path]) -> dict[str, set[str]]:
    """Name of each list, its file's without suffix -> names of photos. photos: relative paths of those there are.

    Notes names that no photo has. Raises UserError for lists that cannot be read, that name none of the photos, or
    whose own names cannot be told apart.
    """
    lists: dict[str, set[str]] = {}
    for file in files:
        part, names = Path(file).stem, read_names(file, key)
        if part in lists or part in RESERVED:
            taken = "of another list" if part in lists else "of a column"
            raise UserError(f"{key}: expected lists of different names, found the name {taken}: {file}")
        if not any(named(photo, names) for photo in photos):
            raise UserError(f"{key}: expected names of the {len(photos)} photos, found none in {file}")
        for line in unknown_names(names, photos, f"{key}: {file}: expected names of photos"):
            note(line)
        lists[part] = names
    return lists


def read_kinds(file: str) -> dict[str, str]:
    """File name -> kind. Raises UserError where the table has no such columns, or a kind the name of a column."""
    try:
        rows = list(csv.DictReader(read_text(file).splitlines()))
    except UserError as error:
        raise UserError(f"--kinds: {error}") from None
    except csv.Error as error:
        raise UserError(f"--kinds: expected a CSV with columns file and kind, found {file}: {error}") from None
    if not rows or not {"file", "kind"} <= rows[0].keys():
        raise UserError(
            f"--kinds: expected a CSV with columns file and kind, "
            f"found {file} with {', '.join(map(str, rows[0])) if rows else 'no rows'}"
        )
    kinds = {one_form(row["file"] or ""): row["kind"] or "" for row in rows}
    if taken := set(RESERVED) & set(kinds.values()):
        raise UserError(f"--kinds: expected other kinds than {', '.join(RESERVED)}, found {min(taken)} in {file}")
    return kinds
