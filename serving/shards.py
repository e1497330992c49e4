"""What is left to do in a folder of any size, on a disk or behind a URL, and what records its results.

Results are those of `inference.py`, and each is recorded with what it was made of: a run that was stopped goes on with
the rest.
"""

import contextlib
import csv
import io
import json
import secrets
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import PART, check_file, check_folder, make_folder, write_text
from common.parse import parse_json
from common.paths import is_file
from configs.schema import InferenceConfig
from data.listing import image_suffixes
from data.outputs import RecordedResults
from serving.jobs import SUFFIXES, Job, plan_outputs, refuse_strangers, unique_names
from serving.made_of import file_stamp, made_of
from serving.storage import RemoteFolder, is_url, stamp

RECORD = ".enhanced-"  # how the names of records behind a URL begin
RECORDS = 500  # results behind a URL that one file of records holds
KEYS = ("--input", "--output")


@dataclass(frozen=True)
class Task:
    """One photo: its path, or its path below the input URL, and its result's below the output folder.

    made_of: stands for the photo and the settings. info: of a photo behind a URL, its entry in the listing.
    """

    source: str
    relative: str
    made_of: str
    info: str = "{}"


@dataclass(frozen=True)
class Places:
    """Where photos lie and results go: folders of this (or a shared) disk, or None where `remote` is a URL."""

    source: RemoteFolder | None
    output: Path | RemoteFolder
    extras: tuple[str, ...]

    def outputs(self) -> list[Any]:
        """The folder of the results, and those of what is written beside them."""
        if isinstance(self.output, RemoteFolder):
            return [self.output, *map(self.output.beside, self.extras)]
        return [self.output, *(self.output.with_name(f"{self.output.name}_{what}") for what in self.extras)]

    def write_failures(self, failures: Sequence[tuple[str, str]]) -> str:
        """Write OUTPUT_failures.csv, of photos and reasons; the header alone where none failed. Returns its place."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("photo", "reason"), *failures])
        if isinstance(self.output, Path):
            table = self.output.with_name(f"{self.output.name}_failures.csv")
            write_text(table, text.getvalue())
            return str(table)
        parent, _, name = self.output.url.rpartition("/")
        RemoteFolder(parent, self.output.key).put_text(text.getvalue(), f"{name}_failures.csv")
        return f"{parent}/{name}_failures.csv"


class Records:
    """Records of results behind a URL, in files of `RECORDS` lines; actors record those on a disk themselves."""

    def __init__(self, places: Places) -> None:
        self.folder, self.lines = places.output, []
        if isinstance(self.folder, Path):
            make_folder(self.folder, KEYS[1])

    def add(self, line: dict) -> None:
        self.lines.append({name: line.get(name) for name in ("relative", "made_of", "bytes")} | {"ns": time.time_ns()})
        if len(self.lines) >= RECORDS:
            self.write()

    def write(self) -> None:
        if self.lines and isinstance(self.folder, RemoteFolder):
            text = "".join(f"{json.dumps(line)}\n" for line in self.lines)
            self.folder.put_text(text, f"{RECORD}{secrets.token_hex(8)}.jsonl")
        self.lines.clear()

    @staticmethod
    def read(folder: RemoteFolder, files: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Relative path -> what it was made of, and its bytes; the last record of each counts. files: in the folder.

        A damaged line counts as none: its photo is enhanced again.
        """
        known = {}
        for name in files:
            for text in folder.read(name).decode(errors="replace").splitlines() if name.startswith(RECORD) else ():
                with contextlib.suppress(ValueError, LookupError, TypeError):
                    line = parse_json(text)
                    made = (int(line["ns"]), str(line["made_of"]), int(line["bytes"]))
                    known[str(line["relative"])] = max(made, known.get(line["relative"], made))
        return {relative: made[1:] for relative, made in known.items()}

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error: object) -> None:
        self.write()


