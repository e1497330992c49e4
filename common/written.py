"""Files of figures that stand beside a user's own: ours are known again by their content, others are not replaced."""

from pathlib import Path

from common.errors import UserError
from common.files import check_file, open_file
from common.pages import GENERATOR
from common.parse import parse_json
from common.paths import what_is_at

HEAD = 4096  # bytes in which a page says who made it, and a table has its heading
LARGEST = 2**28  # bytes of a JSON of figures
PROVENANCE = ("command", "commit", "versions")  # keys of a JSON of ours (`common.provenance`)


def check_replaceable(
    path: Path,
    key: str,
    *,
    heading: str | tuple[str, ...] = (),
    mark: str | None = None,
    overwrite: bool | None = None,
) -> None:
    """Raises UserError where `path` is no file, one that we did not write, or cannot be written.

    key: what named it. heading: how the first line of a table of ours may begin. mark: what a file of ours holds,
    for formats that are no text. overwrite: other files are replaced too; None: there is no such switch.
    """
    what = what_is_at(path)
    if what in ("a file", "nothing there", "a broken link"):
        check_file(path, key)
    if what in ("nothing there", "a broken link"):
        return
    if what != "a file":
        raise UserError(f"{key}: expected a file, found {what}: {path}")
    if not overwrite and not _is_ours(path, heading, mark):
        switch = "" if overwrite is None else ", or give --overwrite"
        raise UserError(
            f"{key}: expected a new name or a file written here before, found another one: {path}; choose another "
            f"name or remove it{switch}"
        )


def _is_ours(path: Path, heading: str | tuple[str, ...], mark: str | None) -> bool:
    with open_file(path, limit=LARGEST) as file:
        head = file.read(HEAD)
        if not head:
            return True  # nothing is lost
        if mark is not None:
            return mark.encode() in head + file.read()
        text = head.decode("utf-8-sig", errors="replace").lstrip()
        if text.startswith("{"):
            try:
                content = parse_json(head + file.read())
            except ValueError:
                return False
            return isinstance(content, dict) and all(name in content for name in PROVENANCE)
    if text.lower().startswith("<!doctype html"):
        return f'<meta name="generator" content="{GENERATOR}">' in text
    return text.startswith(heading or ())
