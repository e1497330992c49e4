"""Enhancement of files: while one photo is in the network, the next is decoded and the one before is encoded."""

import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from common.files import DiskFull
from common.paths import is_file
from common.progress import Progress
from configs.choices import MetadataMode, SameFor
from data.images import (
    PNG_LEVEL,
    STANDARD,
    WRITABLE,
    ImageError,
    Limits,
    Metadata,
    Photo,
    check_writable,
    read_photo,
    write_photo,
)
from data.outputs import record_result
from serving.enhancer import Enhancer
from serving.finish import PLAIN, Finish
from serving.jobs import Job
from serving.strength import Strength, of_scenes

if TYPE_CHECKING:
    from configs.schema import InferenceConfig

IN_FLIGHT = 32_000_000  # pixels; with this many in memory the next photo is not decoded yet
ENCODING = 2  # photos that may wait to be written
GPU_WRITERS = 4  # threads that encode beside a GPU, which leaves the processor's cores to them


@dataclass
class Outcome:
    """What became of a list of jobs."""

    enhanced: int = 0
    skipped: int = 0
    pixels: int = 0
    """Of the enhanced photos together."""
    failures: list[tuple[Path, str]] = field(default_factory=list)
    """Photo and reason (one line), in the order of the jobs."""
    notes: list[tuple[Path, str]] = field(default_factory=list)
    """Photo and what its owner should know, such as "animated: first of 12 frames"."""
    fault: str | None = None
    """Traceback of the first failure that is no photo's fault but a bug."""
    seconds: dict[Path, float] = field(default_factory=dict)
    """Of each enhanced photo: its reading, computing and writing; together more than the run takes, which overlaps
    those of several photos.
    """


def together(outcomes: list[Outcome], jobs: list[Job]) -> Outcome:
    """One outcome of several that share a list of jobs; failures and notes in the order of the jobs."""
    order = {job.source: number for number, job in enumerate(jobs)}
    result = Outcome(*(sum(getattr(o, name) for o in outcomes) for name in ("enhanced", "skipped", "pixels")))
    for name in ("failures", "notes"):
        getattr(result, name).extend(
            sorted((item for o in outcomes for item in getattr(o, name)), key=lambda item: order[item[0]])
        )
    result.fault = next((o.fault for o in outcomes if o.fault), None)
    result.seconds = {source: taken for o in outcomes for source, taken in o.seconds.items()}
    return result


@dataclass(frozen=True, kw_only=True)
class Options:
    """How files are enhanced, and what is written of each."""

    strength: Strength = 1.0
    same_for: SameFor = "photo"
    """"folder": the photos of each folder are one scene, whose strength is decided once (`serving.strength`)."""
    finish: Finish = PLAIN
    quality: int | Literal["keep"] = 95
    png_level: int = PNG_LEVEL
    metadata: MetadataMode = "all"
    side_by_side: bool = False
    """Also write photo and result as one picture, into a folder beside the output."""
    illumination: bool = False
    """Also write the map as a grey picture (white: 1 or more, no change), into a folder beside the output."""
    skip_existing: bool = False
    """Leave out photos of which all that is wanted is there, and write no file that is there."""
    limits: Limits = STANDARD

    @classmethod
    def of(cls, config: "InferenceConfig") -> Self:
        """What a config says."""
        model, save, data = config.model, config.save, config.data
        return cls(
            strength=model.strength,
            same_for=model.same_for,
            finish=Finish(highlights=save.highlights, denoise=save.denoise, dither=save.dither),
            quality=save.quality,
            png_level=save.png_level,
            metadata=save.metadata,
            side_by_side=save.side_by_side,
            illumination=save.illumination,
            skip_existing=save.skip_existing,
            limits=data.limits,
        )

    @property
    def extras(self) -> list[str]:
        """What is written beside each result: of "side_by_side" and "illumination" those that are wanted."""
        return [what for what in ("side_by_side", "illumination") if getattr(self, what)]


