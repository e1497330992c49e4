"""The quick-start set, made out of the colour photos inside scikit-image's own wheel. No network.

Training and held-out photos come from different pictures. Backlit photos are simulated
(`data.backlight`), so each has its ground truth.
"""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor

from common.files import read_file, write_text, writing
from common.parse import parse_json
from data.backlight import BacklightRanges, simulate_backlight
from data.images.photo import to_integers

TRAIN_PICTURES = ("astronaut.png", "coffee.png", "rocket.jpg")
HELD_OUT_PICTURES = ("chelsea.png", "motorcycle_left.png")
RANGES = BacklightRanges(foreground_stops=(2.0, 3.5), foreground_share=(0.7, 1.0))
CROP = 288  # pixels, the side of every quick-start photo
TRAIN_PHOTOS, HELD_OUT_PHOTOS = 24, 6


def sample_picture(name: str) -> np.ndarray:
    """One of scikit-image's pictures, (H,W,3) uint8 RGB."""
    return np.asarray(Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB"))


def make_quickstart_set(folder: str | Path, seed: int = 0) -> Path:
    """Write `train/{backlit,welllit}` (unpaired crops) and `held_out/{backlit,ground_truth}` (pairs) as PNG.

    Does nothing where the folder already holds the set of this seed and version. Returns the folder.
    """
    folder = Path(folder)
    recipe = f"v1 {seed} {TRAIN_PICTURES} {HELD_OUT_PICTURES} {CROP} {TRAIN_PHOTOS} {HELD_OUT_PHOTOS} {RANGES}"
    stamp = folder / "quickstart.json"
    wanted = {
        "recipe": hashlib.sha256(recipe.encode()).hexdigest()[:16],
        "source": "scikit-image's sample photos, backlight simulated",
    }
    with contextlib.suppress(OSError, ValueError):  # not there, or damaged: rebuilt
        if parse_json(read_file(stamp)) == wanted:
            return folder
    generator = torch.Generator().manual_seed(seed)
    for number in range(TRAIN_PHOTOS):
        name = TRAIN_PICTURES[number % len(TRAIN_PICTURES)]
        _save(_crop(name, generator), folder / f"train/welllit/{Path(name).stem}_{number:02}.png")
        backlit = simulate_backlight(_crop(name, generator), generator, RANGES)
        _save(backlit.photo, folder / f"train/backlit/{Path(name).stem}_{number:02}.png")
    for number in range(HELD_OUT_PHOTOS):
        name = HELD_OUT_PICTURES[number % len(HELD_OUT_PICTURES)]
        truth = _crop(name, generator)
        _save(truth, folder / f"held_out/ground_truth/{Path(name).stem}_{number}.png")
        _save(
            simulate_backlight(truth, generator, RANGES).photo,
            folder / f"held_out/backlit/{Path(name).stem}_{number}.png",
        )
    write_text(stamp, json.dumps(wanted))
    return folder


def _crop(name: str, generator: torch.Generator) -> Tensor:
    picture = torch.from_numpy(sample_picture(name).copy()).permute(2, 0, 1).float() / 255
    height, width = picture.shape[-2:]
    side = min(CROP, height, width)
    top = int(torch.randint(0, height - side + 1, (), generator=generator))
    left = int(torch.randint(0, width - side + 1, (), generator=generator))
    return picture[:, top : top + side, left : left + side]


def _save(photo: Tensor, path: Path) -> None:
    pixels = to_integers(photo.permute(1, 2, 0).numpy(), np.uint8)
    with writing(path) as temporary:
        Image.fromarray(pixels).save(temporary)
