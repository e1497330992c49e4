"""Files and folders that a user names."""

import os
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.errors import UserError
from common.files import kind_of_file, read_file

REPO_ROOT = Path(__file__).resolve().parent.parent
TEXT_LIMIT = 2**20  # bytes of a list or a table; a line for each of ten thousand photos
# folders that shipped configs and the documents name -> what tells how to fill them; {setting}: how to name another
EXPLAINED = {
    "input": "for example: python inference.py PHOTOS",
    "datasets/quickstart": "python -m tools quickstart makes it",
    "datasets": "name yours: {setting}",
    "inference_results": "the results to measure; --enhanced DIR names another folder",
    "pretrained_models/published": "python -m tools fetch-published, docs/reproduce.md",
    "pretrained_models/enhancement_model.pth": "the authors' weights: docs/reproduce.md",
    "test_data": "the papers' photos: docs/reproduce.md; or name yours: {setting}",
    "train_data": "the papers' photos: docs/reproduce.md; or name yours: {setting}",
}
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes that file systems take


def what_is_at(path: str | Path) -> str:
    """What is at a path, in words: "a file", "a folder", "nothing there", or why that cannot be known. Never raises."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return "a broken link" if os.path.islink(path) else "nothing there"  # noqa: PTH114
    except PermissionError:
        return "a folder on the way that may not be entered"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()  # "file name too long"
    except ValueError:
        return "a name with a NUL in it"
    return kind_of_file(mode) or "a file"


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a regular file; False also for one that is too long or below a locked folder."""
    return what_is_at(path) == "a file"


def find_file(value: str, key: str, *others: Path, hint: Callable[[], str] = str) -> Path:
    """A file named in a config: relative to the current folder, else to this repository, else one of `others`.

    hint: asked for the end of the error, where nothing is known of the name. Raises UserError.
    """
    for candidate in (Path(value), REPO_ROOT / value, *others):
        if is_file(candidate):
            return candidate
    how = how_to_get(value, [key], "FILE") or hint()
    raise UserError(f"{key}: expected a file, found {what_is_at(value)}: {value}{how}")


def find_folder(value: str, key: str) -> Path:
    """A folder named in a config. Raises UserError where it is missing or a file."""
    return find_folders({key: value})[0]


def find_folders(folders: Mapping[str, str]) -> list[Path]:
    """Folders named in a config, by their keys. Raises UserError about the first that is missing or a file; its hint
    names all the keys to set.
    """
    wrong = [key for key, value in folders.items() if not value.strip() or what_is_at(value) != "a folder"]
    for key in wrong:
        value = folders[key]
        if not value.strip():
            raise UserError(f"{key}: expected a folder, found an empty name")
        raise UserError(f"{key}: expected a folder, found {what_is_at(value)}: {value}{how_to_get(value, wrong)}")
    return [Path(value) for value in folders.values()]


def how_to_get(value: str | Path, keys: Sequence[str], what: str = "DIR") -> str:
    """For the end of an error about a missing path: what tells how to get it, where a shipped config names the path.

    keys: the flags, or config keys, with which another one is named. what: a folder or a file, for them.
    """
    if is_file(weights := Path(value) / "checkpoints" / "best.safetensors"):
        return f"; the weights of this run are {weights}"
    path = os.path.relpath(value or os.curdir)
    for place, how in EXPLAINED.items():
        if Path(path).is_relative_to(place):
            settings = {key: f"{key} {what}" if key.startswith("-") else f"--set {key}={what}" for key in keys}
            named = " ".join(text for key, text in settings.items() if key.startswith("-") or "." in key)
            return f" ({how.format(setting=named).removesuffix(': ')})"
    return ""


def absolute(path: str | Path) -> Path:
    """The path from the root on, links kept. A second slash at its start, which only POSIX gives a meaning, goes."""
    text = os.path.abspath(path)  # noqa: PTH100
    return Path(text[1:] if os.sep == "/" and text.startswith("//") else text)


def user_cache() -> Path | None:
    """The folder for what this project may compute again, as the system has it for each user; None where there is none.

    `XDG_CACHE_HOME`, where it is set, is the folder above it on every system.
    """
    usual = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}.get(sys.platform, "~/.cache")
    above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(usual)  # noqa: PTH111
    return Path(above) / "backlit" if os.path.isabs(above) else None  # noqa: PTH117


def one_form(name: str) -> str:
    """A name in the one form of Unicode in which names are compared: macOS writes "é" as two characters."""
    return unicodedata.normalize("NFC", name)


def expand(value: str) -> str:
    """A path with `~` and `$NAME` replaced, as a shell does; a path that exists as it is written stays."""
    if ("~" not in value and "$" not in value) or os.path.lexists(value):
        return value
    return os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111


def why_no_path(value: str) -> str | None:
    """What a path must be that this one is not, or None: some text without a NUL, of as many bytes as systems take."""
    if not value.strip():
        return "a path, found an empty name"
    if "\0" in value:
        return "a path without a NUL"
    try:
        path = os.fsencode(value)
    except UnicodeEncodeError:
        return "a path in Unicode"
    if max(map(len, path.split(b"/"))) > LONGEST_NAME:
        return f"names of at most {LONGEST_NAME} bytes in a path"
    return f"a path of at most {LONGEST_PATH} bytes" if len(path) > LONGEST_PATH else None


def read_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises UserError where it is no regular file, cannot be read, is larger than `limit` bytes, or is not UTF-8.
    """
    what = what_is_at(path)
    if what != "a file":
        raise UserError(f"{path}: expected a text file, found {what}")
    try:
        content = read_file(path, limit=limit)
    except OSError as error:
        raise UserError(f"{path}: expected a text file, found one that cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        what = "UTF-16" if utf16 else f"the byte 0x{content[error.start]:02x} at position {error.start}"
        raise UserError(f"{path}: expected text in UTF-8, found {what}") from None
