"""Enhancement of photos: one array, or files into a folder.

Shapes: H height, W width in pixels. Photos are RGB, float32 in [0, 1], (H,W,3).

PyTorch, and what imports it, is imported where it is first used: a wrong path is told at once, not seconds later.
"""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from data.images import WRITABLE, ImageError, Photo, read_photo, write_photo
from errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

WHOLE_FRAME = 2_000_000  # pixels; larger photos go through the network in strips, which gives the same map
STRIP = 1_000_000  # pixels in the network at once, then: about 1.2 GB in fp32
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}  # of `save.format`


class Enhancer:
    """The trained network on a device. Members: `device`, `precision` ("fp32" or "bf16"), `unet`.

    device "auto" (what Accelerate finds) or "cpu"; precision "auto" (bf16 on a GPU that has it,
    else fp32), "fp32" or "bf16". Raises UserError for weights that cannot be used.
    """

    def __init__(self, checkpoint: str | Path, *, padding_mode: str = "reflect", device: str = "auto", precision: str = "auto") -> None:
        import torch
        from accelerate import PartialState

        from models.checkpoints import load_unet

        # PartialState, not Accelerator, whose precision is one for the whole process
        self.device = torch.device("cpu") if device == "cpu" else PartialState().device
        if precision == "auto":
            has_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bf16" if has_bf16 else "fp32"
        self.precision = precision
        # bf16 weights, not autocast: on CPUs that casts to fp32 and back around every padding
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.unet = load_unet(checkpoint, padding_mode, self.device).to(dtype=dtype, memory_format=torch.channels_last)

    def illumination(self, rgb: np.ndarray) -> np.ndarray:
        """Photo (H,W,3) -> illumination map M (H,W) float32, >= 0; any size from 1x1. Raises ValueError on other shapes."""
        import torch

        with torch.inference_mode():
            return self._map(self._images(rgb))[0, 0].cpu().numpy()

    def enhance(self, rgb: np.ndarray, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Photo (H,W,3) -> result (H,W,3) in [0, 1] and illumination map M (H,W), both float32.

        `strength` in [0, 1]: the photo is divided by M ** strength, so 0 returns the photo itself.
        Raises ValueError on other shapes.
        """
        import torch

        from models.retinex import enhance

        with torch.inference_mode():
            images = self._images(rgb)
            illumination = self._map(images)
            result = enhance(images, illumination**strength)
            return np.ascontiguousarray(result[0].permute(1, 2, 0).cpu().numpy()), illumination[0, 0].cpu().numpy()

    def _images(self, rgb: np.ndarray) -> "Tensor":
        import torch

        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.float32:
            raise ValueError(f"rgb: expected (H, W, 3) float32, found {rgb.shape} {rgb.dtype}")
        return torch.from_numpy(np.require(rgb, requirements=["C", "W"])).permute(2, 0, 1)[None].to(self.device)

    def _map(self, images: "Tensor") -> "Tensor":  # (1,3,H,W) -> (1,1,H,W)
        from serving.strips import illumination_in_strips

        images = images.to(self.unet.cond1.weight.dtype)
        if images.shape[-2] * images.shape[-1] <= WHOLE_FRAME:
            return self.unet(images).float()
        return illumination_in_strips(self.unet, images, STRIP).float()


# ---------------------------------------------------------------------------------------------
# Which file goes where
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One photo and where its result goes: `target` is `output / relative`."""

    source: Path
    target: Path
    relative: Path

    @property
    def output(self) -> Path:
        """The folder of all results."""
        return self.target.parents[len(self.relative.parts) - 1]

    def beside(self, what: str) -> Path:
        """The same place in the folder `OUTPUT_what` beside the output folder."""
        return _sibling(self.output, what) / self.relative


def plan_outputs(inputs: list[str | Path], output: str | Path | None, fmt: str = "keep") -> list[Job]:
    """Which photo gets which result. Touches no file.

    inputs: folders (searched recursively, sub-folders kept) and files; of several, paths are kept
    relative to the folder that holds them all. Duplicates count once.
    output: folder of the results. None: for one folder `FOLDER_enhanced` beside it, so that the
    folder stays as it is; otherwise `enhanced` inside the folder that holds all the inputs.
    An output folder inside an input folder is not searched.
    fmt: "keep", or a key of `SUFFIXES`. "keep" keeps the suffix of PNG, JPEG, WebP and TIFF files;
    other formats become PNG.

    Photos that would share a result's name get their old suffix into it (a.gif, a.bmp -> a_gif.png, a_bmp.png).
    Paths are absolute. Raises UserError where an input is missing or holds no image, and where a
    result would overwrite or sit among the photos.
    """
    if any(not str(item).strip() for item in inputs):
        raise UserError("data.input: expected a folder or photos, found an empty name")
    given = list(dict.fromkeys(_absolute(item) for item in inputs))
    if not given:
        raise UserError("data.input: expected a folder or photos, found an empty list")
    for path in given:
        if _identity(path) is None:
            raise UserError(f"data.input: expected a folder or a photo, found nothing there: {path}")
    common = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    if output is not None:
        root = _absolute(output)
    elif len(given) == 1 and given[0].is_dir():
        root = _sibling(given[0], "enhanced")
    else:
        root = common / "enhanced"
    roots = [root, _sibling(root, "side_by_side"), _sibling(root, "illumination")]

    sources = list(dict.fromkeys(source for path in given for source in _photos_of(path, roots)))
    originals = {_identity(path) for path in [*given, *sources, *{source.parent for source in sources}]} - {None}
    for folder in roots:
        if _identity(folder) in originals:
            raise UserError(f"data.output: expected another folder than that of the photos, found {folder}")
    names = _unique_names({source: source.relative_to(common) for source in sources}, SUFFIXES.get(fmt))
    jobs = [Job(source, root / names[source], names[source]) for source in sources]
    for job in jobs:
        for target in (job.target, job.beside("side_by_side"), job.beside("illumination")):
            if _identity(target) in originals:
                raise UserError(f"data.output: expected a folder where no photo is overwritten, found {target}, which is one of the inputs")
    return jobs


def _photos_of(path: Path, roots: list[Path]) -> list[Path]:
    """The file itself, or the images below a folder without those of result folders in it."""
    from data.listing import list_images

    if not path.is_dir():
        return [path]
    resolve = cache(Path.resolve)
    inside = [resolve(root) for root in roots if resolve(root) != resolve(path) and resolve(root).is_relative_to(resolve(path))]
    photos = [p for p in list_images(path, "data.input") if not any(resolve(p.parent).is_relative_to(root) for root in inside)]
    if not photos:
        raise UserError(f"data.input: expected photos, found only earlier results in {path}")
    return photos


def _unique_names(relative: dict[Path, Path], suffix: str | None) -> dict[Path, Path]:
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


def _absolute(path: str | Path) -> Path:
    # not resolve(): names stay as the user sees them, also where they are links
    return Path(os.path.abspath(path))  # noqa: PTH100


def _sibling(folder: Path, what: str) -> Path:
    return folder.parent / f"{folder.name}_{what}"


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one file or folder from another, whatever its name; None where there is none (or it is out of reach)."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of a list of jobs."""

    enhanced: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)
    """Photo and reason (one line)."""
    notes: list[tuple[Path, str]] = field(default_factory=list)
    """Photo and what its owner should know, such as "animated: first of 12 frames"."""


