"""PSNR and SSIM of pairs that are not trained on, while training goes on."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from data.folders import ResizedPhotos
from data.images import STANDARD, Limits
from data.images.photo import to_integers
from data.listing import list_images, named, unknown_names
from metrics.full_reference import psnr_rgb, ssim_rgb
from metrics.pairing import Pair, pair, read_names
from models.retinex import enhance
from models.unet import IlluminationUNet


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
    return to_integers(photos.permute(0, 2, 3, 1).numpy(), np.uint8)