def enhancer_of(config: "InferenceConfig", weights: Path) -> Enhancer:
    """The network as a config wants it run. Raises as `Enhancer`."""
    return Enhancer(weights, **config.model.model_dump(exclude={"checkpoint", "strength", "same_for"}))


def enhance_files(
    jobs: list[Job],
    enhancer: Enhancer,
    options: Options = Options(),
    *,
    scenes: list[Job] | None = None,
    record: Callable[[Path, Path], None] = record_result,
) -> Outcome:
    """Enhance photo after photo; one that cannot be read, written or held in memory does not stop the others.

    scenes: where `jobs` are a part of a run, all its jobs, by which the strength of each scene is decided. record: is
    called with the folder and the relative path of each file that was written. Progress is a bar on a terminal, a line
    now and then in a log. Results are those of one photo at a time; in memory are at most `IN_FLIGHT` pixels and one
    photo more, whatever the folder. Raises UserError where the disk is full.
    """
    todo = jobs
    if options.skip_existing:
        todo = [job for job in jobs if not all(map(is_file, [job.target, *map(job.beside, options.extras)]))]
    outcome = Outcome(skipped=len(jobs) - len(todo))
    record = _one_by_one(record)
    writers = 1 if enhancer.choice.device == "cpu" else min(GPU_WRITERS, os.cpu_count() or 1)
    reader, writer = ThreadPoolExecutor(1), ThreadPoolExecutor(writers)
    progress = Progress("enhancing", len(todo))
    begun: deque[_Begun] = deque()  # in the order of the jobs; but for the last, computed and being written

    decided = {}
    if options.same_for == "folder" and todo:
        decided = of_scenes(scenes or jobs, enhancer, options.strength, options.limits)
    enhance = partial(enhancer.enhance, finish=options.finish, keep_map=options.illumination)
    read = partial(read_photo, integers=True, limits=options.limits)
    save = partial(write_photo, quality=options.quality, metadata=options.metadata, png_level=options.png_level)

    def begin(job: Job) -> _Begun:
        item = _Begun(job)
        item.reading = reader.submit(item.clocked, read, job.source)
        return item

    def settle() -> None:
        progress.add()
        _settle(begun.popleft(), outcome, enhancer)

    def room() -> bool:
        return sum(item.pixels for item in begun) < IN_FLIGHT

    try:
        following = None
        for number, job in enumerate(todo):
            while following is None and not room():
                settle()
            item = following or begin(job)
            begun.append(item)
            photo = item.attempt(item.reading.result)
            following = item.reading = None  # which holds the photo
            if photo:
                item.pixels, item.note = photo.rgb.shape[0] * photo.rgb.shape[1], _note(photo, job)
                photo = item.attempt(_checked, photo, job, options.side_by_side)
            if number + 1 < len(todo) and room():
                following = begin(todo[number + 1])
            strength = decided.get(job.source, options.strength)
            computed = item.attempt(item.clocked, enhance, photo.rgb, strength) if photo else None
            if computed:
                source = photo.rgb if options.side_by_side else None
                result = replace(photo, rgb=computed[0])
                item.writing = writer.submit(
                    item.clocked, _write, job, result, source, computed[1], save, options.skip_existing, record
                )
            photo = computed = source = result = None  # the writer has what it needs, and lets go of it when it is done
            while len(begun) > ENCODING * writers:
                settle()
        while begun:
            settle()
    finally:  # also after Ctrl-C: what is being written is finished, what waits is dropped
        for pool in (reader, writer):
            pool.shutdown(cancel_futures=True)
        progress.close()
    return outcome


