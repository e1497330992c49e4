"""Enhancement of files: while one photo is in the network, the next is decoded and the one before is encoded."""

import contextlib
import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from common.files import DiskFull, version_of
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
from serving.outcome import Outcome
from serving.strength import Strength, of_scenes

if TYPE_CHECKING:
    from configs.schema import InferenceConfig

IN_FLIGHT = 32_000_000  # pixels; with this many in memory the next photo is not decoded yet
ENCODING = 2  # photos that may wait to be written
GPU_WRITERS = 4  # threads that encode beside a GPU, which leaves the processor's cores to them


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
    record: Callable[[Path, Path, Path], None] = record_result,
) -> Outcome:
    """Enhance photo after photo; one that cannot be read, written or held in memory does not stop the others.

    scenes: where `jobs` are a part of a run, all its jobs, by which the strength of each scene is decided.
    record: is called with each result before it takes its name, its folder, and its path in there.
    Progress is a bar on a terminal, a line now and then in a log. Results are those of one photo at a time; in memory
    are at most `IN_FLIGHT` pixels and one photo more, whatever the folder. Raises UserError where the disk is full.
    """
    todo = jobs
    if options.skip_existing:
        todo = [job for job in jobs if not all(map(is_file, job.places(options.extras)))]
    sizes = [(version_of(job.source) or (0, 0))[0] for job in todo]
    line = _Line(enhancer, options, _one_by_one(record), Progress("enhancing", len(todo), sizes=sizes))
    line.outcome.skipped = len(jobs) - len(todo)
    try:
        with contextlib.closing(line):
            strengths = {}
            if options.same_for == "folder" and todo:
                strengths = of_scenes(scenes or jobs, enhancer, options.strength, options.limits)
            for job, following in zip_longest(todo, todo[1:]):
                line.enhance(job, strengths.get(job.source, options.strength), following)
                line.settle_to(line.writers * ENCODING)
            line.settle_to(0)
    except KeyboardInterrupt as stop:
        stop.add_note(f"{line.written():,} of {len(todo):,} photos done, --skip-existing goes on with the others")
        raise
    return line.outcome


def _one_by_one(record: Callable[[Path, Path, Path], None]) -> Callable[[Path, Path, Path], None]:
    """The same for threads that write: each line of the record is whole."""
    lock = Lock()

    def locked(file: Path, folder: Path, relative: Path) -> None:
        with lock:
            record(file, folder, relative)

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


