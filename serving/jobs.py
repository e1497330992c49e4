"""Which file goes where: the plan of a run over folders and files. Touches no file."""

import filecmp
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from common.errors import UserError
from common.files import check_folder, real_path, status_of, version_of
from common.paths import absolute, is_file
from data.images import WRITABLE
from data.outputs import RecordedResults

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}  # of `save.format`


@dataclass(frozen=True)
class Job:
    """One photo and where its result goes: `target` is `output / relative`."""

    source: Path
    target: Path
    relative: Path
    planned: dict[Path, tuple[int, int] | None] = field(default_factory=dict, compare=False)
    """Places of its results, with bytes and time of the file there at the plan; what is at other places is replaced."""

    @property
    def output(self) -> Path:
        """The folder of all results."""
        return self.folder_of(self.target)

    def folder_of(self, place: Path) -> Path:
        """The folder of all results, or beside it, that one of the job's `places` is in."""
        return place.parents[len(self.relative.parts) - 1]

    def folder_beside(self, what: str) -> Path:
        """The folder `OUTPUT_what` beside the output folder."""
        return _sibling(self.output, what)

    def beside(self, what: str) -> Path:
        """The result's place in that folder."""
        return self.folder_beside(what) / self.relative

    def places(self, extras: Sequence[str]) -> list[Path]:
        """Where all that is wanted of the photo goes: its result, and of `extras` what is written beside it."""
        return [self.target, *map(self.beside, extras)]

    def take(self, target: Path, file: Path) -> None:
        """Raises UserError where another program wrote something else to `target` since the plan.

        file: what takes its place next.
        """
        if target in self.planned:
            now = version_of(target)
            if now and now != self.planned[target] and not filecmp.cmp(target, file, shallow=False):
                raise UserError(f"{target}: cannot be written: another program wrote a file of this name meanwhile")
            self.planned[target] = version_of(file)


def plan_outputs(
    inputs: list[str | Path],
    output: str | Path | None,
    fmt: str = "keep",
    *,
    keep: bool = False,
    overwrite: bool = False,
    extras: Sequence[str] = (),
    keys: tuple[str, str] = ("data.input", "data.output"),
) -> list[Job]:
    """Which photo gets which result. Touches no file.

    inputs: folders (searched recursively, sub-folders kept) and files; of several, paths are kept
    relative to the folder that holds them all. Duplicates count once.
    output: folder of the results. None: `FOLDER_enhanced` beside the folder that is, or holds, all the
    inputs, so that this folder stays as it is and results are never taken for photos; where nothing can
    be written there (a mounted card, a home folder), `enhanced` inside it.
    An output folder inside an input folder is not searched.
    fmt: "keep", or a key of `SUFFIXES`. "keep" keeps the suffix of PNG, JPEG, WebP and TIFF files;
    other formats become PNG.

    Photos that would share a result's name get their old suffix into it (a.gif, a.bmp -> a_gif.png, a_bmp.png).
    Paths are absolute. Raises UserError where an input is missing or holds no image, where a result would overwrite
    or sit among the photos, and where results cannot be written.

    A file of a result's name is replaced where it is a result that was written here and not changed since
    (`data.outputs`). keep: all that is there stays (`save.skip_existing`). overwrite: all but the photos themselves is
    replaced; otherwise a file that somebody else wrote is refused, it may be an original.
    extras: which of "side_by_side" and "illumination" are written too. keys: what named inputs and output, for errors.
    """
    given = _given(inputs, output, keys)
    common = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    root = absolute(output) if output is not None else _default_output(common)
    roots = [root, _sibling(root, "side_by_side"), _sibling(root, "illumination")]

    for folder in (root, *(_sibling(root, what) for what in extras)):
        check_folder(folder, keys[1])
    sources = list(dict.fromkeys(source for path in given for source in _photos_of(path, roots, keys[0])))
    originals = {file_id(path) for path in [*given, *sources, *{source.parent for source in sources}]} - {None}
    for folder in roots:
        if file_id(folder) in originals:
            raise UserError(f"{keys[1]}: expected another folder than that of the photos, found {folder}")
    names = unique_names({source: source.relative_to(common) for source in sources}, SUFFIXES.get(fmt))
    jobs = [Job(source, root / names[source], names[source]) for source in sources]
    for job in [] if overwrite else jobs:
        job.planned.update({target: version_of(target) for target in job.places(extras)})
    for job in jobs:
        for target in job.places(("side_by_side", "illumination")):
            if file_id(target) in originals:
                raise UserError(
                    f"{keys[1]}: expected a folder where no photo is overwritten, found {target}, one of the inputs"
                )
    if not (keep or overwrite):
        refuse_strangers(jobs, extras, keys[1])
    return jobs