def _one_by_one(record: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """The same for threads that write: each line of the record is whole."""
    lock = Lock()

    def locked(folder: Path, relative: Path) -> None:
        with lock:
            record(folder, relative)

    return locked


@dataclass
class _Begun:
    """A photo on its way."""

    job: Job
    pixels: int = 0
    note: str | None = None
    seconds: float = 0.0
    reading: Future | None = None
    writing: Future | None = None
    error: Exception | None = None
    fault: str | None = None  # traceback of an error that nobody expects

    def clocked(self, step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the step returns; its time is added to the photo's. One step at a time, in whatever thread."""
        start = time.perf_counter()
        try:
            return step(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start

    def attempt(self, step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the step returns, or None and `error`: whatever goes wrong with one photo, the others are done."""
        try:
            return step(*arguments, **options)
        except DiskFull:
            raise  # the others would find no room either
        except Exception as error:
            if not isinstance(error, ImageError) and not _out_of_memory(error):
                self.fault = "".join(traceback.format_exception(error))
            self.error = error.with_traceback(None)  # it would keep arrays alive
        return None


def _settle(item: _Begun, outcome: Outcome, enhancer: Enhancer) -> None:
    """Wait until the photo is written, and count it."""
    written = item.attempt(item.writing.result) if item.writing else None
    item.note = "; ".join(filter(None, [item.note, written])) or None
    if item.error is None:
        outcome.enhanced += 1
        outcome.seconds[item.job.source] = item.seconds
        outcome.pixels += item.pixels
        outcome.notes += [(item.job.source, item.note)] if item.note else []
    elif isinstance(item.error, ImageError):
        outcome.failures.append((item.job.source, str(item.error).removeprefix(f"{item.job.source}: ")))
    elif item.fault:
        outcome.fault = outcome.fault or item.fault
        text = " ".join(str(item.error).split())
        outcome.failures.append((item.job.source, f"unexpected {type(item.error).__name__}: {text}"))
    else:
        size = f"{item.pixels / 1e6:.1f} megapixels" if item.pixels else "its pixels"
        reason = f"expected a photo that fits into memory, found too little for {size} ({enhancer.choice.device})"
        outcome.failures.append((item.job.source, reason))


def _checked(photo: Photo, job: Job, side_by_side: bool) -> Photo:
    """The photo, if its results can be written at all: reported before the network has run, not after."""
    height, width = photo.rgb.shape[:2]
    check_writable(job.target, height, width)
    if side_by_side:
        check_writable(job.beside("side_by_side"), height, 2 * width)
    return photo


def _note(photo: Photo, job: Job) -> str | None:
    flattened = WRITABLE.get(job.target.suffix.lower()) == "JPEG" and photo.alpha is not None
    flattened = flattened and photo.alpha.min() < np.iinfo(photo.alpha.dtype).max
    return (
        "; ".join(
            filter(
                None, [photo.note, "transparent parts became white, JPEG has no transparency" if flattened else None]
            )
        )
        or None
    )


def _write(
    job: Job,
    result: Photo,
    source: np.ndarray | None,
    illumination: np.ndarray | None,
    save: Callable[[Path, Photo], str | None],
    keep: bool,
    record: Callable[[Path, Path], None],
) -> str | None:
    """Write the result; with `source`, both side by side; with `illumination`, the map. `keep`: what is there stays.

    Gives the note of `save` about the result.
    """

    def write(target: Path, photo: Photo) -> str | None:
        if keep and is_file(target):
            return None
        note = save(target, photo)
        record(target.parents[len(job.relative.parts) - 1], job.relative)
        return note

    note = write(job.target, result)
    if source is not None:
        alpha = None if result.alpha is None else np.concatenate([result.alpha] * 2, axis=1)
        both = replace(
            result, rgb=np.concatenate([source, result.rgb], axis=1), alpha=alpha, metadata=Metadata()
        )  # which is about one photo
        write(job.beside("side_by_side"), both)
    if illumination is not None:
        grey = np.broadcast_to(illumination[..., None], (*illumination.shape, 3))
        write(job.beside("illumination"), Photo(grey, bits=result.bits, grey=True))
    return note


def _out_of_memory(error: Exception) -> bool:
    """PyTorch says so by a type of its own on GPUs, and by a text on the CPU."""
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in texts)
