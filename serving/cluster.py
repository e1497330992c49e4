"""A folder of any size through Ray Data: which photos are left to do, the actors that do them, what they report.

Results are those of `inference.py`. Each actor holds one Enhancer and gets a few photos at a time. A result is recorded
with what it was made of, so that a run that was stopped goes on with the rest.
"""

import csv
import hashlib
import io
import json
import logging
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common import __version__
from common.errors import UserError, reason_of
from common.files import PART, file_digest, write_text
from configs.schema import InferenceConfig
from data.images import Limits
from data.listing import image_suffixes
from data.outputs import RecordedResults, record_result
from serving.jobs import SUFFIXES, Job, make_output, plan_outputs, refuse_strangers, unique_names
from serving.storage import RemoteFolder, is_url, set_time, stamp

BATCH = 8  # photos that an actor gets at once: while one is in the network, its neighbours are decoded and encoded
RECORD = ".enhanced-"  # how their names begin
RECORDS = 500  # results behind a URL that one file of records holds
MOST_BLOCKS = 20_000  # of a million photos, each block 50
LOST = "expected an answer of its process, found none: it ended, maybe for want of memory"
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
            make_output(self.folder, KEYS[1])

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
        """Relative path -> what it was made of, and its bytes; the last record of each counts. files: in the folder."""
        texts = [folder.read(name).decode(errors="replace") for name in files if name.startswith(RECORD)]
        lines = sorted((json.loads(line) for text in texts for line in text.splitlines()), key=lambda line: line["ns"])
        return {line["relative"]: (line["made_of"], line["bytes"]) for line in lines}

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error: object) -> None:
        self.write()


