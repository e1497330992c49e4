"""A folder of any size through Ray Data: the actors that enhance its photos, and what became of them.

Each actor holds one Enhancer and gets a few photos at a time.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from common.console import note
from common.errors import UserError, reason_of
from common.files import machine
from common.progress import track
from configs.schema import InferenceConfig
from data.outputs import record_result
from serving.jobs import Job
from serving.shards import Places, Records, Task
from serving.storage import RemoteFolder, set_time

BATCH = 8  # photos that an actor gets at once: while one is in the network, its neighbours are decoded and encoded
MOST_BLOCKS = 20_000  # of a million photos, each block 50
LOST = "expected an answer of its process, found none: it ended, maybe for want of memory"


@dataclass
class Followed:
    """What became of the photos. failures: (photo, reason), sorted; fault: the traceback of the first bug."""

    enhanced: int = 0
    pixels: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    fault: str | None = None


def enhance(
    config: InferenceConfig, weights: Path, places: Places, tasks: Sequence[Task], actors: int | None
) -> Followed:
    """Enhance what is left; notes and progress go to stderr. Raises UserError as `through_ray`."""
    result = Followed()
    with Records(places) as records:
        told = through_ray((config, weights, places), tasks, actors) if tasks else ()
        for line in track(told, "enhancing", len(tasks)):
            result.pixels += line.get("pixels", 0)
            result.fault = result.fault or line.get("fault")
            if "failed" in line:
                result.failures.append((line["source"], line["failed"]))
                continue
            result.enhanced += 1
            records.add(line)
            if line.get("note"):
                note(f"{line['source']}: {line['note']}")
    result.failures.sort()
    return result


class Worker:
    """One actor: an Enhancer, built at its first photo, and what it does with a batch."""

    def __init__(self, config: InferenceConfig, weights: Path, places: Places) -> None:
        self.config, self.weights, self.places = config, weights, places
        self.name = f"{machine()}-{os.getpid()}"

    @cached_property
    def enhancer(self) -> object:
        from serving.pipeline import enhancer_of

        return enhancer_of(self.config, self.weights)

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
        from serving.pipeline import Options, enhance_files

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
            outcome = enhance_files(
                [job for job, _ in jobs.values()],
                self.enhancer,
                replace(Options.of(self.config), skip_existing=False),  # the plan has left those out
                record=lambda file, folder, name: record_result(file, folder, name, made_of[name], self.name),
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