def enhance_files(
    jobs: list[Job],
    enhancer: Enhancer,
    *,
    strength: float = 1.0,
    quality: int = 95,
    side_by_side: bool = False,
    illumination: bool = False,
    skip_existing: bool = False,
) -> Outcome:
    """Enhance photo after photo; one that cannot be read, written or held in memory does not stop the others.

    `side_by_side` also writes photo and result as one picture, `illumination` the map as a grey one
    (white: 1 or more, no change), into folders beside the output. `skip_existing` leaves out
    photos of which all that is wanted is there. Progress goes to stderr, if that is a terminal.
    """
    extras = [what for what, wanted in (("side_by_side", side_by_side), ("illumination", illumination)) if wanted]
    outcome = Outcome()
    todo = jobs
    if skip_existing:
        todo = [job for job in jobs if None in map(_identity, [job.target, *map(job.beside, extras)])]
        outcome.skipped = len(jobs) - len(todo)
    for job in tqdm(todo, unit="photo", disable=None):
        photo = None
        try:
            photo = read_photo(job.source)
            _enhance_one(job, photo, enhancer, strength, quality, extras)
        except ImageError as error:
            outcome.failures.append((job.source, str(error).removeprefix(f"{job.source}: ")))
            continue
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            size = f"{photo.rgb.shape[0] * photo.rgb.shape[1] / 1e6:.1f} megapixels" if photo else "its pixels"
            outcome.failures.append(
                (job.source, f"expected a photo that fits into memory, found too little for {size} ({enhancer.device})")
            )
            continue
        outcome.enhanced += 1
        if photo.note:
            outcome.notes.append((job.source, photo.note))
    return outcome


def _enhance_one(job: Job, photo: Photo, enhancer: Enhancer, strength: float, quality: int, extras: list[str]) -> None:
    result, illumination = enhancer.enhance(photo.rgb, strength)
    write_photo(job.target, replace(photo, rgb=result), quality)
    if "side_by_side" in extras:
        alpha = None if photo.alpha is None else np.concatenate([photo.alpha] * 2, axis=1)
        pair = replace(photo, rgb=np.concatenate([photo.rgb, result], axis=1), alpha=alpha)
        write_photo(job.beside("side_by_side"), pair, quality)
    if "illumination" in extras:
        grey = np.repeat(illumination[..., None], 3, axis=2)
        write_photo(job.beside("illumination"), Photo(grey, bits=photo.bits, grey=True), quality)


def _out_of_memory(error: Exception) -> bool:
    """PyTorch says so by a type of its own on GPUs, and by a text on the CPU."""
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in texts)
