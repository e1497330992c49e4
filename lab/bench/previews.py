"""Maps at reduced size (`model.map_scale`): time, and how far the results are from those of the full map.

python -m lab.bench --cases previews: all photos of `data/free` beside this repository, or those of docs/photos.
"""

import statistics
from pathlib import Path

import numpy as np

from common.paths import REPO_ROOT
from configs.schema import InferenceModel
from data.images import read_rgb8
from lab.bench.clock import seconds_of, summary, synthetic

CASES = ("previews",)
SCALES = (1, 2, 4)
TIMED = (1536, 2048)  # pixels of the photo that is timed
FOLDERS = (REPO_ROOT.parent / "shared" / "data" / "free", REPO_ROOT / "docs" / "photos")


def measure(case: str, repeats: int) -> dict:
    """One row a scale: seconds for a synthetic photo of 3 megapixels, PSNR to scale 1 on real photos in dB."""
    from serving import Enhancer

    weights = REPO_ROOT / InferenceModel().checkpoint
    enhancers = {scale: Enhancer(weights, device="cpu", map_scale=scale) for scale in SCALES}
    photo = synthetic(*TIMED)
    seconds: dict[int, list[float]] = {scale: [] for scale in SCALES}
    for number in range(repeats + 1):
        for scale, enhancer in enhancers.items():
            spent = seconds_of(lambda enhancer=enhancer: enhancer(photo))
            if number:  # the first warms up
                seconds[scale].append(spent)
    paths = _photos()
    psnr: dict[int, list[float]] = {scale: [] for scale in SCALES[1:]}
    for path in paths:
        rgb = read_rgb8(path)
        full = enhancers[1](rgb).astype(np.float32)
        for scale, values in psnr.items():
            values.append(20 * np.log10(255) - 10 * np.log10(np.mean((enhancers[scale](rgb) - full) ** 2)))
    rows = {f"{scale}": summary(seconds[scale]) for scale in SCALES}
    for scale, values in psnr.items():
        row = rows[f"{scale}"]
        row["ratio"] = rows["1"]["median"] / row["median"]
        row |= {"psnr": statistics.median(map(float, values)), "lowest_psnr": float(min(values))}
    megapixels = TIMED[0] * TIMED[1] / 1e6
    return {"megapixels": megapixels, "photos": len(paths), "choice": str(enhancers[1].choice), "rows": rows}


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    more = f", {row['ratio']:.1f} times as fast, {row['psnr']:.1f} dB" if "psnr" in row else ""
    return f"scale {name} {row['median']:8.2f} s ({row['lowest']:.2f} to {row['highest']:.2f}){more}"


def _photos() -> list[Path]:
    return next(sorted(folder.glob("*.jpg")) for folder in FOLDERS if folder.is_dir())