def plan(config: InferenceConfig, source: str, output: str, weights: Path) -> tuple[Places, list[Task], int]:
    """Where, what is left to do, and how many results are there already. Writes nothing. Raises UserError."""
    save = config.save
    extras = tuple(what for what in ("side_by_side", "illumination") if getattr(save, what))
    settings = _settings(config, weights)

    def made_of(photo: str) -> str:
        return hashlib.sha256(f"{settings} {photo}".encode()).hexdigest()[:32]

    if is_url(source):
        remote, listed = RemoteFolder(source, KEYS[0]), None
        listed = {n: i for n, i in remote.files().items() if _is_photo(n)}
        if not listed:
            raise UserError(f"{KEYS[0]}: expected images, found none in {source}")
        names = unique_names({Path(name): Path(name) for name in listed}, SUFFIXES.get(save.format))
        tasks = [
            Task(
                str(path),
                name.as_posix(),
                made_of(stamp(listed[str(path)])),
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
        remote, tasks = None, [Task(str(j.source), j.relative.as_posix(), made_of(_file_stamp(j.source))) for j in jobs]
    places = Places(remote, RemoteFolder(output, KEYS[1]) if is_url(output) else Path(output).absolute(), extras)
    done = _finished(places, tasks, config)
    return places, [task for task in tasks if task.relative not in done], len(done)


def _is_photo(name: str) -> bool:
    return Path(name).suffix.lower() in image_suffixes() and not any(part.startswith(".") for part in Path(name).parts)


def _settings(config: InferenceConfig, weights: Path) -> str:
    """What results depend on beside the photo; not the processor, not the tiles."""
    return json.dumps(
        [
            __version__,
            file_digest(weights),
            config.model.model_dump(exclude={"checkpoint", "device", "tile_size"}),
            config.save.model_dump(exclude={"skip_existing", "overwrite"}),
            config.data.model_dump(exclude={"input", "output"}),
        ]
    )


def _file_stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""  # the actor will say so
    return f"{status.st_size} {status.st_mtime_ns}"


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
            return all((known.folder / relative).exists() for known in folders)
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


class Worker:
    """One actor: an Enhancer, built at its first photo, and what it does with a batch."""

    def __init__(self, config: InferenceConfig, weights: Path, places: Places) -> None:
        self.config, self.weights, self.places = config, weights, places
        self.name = f"{hashlib.sha256(platform.node().encode(errors='replace')).hexdigest()[:8]}-{os.getpid()}"

    @cached_property
    def enhancer(self) -> object:
        from serving.enhancer import Enhancer

        return Enhancer(self.weights, **self.config.model.model_dump(exclude={"checkpoint", "strength"}))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tasks = [Task(**json.loads(text)) for text in batch["task"]]
        try:
            told = self.enhance(tasks)
        except UserError as error:  # of all photos alike: a full disk, weights, rights; the run ends with it
            told = [{"relative": task.relative, "stopped": str(error)} for task in tasks]
        return {"told": np.array([json.dumps(line) for line in told], dtype=object)}

    def enhance(self, tasks: list[Task]) -> list[dict]:
        """Enhance and write. A line for each photo: `relative`, and `failed` with the reason, or `pixels`, `note` and
        what records a result behind a URL.
        """
        from serving.pipeline import enhance_files

        with tempfile.TemporaryDirectory(prefix="enhance-") as temporary:
            here = Path(temporary)
            jobs, failed = {}, {}
            for number, task in enumerate(tasks):
                output = here / "out" if isinstance(self.places.output, RemoteFolder) else self.places.output
                try:
                    source = self._local(task, here / str(number))
                    jobs[source] = Job(source, output / task.relative, Path(task.relative)), task
                except OSError as error:
                    failed[task.relative] = f"expected a readable file, found: {error.strerror or reason_of(error)}"
            made_of = {Path(task.relative): task.made_of for task in tasks}
            config = self.config
            outcome = enhance_files(
                [job for job, _ in jobs.values()],
                self.enhancer,
                strength=config.model.strength,
                **config.save.model_dump(exclude={"format", "overwrite", "skip_existing"}),
                limits=Limits(config.data.max_megapixels, config.data.incomplete),
                record=lambda folder, relative: record_result(folder, relative, made_of[relative], self.name),
            )
            failed |= {jobs[path][1].relative: reason for path, reason in outcome.failures}
            notes = {jobs[path][1].relative: note for path, note in outcome.notes}
            told = [{"relative": task.relative, "source": task.source, "made_of": task.made_of} for task in tasks]
            for line in told:
                name = line["relative"]
                if name in failed:
                    line["failed"] = failed[name]
                    continue
                line["note"] = notes.get(name)
                if isinstance(self.places.output, RemoteFolder):
                    line["bytes"] = (here / "out" / name).stat().st_size
                    folders = [here / "out", *(here / f"out_{what}" for what in self.places.extras)]
                    for folder, remote in zip(folders, self.places.outputs(), strict=True):
                        remote.put(folder / name, name)
            told[0] |= {"pixels": outcome.pixels, "fault": outcome.fault}
            return told

    def _local(self, task: Task, folder: Path) -> Path:
        """The photo on a disk. Raises OSError, or UserError where its URL cannot be reached."""
        if not self.places.source:
            return Path(task.source)
        target = folder / Path(task.source).name
        self.places.source.fetch(task.source, target)
        set_time(target, json.loads(task.info))
        return target


def through_ray(worker: tuple, tasks: Sequence[Task], actors: int | None) -> Iterator[dict]:
    """What the actors tell of each photo, as it comes (`Worker.enhance`). worker: the arguments of `Worker`.

    A cluster that RAY_ADDRESS names is used, else one is started on this machine. actors: None: one for each GPU, or
    for four cores. Raises UserError where Ray cannot be started, and where all photos would fail alike.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.disable(logging.WARNING)  # Ray tells its plans and options
    import ray

    try:
        # one that is started here listens to this machine alone
        ray.init(include_dashboard=False, logging_level="error", log_to_driver=False, _node_ip_address="127.0.0.1")
    except Exception as error:  # of many types
        raise UserError(f"enhance-ray: expected Ray to start or to be reached, found: {reason_of(error)}") from None
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.max_errored_blocks = False, -1  # what a dead actor had is told as failed
        there = ray.cluster_resources()
        cores, gpus = there.get("CPU", 1), 0 if worker[0].model.device == "cpu" else there.get("GPU", 0)
        actors = actors or int(gpus or max(1, cores // 4))
        each = (gpus or cores) / actors
        share = {"num_gpus": min(1, each)} if gpus else {"num_cpus": int(each) or each}  # whole ones, or a part of one
        items = [{"task": json.dumps(asdict(task))} for task in tasks]
        blocks = max(min(MOST_BLOCKS, -(-len(items) // BATCH)), min(actors, len(items)))
        data = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
            Worker,
            fn_constructor_args=worker,
            batch_size=BATCH,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            **share,
        )
        waiting = {task.relative: task for task in tasks}
        for row in data.iter_rows():
            line = json.loads(row["told"])
            if "stopped" in line:
                raise UserError(line["stopped"])
            waiting.pop(line["relative"], None)
            yield line
        for task in waiting.values():
            yield {"relative": task.relative, "source": task.source, "failed": LOST}
    finally:
        ray.shutdown()
        logging.disable(logging.NOTSET)
