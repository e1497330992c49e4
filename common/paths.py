"""Files and folders that a user names."""

from pathlib import Path

from common.errors import UserError

REPO_ROOT = Path(__file__).resolve().parent.parent


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a regular file; False also for one that is too long or below a locked folder."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def find_file(value: str, key: str) -> Path:
    """A file named in a config: relative to the current folder, else to this repository. Raises UserError."""
    for candidate in (Path(value), REPO_ROOT / value):
        if candidate.is_file():
            return candidate
    found = "a folder" if Path(value).is_dir() else "nothing there"
    raise UserError(f"{key}: expected a file, found {found}: {value}")


def find_folder(value: str, key: str) -> Path:
    """A folder named in a config. Raises UserError where it is missing or a file."""
    if not value.strip():
        raise UserError(f"{key}: expected a folder, found an empty name")
    path = Path(value)
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing there"
        raise UserError(f"{key}: expected a folder, found {found}: {value}")
    return path
