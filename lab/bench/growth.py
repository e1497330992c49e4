"""How time and memory grow: with megapixels, with photos in a folder, with words and photos of the residual vector.

megapixels, photos: whole runs of inference.py. words (CLIP's tokens), embedded: mini-clip, in processes of their own,
without caches.
The lines through the points are the table's (table.py).
"""

import json
import math
import tempfile
from pathlib import Path

from common.paths import REPO_ROOT
from data.images import Photo, write_photo
from lab.bench.clock import summary, synthetic, timed

POINTS = {
    "megapixels": (0.25, 1, 4, 12, 24, 200),
    "photos": (1, 50, 500, 5000),
    "words": (1000, 8000, 49408),
    "embedded": (50, 200, 800),
}
CASES = tuple(POINTS)
SMALL = (48, 64)  # height and width of the photos of "photos" and "embedded"
LONG = 20  # seconds; what takes longer is run once
ENCODER = {"model": "mini-clip", "pretrained": "pretrained_models/mini-clip.safetensors"}


def measure(case: str, repeats: int) -> dict:
    """One row for each point of the case, named by its number."""
    rows = {}
    for number in POINTS[case]:
        with tempfile.TemporaryDirectory() as folder:
            arguments = _prepared(case, number, Path(folder))
            if not rows:
                timed(arguments)  # whose compiled network the others find in the cache
            runs = [timed(arguments)]
            while len(runs) < repeats and runs[0]["seconds"] < LONG:
                runs.append(timed(arguments))
        spent = [run["seconds"] for run in runs]
        rows[f"{number:g}"] = {**summary(spent), "peak_mb": max(run["peak_mb"] for run in runs)}
    return {"rows": rows}


def shown(name: str, row: dict) -> str:
    """One row for the console."""
    return f"{name:>8} {row['median']:8.2f} s ({row['lowest']:.2f} to {row['highest']:.2f}), {row['peak_mb']:6.0f} MB"


def _prepared(case: str, number: float, folder: Path) -> list[str]:
    """The script to run for one point, and its inputs in the folder."""
    if case in ("words", "embedded"):
        if case == "embedded":
            _write_small(folder / "photos", int(number))
        return ["-m", "lab.bench", "--growth-worker", case, str(int(number)), str(folder)]
    if case == "photos":
        _write_small(folder / "photos", int(number))
    else:
        height = round(math.sqrt(number * 1e6 * 2 / 3))
        write_photo(folder / "photos" / "0.jpg", Photo(synthetic(height, round(number * 1e6 / height))))
    run = [str(REPO_ROOT / "inference.py"), str(folder / "photos"), "--output", str(folder / "out")]
    return [*run, "--overwrite", "--set=model.device=cpu"]


def _write_small(folder: Path, count: int) -> None:
    for number in range(count):
        write_photo(folder / f"{number}.png", Photo(synthetic(*SMALL, seed=number)))


def work(case: str, number: str, folder: str) -> None:
    """A process of its own: embed so many words, or the photos in the folder."""
    from configs.load import load_config
    from configs.schema import TrainConfig
    from models.vocabulary import clip_tokens
    from training.embeddings import embed_photos, load_encoder

    config = load_config(TrainConfig, "rave.yaml", [f"clip.guidance={json.dumps(ENCODER)}"])
    encoder = load_encoder(config.clip.guidance, config.clip, "cpu")
    if case == "words":
        encoder.embed_texts(clip_tokens()[0][: int(number)])
    else:
        paths = sorted((Path(folder) / "photos").iterdir())
        with tempfile.TemporaryDirectory() as cache:
            embed_photos(paths, encoder, cache, 32, "photos")
