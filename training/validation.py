"""Which photos are trained on and which are held back; PSNR and SSIM of validation pairs while training goes on."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.files import real_path
from common.paths import find_file
from configs.schema import TrainData
from data.folders import ResizedPhotos
from data.images import STANDARD, Limits
from data.listing import list_images, named, unknown_names
from metrics.full_reference import psnr_rgb, ssim_rgb
from metrics.pairing import Pair, pair, read_names
from models.retinex import enhance
from models.unet import IlluminationUNet


def photo_limits(data: TrainData) -> Limits:
    """Which photos a config has read at all."""
    return Limits(data.max_megapixels, data.incomplete)


def training_photos(data: TrainData) -> tuple[list[Path], list[Path]]:
    """Backlit and well-lit photos of a config, without those that `leave_out` names.

    Raises UserError for folders and lists that cannot be used;
    also for a list that names no photo at all: it was meant to.
    """
    folders, photos = _folders(data)
    held_back: set[str] = set()
    for file, names in _left_out(data):
        if not any(named(photo, names) for photo in photos):
            raise UserError(
                f"data.leave_out: expected names of photos in the two folders, found none of the {len(names)} names "
                f"in {file} there"
            )
        held_back |= names
    backlit, well_lit = (list_images(folder, key, held_back) for key, folder in folders.items())
    places = {real_path(path) for path in backlit}
    if both := [path for path in well_lit if real_path(path) in places]:
        raise UserError(
            f"{', '.join(folders)}: expected backlit photos in one and well-lit ones in the other, "
            f"found {len(both)} in both, such as {both[0]}"
        )
    return backlit, well_lit


def leave_out_notes(data: TrainData) -> list[str]:
    """What is amiss with the lists in `leave_out`: each name that no photo has."""
    _, photos = _folders(data)
    return [
        note
        for file, names in _left_out(data)
        for note in unknown_names(names, photos, f"data.leave_out: {file}: expected names of photos in the two folders")
    ]


def _folders(data: TrainData) -> tuple[dict[str, str], list[Path]]:
    """Key -> folder of the two, and the photos of both by their paths in them."""
    folders = {f"data.{key}": getattr(data, key) for key in ("backlit_images_path", "welllit_images_path")}
    return folders, [path.relative_to(folder) for key, folder in folders.items() for path in list_images(folder, key)]


def _left_out(data: TrainData) -> Iterator[tuple[str, set[str]]]:
    for file in data.leave_out:
        yield file, read_names(find_file(file, "data.leave_out"), "data.leave_out")


def validation_pairs(backlit_dir: str, truth_dir: str, list_file: Path | None) -> tuple[list[Pair], list[str]]:
    """Backlit photos that have a ground truth of the same name, of those named in `list_file` where given;
    and what is amiss.

    Raises UserError where there is no such pair.
    """
    list_images(backlit_dir, "data.val_backlit_path")
    list_images(truth_dir, "data.val_gt_path")
    pairing = pair(backlit_dir, truth_dir)
    pairs, lonely = pairing.pairs, pairing.unmatched_enhanced + [name for name, _ in pairing.problems]
    notes = (
        [f"validation: {len(lonely)} photos have not one ground truth of their name, such as {lonely[0]}"]
        if lonely
        else []
    )
    if list_file is not None:
        wanted = read_names(list_file, "data.val_list")
        pairs = [p for p in pairs if named(Path(p.name), wanted)]
        notes = unknown_names(
            wanted, (Path(p.name) for p in pairs), "data.val_list: expected names of validation pairs"
        )
    if not pairs:
        among = " among those in data.val_list" if list_file else ""
        raise UserError(f"data.val_backlit_path, data.val_gt_path: no photo has a ground truth of the same name{among}")
    return pairs, notes


class Validation:
    """Pairs at S x S, measured with the inference padding ("reflect") in fp32.

    Held on disk, and by the main process only.

    `skipped`: why pairs were left out. Raises UserError where none can be read.
    """

    def __init__(self, pairs: list[Pair], size: int, cache_dir: str, limits: Limits = STANDARD) -> None:
        sides = [[p.enhanced for p in pairs], [p.truth for p in pairs]]
        read = [ResizedPhotos(paths, size, cache_dir, limits=limits) for paths in sides]
        self.skipped = [reason for photos in read for reason in photos.skipped]
        if self.skipped:
            known = [set(photos.paths) for photos in read]
            pairs = [p for p in pairs if p.enhanced in known[0] and p.truth in known[1]]
            if not pairs:
                raise UserError(f"validation: no pair can be read, the first because: {self.skipped[0]}")
            sides = [[p.enhanced for p in pairs], [p.truth for p in pairs]]
            read = [ResizedPhotos(paths, size, cache_dir, limits=limits) for paths in sides]
        self.backlit, self.truth = read
        self.untouched = self._measure(self.backlit.pixels)[:2]

    def __len__(self) -> int:
        return len(self.backlit)

    def run(self, weights: dict[str, Tensor], device: torch.device) -> dict[str, float]:
        """val_psnr (dB) and val_ssim of enhanced photos, the same of the untouched input,
        and the mean brightness of results.
        """
        enhanced = enhance_photos(weights, self.backlit, device)
        psnr, ssim, brightness = self._measure(to_uint8(photo)[0] for photo in enhanced)
        return {
            "val_psnr": psnr,
            "val_ssim": ssim,
            "val_psnr_input": self.untouched[0],
            "val_ssim_input": self.untouched[1],
            "val_brightness": brightness,
        }

    def _measure(self, photos: Iterable[np.ndarray]) -> tuple[float, float, float]:
        """Mean PSNR, SSIM and brightness of photos (S,S,3) uint8."""
        values = [(psnr_rgb(a, b), ssim_rgb(a, b), a.mean()) for a, b in zip(photos, self.truth.pixels, strict=True)]
        psnr, ssim, brightness = (float(np.mean(column)) for column in zip(*values, strict=True))
        return psnr, ssim, brightness / 255


def enhance_photos(weights: dict[str, Tensor], photos: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Photos (3,S,S) in [0, 1] -> results (1,3,S,S) on the CPU, one by one, with the padding of inference."""
    unet = IlluminationUNet("reflect")
    unet.load_state_dict(weights)
    unet.eval().to(device, memory_format=torch.channels_last)
    for photo in photos:
        with torch.inference_mode():  # not around the yield: it would hold for whoever takes the result
            batch = photo[None].to(device, memory_format=torch.channels_last)
            result = enhance(batch, unet(batch)).cpu()
        yield result


def to_uint8(photos: Tensor) -> np.ndarray:
    """(N,3,H,W) in [0, 1] -> (N,H,W,3) uint8."""
    return (photos * 255).round().byte().permute(0, 2, 3, 1).numpy()