def plan(config: InferenceConfig, source: str, output: str, weights: Path) -> tuple[Places, list[Task], int]:
    """Where, what is left to do, and how many results are there already. Writes nothing. Raises UserError."""
    save = config.save
    if config.model.same_for != "photo":
        raise UserError(
            "model.same_for: expected photo, as no process here sees a whole folder, "
            f"found {config.model.same_for}; inference.py takes it"
        )
    extras = tuple(what for what in ("side_by_side", "illumination") if getattr(save, what))
    stands_for = made_of(config, weights, extras)
    if is_url(source):
        remote = RemoteFolder(source, KEYS[0])
        listed = {n: i for n, i in remote.files().items() if _is_photo(n)}
        if not listed:
            raise UserError(f"{KEYS[0]}: expected images, found none in {source}")
        names = unique_names({Path(name): Path(name) for name in listed}, SUFFIXES.get(save.format))
        tasks = [
            Task(
                str(path),
                name.as_posix(),
                stands_for(stamp(listed[str(path)])),
                json.dumps(listed[str(path)], default=str),
            )
            for path, name in names.items()
        ]
    else:
        # of results behind a URL, only the names count
        folder = Path(tempfile.gettempdir()) / f"{PART}{secrets.token_hex(8)}" if is_url(output) else output
        keep = is_url(output) or save.skip_existing
        jobs = plan_outputs(
            [source], folder, save.format, keep=keep, overwrite=save.overwrite, extras=extras, keys=KEYS
        )
        remote = None
        tasks = [Task(str(j.source), j.relative.as_posix(), stands_for(file_stamp(j.source))) for j in jobs]
    places = Places(remote, RemoteFolder(output, KEYS[1]) if is_url(output) else Path(output).absolute(), extras)
    if isinstance(places.output, Path):
        for folder in places.outputs():
            check_folder(folder, KEYS[1])
        check_file(places.output.with_name(f"{places.output.name}_failures.csv"), KEYS[1])
    done = _finished(places, tasks, config)
    return places, [task for task in tasks if task.relative not in done], len(done)


def _is_photo(name: str) -> bool:
    return Path(name).suffix.lower() in image_suffixes() and not any(part.startswith(".") for part in Path(name).parts)


def _finished(places: Places, tasks: Sequence[Task], config: InferenceConfig) -> set[str]:
    """The results that need not be made again. Raises UserError where one would replace a stranger's file."""
    behind_url = isinstance(places.output, RemoteFolder)
    return _finished_behind_url(places, tasks, config) if behind_url else _finished_on_disk(places, tasks, config)


def _finished_on_disk(places: Places, tasks: Sequence[Task], config: InferenceConfig) -> set[str]:
    save = config.save
    if places.source and not (save.skip_existing or save.overwrite):  # of photos on a disk, the plan has done that
        jobs = [Job(Path(t.source), places.output / t.relative, Path(t.relative)) for t in tasks]
        refuse_strangers(jobs, places.extras, KEYS[1])
    folders = [RecordedResults(folder) for folder in places.outputs()]

    def there(task: Task) -> bool:
        relative = Path(task.relative)
        if save.skip_existing:
            return all(is_file(known.folder / relative) for known in folders)
        return all(known.made_of(relative) == task.made_of for known in folders)

    return {task.relative for task in tasks if there(task)}


def _finished_behind_url(places: Places, tasks: Sequence[Task], config: InferenceConfig) -> set[str]:
    save, (files, *extras) = config.save, [folder.files() for folder in places.outputs()]
    there = {task.relative for task in tasks if task.relative in files}
    complete = {name for name in there if all(name in others for others in extras)}
    if save.skip_existing:
        return complete
    known = Records.read(places.output, files)
    if there and not known and not save.overwrite:
        raise UserError(
            f"{KEYS[1]}: expected a folder without other files of the results' names, found {min(there)} in "
            f"{places.output.url}; choose another folder, --set save.skip_existing=true or --overwrite"
        )
    wanted = {
        task.relative: (task.made_of, files[task.relative].get("size")) for task in tasks if task.relative in complete
    }
    return {name for name, made_of in wanted.items() if known.get(name) == made_of}
