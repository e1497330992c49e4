"""Gather photos that anyone may use for anything, for weights that a company may use.

python -m lab.free_photos --out datasets/free [--crops 12] [--size 384] [--seed 0]

Makers and licences: lab/free_photos.csv. The photos lie in Debian's wallpaper packages (fetched by `apt-get download`,
not installed) and in scikit-image. Each gives crops of different extents to OUT/NAME_I.png.
"""

import csv
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.paths import REPO_ROOT
from data.images import Photo, read_rgb8, write_photo

SOURCES = REPO_ROOT / "lab" / "free_photos.csv"


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder of the crops")
    parser.add_argument("--crops", type=int, default=12, help="of each photo (default: %(default)s)")
    parser.add_argument("--size", type=int, default=384, help="pixels of a crop's shorter side (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng, out = np.random.default_rng(args.seed), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        found = sources()
        folders = {package: fetched(package, Path(scratch)) for package in sorted({row["package"] for row in found})}
        for row in found:
            photo = Image.fromarray(read_rgb8(folders[row["package"]] / row["path"]))
            for index, crop in enumerate(crops(photo, args.crops, args.size, rng)):
                write_photo(out / f"{row['name']}_{index}.png", Photo(np.asarray(crop)))
    say(f"{args.crops} crops of each of {len(found)} photos in {out}")
    return EXIT_OK


def sources() -> list[dict[str, str]]:
    """Rows of name, maker, licence, package and path."""
    with SOURCES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fetched(package: str, scratch: Path) -> Path:
    """The folder that the paths of one package start from."""
    if package == "scikit-image":
        import skimage.data

        return Path(skimage.data.__file__).parent
    target = scratch / package
    try:
        subprocess.run(["apt-get", "download", package], cwd=scratch, check=True, capture_output=True)
        archive = next(scratch.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "--extract", archive, target], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError, StopIteration) as e:
        raise UserError(f"{package}: expected to fetch it as Debian does, by apt-get download; found {e}") from e
    return target


def crops(photo: Image.Image, count: int, size: int, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Parts of a photo with a side of 0.4 to 1 of its own, each brought to `size` at its shorter side."""
    width, height = photo.size
    for _ in range(count):
        share = rng.uniform(0.4, 1.0)
        w, h = round(width * share), round(height * share)
        left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        scale = size / min(w, h)
        box = (int(left), int(top), int(left) + w, int(top) + h)
        yield photo.resize((round(w * scale), round(h * scale)), Image.Resampling.LANCZOS, box, reducing_gap=3)


if __name__ == "__main__":
    run(main)