class _Line:
    """Photos on their way, in the order of the jobs: one is decoded, one is in the network, some are encoded."""

    def __init__(
        self, enhancer: Enhancer, options: Options, record: Callable[[Path, Path, Path], None], progress: Progress
    ) -> None:
        self.enhancer, self.options, self.record, self.progress = enhancer, options, record, progress
        self.outcome = Outcome()
        self.writers = 1 if enhancer.choice.device == "cpu" else min(GPU_WRITERS, os.cpu_count() or 1)
        self._reader, self._writer = ThreadPoolExecutor(1), ThreadPoolExecutor(self.writers)
        self._begun: deque[_Begun] = deque()  # but for the last, computed and being written
        self._following: _Begun | None = None  # being decoded meanwhile

    def enhance(self, job: Job, strength: Strength, following: Job | None) -> None:
        """Read a photo, compute its result and leave it to be written, while the `following` one is read."""
        while self._following is None and not self._has_room():
            self._settle()
        item = self._following or self._begin(job)
        self._begun.append(item)
        photo = item.attempt(item.reading.result)
        self._following = item.reading = None  # which holds the photo
        if photo:
            item.pixels, item.note = photo.rgb.shape[0] * photo.rgb.shape[1], _note(photo, job, self.options.finish)
            photo = item.attempt(_checked, photo, job, self.options.side_by_side)
        if following and self._has_room():
            self._following = self._begin(following)
        computed = item.attempt(item.clocked, self._computed, photo.rgb, strength) if photo else None
        if computed:
            result, illumination = replace(photo, rgb=computed[0]), computed[1]
            source = photo.rgb if self.options.side_by_side else None
            item.writing = self._writer.submit(item.clocked, self._write, job, result, source, illumination)
        self.progress.add()  # the network takes the most time; writing goes on beside the next photo

    def settle_to(self, count: int) -> None:
        """Wait until no more than so many photos are unwritten."""
        while len(self._begun) > count:
            self._settle()

    def close(self) -> None:
        """Also after Ctrl-C: what is being written is finished, what waits is dropped."""
        for pool in (self._reader, self._writer):
            pool.shutdown(cancel_futures=True)
        self.progress.close()

    def written(self) -> int:
        """How many results have their names, once it is closed."""
        ended = [item.writing for item in self._begun if item.writing and not item.writing.cancelled()]
        return self.outcome.enhanced + sum(writing.exception() is None for writing in ended)

    def _has_room(self) -> bool:
        return sum(item.pixels for item in self._begun) < IN_FLIGHT

    def _begin(self, job: Job) -> _Begun:
        item = _Begun(job)
        read = partial(read_photo, integers=True, limits=self.options.limits)
        item.reading = self._reader.submit(item.clocked, read, job.source)
        return item

    def _computed(self, rgb: np.ndarray, strength: Strength) -> tuple[np.ndarray, np.ndarray | None]:
        finish, keep_map = self.options.finish, self.options.illumination
        return self.enhancer.enhance(rgb, strength, finish=finish, keep_map=keep_map, progress=self.progress.within)

    def _write(self, job: Job, result: Photo, source: np.ndarray | None, illumination: np.ndarray | None) -> str | None:
        """Write the result; with `source`, both side by side; with `illumination`, the map.

        With `skip_existing` what is there stays. Gives the note of `write_photo` about the result.
        """
        options = self.options

        def write(target: Path, photo: Photo) -> str | None:
            if options.skip_existing and is_file(target):
                return None
            folder = job.folder_of(target)

            def finished(file: Path) -> None:
                self.record(file, folder, job.relative)
                job.take(target, file)  # last: another run may write into the same folder

            return write_photo(
                target,
                photo,
                quality=options.quality,
                metadata=options.metadata,
                png_level=options.png_level,
                finished=finished,
            )

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

    def _settle(self) -> None:
        """Wait until the photo that was begun first is written, and count it."""
        item = self._begun[0]
        written = item.attempt(item.writing.result) if item.writing else None
        self._begun.popleft()  # not before: a stop meanwhile counts what was begun
        item.note = "; ".join(filter(None, [item.note, written])) or None
        if item.error is None:
            self.outcome.enhanced += 1
            self.outcome.seconds[item.job.source] = item.seconds
            self.outcome.pixels += item.pixels
            self.outcome.notes += [(item.job.source, item.note)] if item.note else []
        else:
            self.outcome.failures.append((item.job.source, _reason(item, self.enhancer.choice.device)))
            self.outcome.fault = self.outcome.fault or item.fault


def _reason(item: _Begun, device: str) -> str:
    """Why a photo failed, in one line."""
    if isinstance(item.error, ImageError):
        return str(item.error).removeprefix(f"{item.job.source}: ")
    if item.fault:
        return f"unexpected {type(item.error).__name__}: {' '.join(str(item.error).split())}"
    size = f"{item.pixels / 1e6:.1f} megapixels" if item.pixels else "its pixels"
    return f"expected a photo that fits into memory, found too little for {size} ({device})"


def _checked(photo: Photo, job: Job, side_by_side: bool) -> Photo:
    """The photo, if its results can be written at all: reported before the network has run, not after."""
    height, width = photo.rgb.shape[:2]
    check_writable(job.target, height, width)
    if side_by_side:
        check_writable(job.beside("side_by_side"), height, 2 * width)
    return photo


def _note(photo: Photo, job: Job, finish: Finish) -> str | None:
    """What the photo's owner should know beside what its reader says."""
    into, notes = WRITABLE.get(job.target.suffix.lower()), [photo.note]
    if into == "JPEG" and photo.alpha is not None and photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        notes.append("transparent parts became white, JPEG has no transparency")
    if photo.bits > 8 and into in ("JPEG", "WEBP"):
        notes.append(f"16 bits a channel became 8, {into} has no more")
    if finish.denoise != "off" and not finish.denoises(photo.rgb.dtype):
        notes.append("noise kept, at 16 bits only --denoise always removes it")
    return "; ".join(filter(None, notes)) or None


def _out_of_memory(error: Exception) -> bool:
    """PyTorch says so by a type of its own on GPUs, and by a text on the CPU."""
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in texts)