def _given(inputs: list[str | Path], output: str | Path | None, keys: tuple[str, str]) -> list[Path]:
    """The inputs, each once. Raises UserError where one is missing, or the output is no folder's name."""
    if any(not str(item).strip() for item in inputs):
        raise UserError(f"{keys[0]}: expected a folder or photos, found an empty name")
    given = list(dict.fromkeys(absolute(item) for item in inputs))  # not resolved: names stay as the user sees them
    if not given:
        raise UserError(f"{keys[0]}: expected a folder or photos, found an empty list")
    for path in given:
        try:
            path.stat()
        except OSError as error:
            found = "no permission to read" if isinstance(error, PermissionError) else "nothing there"
            raise UserError(f"{keys[0]}: expected a folder or a photo, found {found}: {path}") from None
    if output is not None and not str(output).strip():
        raise UserError(f"{keys[1]}: expected a folder, found an empty name")
    if output is not None and Path(output).suffix.lower() in WRITABLE and not Path(output).is_dir():
        raise UserError(f"{keys[1]}: expected a folder, found a photo's name: {output}; results keep the photos' names")
    return given


def refuse_strangers(jobs: Sequence[Job], extras: Sequence[str], key: str) -> None:
    """Raises UserError where a file of a result's name was written, or changed, by another program. key: for it."""
    recorded = cache(RecordedResults)
    for job in jobs:
        for target in job.places(extras):
            folder = job.folder_of(target)
            if is_file(target) and not recorded(folder).holds(job.relative):
                if unreadable := recorded(folder).unreadable:
                    raise UserError(f"{key}: expected a readable record of its results, found {unreadable}")
                raise UserError(
                    f"{key}: expected a folder without other files of the results' names, found {target}; "
                    "choose another folder, --skip-existing or --overwrite"
                )


def replaced(jobs: Sequence[Job], extras: Sequence[str]) -> set[Path]:
    """The photos of which a result, or what is written beside it, is there and will be replaced. Asked before a run."""
    return {job.source for job in jobs if any(map(is_file, job.places(extras)))}


def kept_others(jobs: Sequence[Job], extras: Sequence[str], made_of: Mapping[Path, str]) -> int:
    """Of how many photos something is there that was made with other settings or weights, or of another photo.

    made_of: what stands for them now, by `Job.relative`; what was recorded without does not count.
    """
    recorded = cache(RecordedResults)

    def other(job: Job, target: Path) -> bool:
        return is_file(target) and recorded(job.folder_of(target)).made_of(job.relative) not in (
            None,
            "",
            made_of[job.relative],
        )

    return sum(any(other(job, target) for target in job.places(extras)) for job in jobs)


def _photos_of(path: Path, roots: list[Path], key: str) -> list[Path]:
    """The file itself, or the images below a folder without those of result folders in it."""
    from data.listing import list_images

    if not path.is_dir():
        return [path]
    resolve = cache(real_path)
    inside = [
        resolve(root)
        for root in roots
        if resolve(root) != resolve(path) and resolve(root).is_relative_to(resolve(path))
    ]
    photos = [p for p in list_images(path, key) if not any(resolve(p.parent).is_relative_to(root) for root in inside)]
    if not photos:
        raise UserError(f"{key}: expected photos, found only earlier results in {path}")
    return photos


def unique_names(relative: dict[Path, Path], suffix: str | None) -> dict[Path, Path]:
    """Names of results that differ on every file system: also where case or Unicode form do not count."""

    def suffix_of(source: Path) -> str:
        return suffix or (source.suffix if source.suffix.lower() in WRITABLE else ".png")

    def key(path: Path) -> str:
        return unicodedata.normalize("NFC", str(path)).casefold()

    names = {source: path.with_suffix(suffix_of(source)) for source, path in relative.items()}
    counts = Counter(map(key, names.values()))
    taken = {name for name, count in counts.items() if count == 1}
    for source, path in relative.items():
        if counts[key(names[source])] > 1:
            stem = f"{path.stem}_{path.suffix[1:].lower()}"
            name, number = path.with_name(stem + suffix_of(source)), 2
            while key(name) in taken:
                name, number = path.with_name(f"{stem}_{number}{suffix_of(source)}"), number + 1
            taken.add(key(name))
            names[source] = name
    return names


def _default_output(common: Path) -> Path:
    beside = _sibling(common, "enhanced")
    return beside if common.name and (beside.exists() or os.access(common.parent, os.W_OK)) else common / "enhanced"


def _sibling(folder: Path, what: str) -> Path:
    return folder.parent / f"{folder.name}_{what}"


def file_id(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from others, whatever its name; None where there is none (or it is out of reach)."""
    status = status_of(path)
    return (status.st_dev, status.st_ino) if status else None
