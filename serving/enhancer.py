"""Enhancement of one photo as an array, and the plan of which file goes where.

Shapes: H height, W width in pixels. Photos are RGB, (H,W,3).

PyTorch, and what imports it, is imported where it is first used: a wrong path is told at once, not seconds later.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError
from data.images import WRITABLE

if TYPE_CHECKING:
    from torch import Tensor

WHOLE_FRAME = 500_000  # pixels, about 1.6 GB; larger photos go through the network in tiles, which gives the same map
TILE = 448  # pixels, then: the longest side of a tile without its halo. 384 to 512 are within a tenth in time, not in memory
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}  # of `save.format`


class Enhancer:
    """The trained network, ready to run. Members: `unet` (float32, on the CPU) and `choice`, what runs it and why.

    device "auto" (what Accelerate finds) or "cpu"; precision "auto", "fp32" or "bf16"; backend "auto",
    "torch", "torch-compile" or "openvino": see `serving.backends.choose`. tile_size: longest side of a
    tile in pixels; None: photos of more than `WHOLE_FRAME` pixels in tiles of `TILE`, others whole.
    Results do not depend on it. Raises UserError for weights that cannot be used and a backend that is not there.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        padding_mode: str = "reflect",
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        tile_size: int | None = None,
    ) -> None:
        # huge pages for large tensors, a fifth less time on the CPU; PyTorch reads it once, at its first allocation
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        import torch

        from models.checkpoints import load_unet
        from serving.backends import build, choose

        if device != "cpu":
            from accelerate import PartialState  # not Accelerator, whose precision is one for the whole process

            found = PartialState().device
        else:
            found = torch.device("cpu")
        self.unet = load_unet(checkpoint, padding_mode)
        self.choice = choose(backend, precision, found)
        self._network = build(self.choice, self.unet)
        self._tile_size = tile_size

    def illumination(self, rgb: np.ndarray) -> np.ndarray:
        """Photo (H,W,3) of any size, as for `enhance` -> illumination map M (H,W) float32, >= 0. Raises ValueError as `enhance`."""
        import torch

        illumination = np.empty(rgb.shape[:2], np.float32)
        with torch.inference_mode():
            for rows, columns, _, tile in self._tiles(rgb):
                illumination[rows, columns] = tile[0, 0].cpu().numpy()
        return illumination

    def enhance(
        self, rgb: np.ndarray, strength: float = 1.0, *, keep_map: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Photo (H,W,3), float32 in [0, 1] or uint8 or uint16 -> result of the same shape and type, and illumination map M.

        The map is (H,W) float32, or None without `keep_map`. `strength` in [0, 1]: the photo is divided
        by M ** strength, so 0 returns the photo itself. Beside photo, result and map only a tile is in
        memory. Raises ValueError on other shapes and types.
        """
        import torch

        from models.retinex import enhance

        result = np.empty(rgb.shape, rgb.dtype)
        illumination = np.empty(rgb.shape[:2], np.float32) if keep_map else None
        with torch.inference_mode():
            for rows, columns, images, tile in self._tiles(rgb):
                values = enhance(images.to(tile.device), tile**strength)[0].permute(1, 2, 0).cpu().numpy()
                result[rows, columns] = values if rgb.dtype == np.float32 else np.rint(values * _top(rgb))
                if illumination is not None:
                    illumination[rows, columns] = tile[0, 0].cpu().numpy()
        return result, illumination

    def _tiles(self, rgb: np.ndarray) -> Iterator[tuple[slice, slice, "Tensor", "Tensor"]]:
        import torch

        from serving.tiles import illumination_tiles

        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype not in (np.float32, np.uint8, np.uint16):
            raise ValueError(f"rgb: expected (H, W, 3) float32, uint8 or uint16, found {rgb.shape} {rgb.dtype}")
        height, width = rgb.shape[:2]
        tile_size = self._tile_size or (TILE if height * width > WHOLE_FRAME else max(height, width))

        def read(rows: slice, columns: slice) -> "Tensor":
            return torch.from_numpy(rgb[rows, columns].astype(np.float32) / _top(rgb)).permute(2, 0, 1)[None]

        return illumination_tiles(self._network, read, height, width, tile_size)


def _top(rgb: np.ndarray) -> np.float32:
    """The value that means 1."""
    return np.float32(1 if rgb.dtype == np.float32 else np.iinfo(rgb.dtype).max)


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


def plan_outputs(
    inputs: list[str | Path], output: str | Path | None, fmt: str = "keep", *, keep: bool = False
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
    Paths are absolute. Raises UserError where an input is missing or holds no image, and where a
    result would overwrite or sit among the photos.

    keep: results that are there are not written again (`save.skip_existing`). Otherwise an output folder
    that has photos below it is refused where a file has a result's name: it may be somebody's original.
    """
    if any(not str(item).strip() for item in inputs):
        raise UserError("data.input: expected a folder or photos, found an empty name")
    given = list(dict.fromkeys(_absolute(item) for item in inputs))
    if not given:
        raise UserError("data.input: expected a folder or photos, found an empty list")
    for path in given:
        try:
            path.stat()
        except OSError as error:
            found = "no permission to read" if isinstance(error, PermissionError) else "nothing there"
            raise UserError(f"data.input: expected a folder or a photo, found {found}: {path}") from None
    if output is not None and not str(output).strip():
        raise UserError("data.output: expected a folder, found an empty name")
    common = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    root = _absolute(output) if output is not None else _default_output(common)
    roots = [root, _sibling(root, "side_by_side"), _sibling(root, "illumination")]

    sources = list(dict.fromkeys(source for path in given for source in _photos_of(path, roots)))
    originals = {identity(path) for path in [*given, *sources, *{source.parent for source in sources}]} - {None}
    for folder in roots:
        if identity(folder) in originals:
            raise UserError(f"data.output: expected another folder than that of the photos, found {folder}")
    names = _unique_names({source: source.relative_to(common) for source in sources}, SUFFIXES.get(fmt))
    jobs = [Job(source, root / names[source], names[source]) for source in sources]
    above = common.resolve().is_relative_to(root.resolve())
    for job in jobs:
        for target in (job.target, job.beside("side_by_side"), job.beside("illumination")):
            if identity(target) in originals:
                raise UserError(
                    f"data.output: expected a folder where no photo is overwritten, found {target}, which is one of the inputs"
                )
        if above and not keep and identity(job.target):
            hint = "choose another folder, or --skip-existing"
            raise UserError(f"data.output: expected a folder where no photo is overwritten, found {job.target}; {hint}")
    return jobs


def _photos_of(path: Path, roots: list[Path]) -> list[Path]:
    """The file itself, or the images below a folder without those of result folders in it."""
    from data.listing import list_images

    if not path.is_dir():
        return [path]
    resolve = cache(Path.resolve)
    inside = [
        resolve(root)
        for root in roots
        if resolve(root) != resolve(path) and resolve(root).is_relative_to(resolve(path))
    ]
    photos = [
        p for p in list_images(path, "data.input") if not any(resolve(p.parent).is_relative_to(root) for root in inside)
    ]
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


def _default_output(common: Path) -> Path:
    beside = _sibling(common, "enhanced")
    return beside if common.name and (beside.exists() or os.access(common.parent, os.W_OK)) else common / "enhanced"


def _sibling(folder: Path, what: str) -> Path:
    return folder.parent / f"{folder.name}_{what}"


def identity(path: Path) -> tuple[int, int] | None:
    """What tells one file or folder from another, whatever its name; None where there is none (or it is out of reach)."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
