"""What this project writes into folders, and how it knows it again: results, runs and caches are never taken for
photos.
"""

import json
import time
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path

from common.errors import UserError
from common.files import append_line, read_file, version_of, write_text
from common.parse import parse_json
from common.paths import one_form

RESULTS_FILE = ".enhanced.jsonl"  # in a folder of results: a line for each, with its size and time
WRITER = ".enhanced-{}.jsonl"  # likewise, of one of several processes that write into it
CACHE_TAG = "CACHEDIR.TAG"  # of the Cache Directory Tagging Specification, which backup programs know too
RUN_FILES = frozenset({"config.yaml", "provenance.json"})  # by which a run folder is known
_CACHE_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
_NOBODYS = frozenset({"@eadir", "#recycle", "$recycle.bin", "system volume information", "__macosx", "lost+found"})


def record_result(file: Path, folder: Path, relative: Path, made_of: str = "", writer: str = "") -> None:
    """Remember that `folder / relative` is a result. Raises as `common.files.writing` does.

    file: the result before it takes that name, so that none is ever there without its record.
    made_of: stands for its photo and settings. writer: of several processes on several machines, whose appends to one
    file could collide, each has a name, and a file of that name.
    """
    status = file.stat()
    line = {"name": relative.as_posix(), "bytes": status.st_size, "time_ns": status.st_mtime_ns, "made_of": made_of}
    record = folder / (WRITER.format(writer) if writer else RESULTS_FILE)
    append_line(record, json.dumps(line | {"recorded_ns": time.time_ns()}))


class RecordedResults:
    """The results that were written into a folder, by their paths relative to it; none where nothing is recorded.

    unreadable: a record that is there and cannot be read, and why; None where all can.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: str | None = None
        self._known: dict[str, dict[tuple[int, int], tuple[int, str]]] = {}  # name -> bytes, time -> recorded, made of
        for file in [folder / RESULTS_FILE, *folder.glob(WRITER.format("*"))]:
            try:
                lines = read_file(file).decode(errors="replace").splitlines()
            except FileNotFoundError:
                continue
            except (OSError, UserError) as error:
                self.unreadable = str(error) if isinstance(error, UserError) else f"{file}: {error.strerror}"
                continue
            for line in lines:
                try:
                    self._add(parse_json(line))
                except (ValueError, OverflowError, LookupError, TypeError, AttributeError):
                    continue  # cut off by a stop; its result counts as somebody else's

    def _add(self, entry: dict) -> None:
        """What was written under a name earlier stays known: after a stop, the later one may not be there yet."""
        recorded, made_of = int(entry.get("recorded_ns", 0)), entry.get("made_of", "")
        name, version = one_form(entry["name"]), (entry["bytes"], entry["time_ns"])
        versions = self._known.setdefault(name, {})
        versions[version] = max(versions.get(version, (0, "")), (recorded, made_of))

    def __contains__(self, relative: Path) -> bool:
        return one_form(relative.as_posix()) in self._known

    def holds(self, relative: Path) -> bool:
        """Whether what is there now is what was written, not changed or replaced by another program."""
        return self.made_of(relative) is not None

    def made_of(self, relative: Path) -> str | None:
        """What stands for the photo and the settings of the result that is there now; "" where that was not recorded,
        None where another program wrote or changed it.
        """
        versions = self._known.get(one_form(relative.as_posix()), {})
        _, made_of = versions.get(version_of(self.folder / relative), (0, None))
        return made_of


def holds_results(names: Iterable[str]) -> bool:
    """Whether a folder that holds files of these names has recorded results."""
    return any(name == RESULTS_FILE or fnmatch(name, WRITER.format("*")) for name in names)


def tag_cache(folder: str | Path) -> None:
    """Mark a folder of ours as a cache, for listings and for backup programs. Raises as `common.files.writing` does."""
    tag = Path(folder) / CACHE_TAG
    if not tag.is_file():
        write_text(tag, f"{_CACHE_SIGNATURE}\n# Made by this project; python -m tools clean-cache empties it.\n")


def is_nobodys(name: str) -> bool:
    """Whether a folder of this name holds what a system left there: previews, deleted files."""
    return name.casefold() in _NOBODYS


def kind_of_folder(names: Collection[str]) -> str | None:
    """What a folder that holds files of these names is, where that is not photos: "a run folder" or "a cache"."""
    return "a run folder" if RUN_FILES.issubset(names) else "a cache" if CACHE_TAG in names else None
