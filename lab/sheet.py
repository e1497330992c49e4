"""Contact sheets to look at critically: each photo beside its result, with what figures say of it.

python -m lab.sheet PHOTO [...] --out FOLDER [--weights FILE]

PHOTO: files; a list of names (.txt, as those of configs/splits) is followed by its folder: LIST.txt=FOLDER. Six photos
a page, the photo on the left. Below each: its mean, that of the result, the mean change, and newly clipped pixels.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.paths import is_file
from data.images import read_rgb8
from metrics.harm import change, newly_clipped
from metrics.pairing import read_names
from models.shipped import find_weights
from serving.enhancer import Enhancer

SIDE, LINE = 460, 18  # pixels: the longer side of a photo on a page, height of the line below
PAGE = 6  # photos


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--out", required=True, metavar="FOLDER")
    parser.add_argument("--weights", metavar="FILE", help="default: the shipped ones")
    args = parser.parse_args(argv)
    photos, out = named_files(args.photos), Path(args.out)
    enhancer = Enhancer(args.weights and find_weights(args.weights, "--weights"))
    rows = [_row(path, enhancer) for path in photos]
    out.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(rows), PAGE):
        page = out / f"sheet_{first // PAGE + 1}.png"
        _stacked(rows[first : first + PAGE]).save(page)
        say(f"{page}")
    return EXIT_OK


def named_files(photos: list[str]) -> list[Path]:
    """The files, with those of lists in place of "LIST.txt=FOLDER". Raises UserError for what is not there."""
    found: list[Path] = []
    for photo in photos:
        listed, _, folder = photo.rpartition(".txt=")
        if listed:
            found += [Path(folder) / name for name in sorted(read_names(f"{listed}.txt", "PHOTO"))]
        else:
            found.append(Path(photo))
    for path in found:
        if not is_file(path):
            raise UserError(f"PHOTO: expected a photo, or a list with its folder (LIST.txt=FOLDER), found {path}")
    if not found:
        raise UserError(f"PHOTO: expected names of photos, found none in {' '.join(photos)}")
    return found


def _row(path: Path, enhancer: Enhancer) -> Image.Image:
    photo = read_rgb8(path)
    result = enhancer.enhance(photo)[0]
    reduced = [Image.fromarray(pixels) for pixels in (photo, result)]
    for picture in reduced:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    row = Image.new("RGB", (2 * SIDE, reduced[0].height + LINE), "white")
    for number, picture in enumerate(reduced):
        row.paste(picture, (number * SIDE, 0))
    text = f"{path.name}   mean {photo.mean() / 255:.2f} to {result.mean() / 255:.2f}   "
    text += f"changed by {change(photo, result):.3f}   newly clipped {100 * newly_clipped(photo, result):.1f} %"
    ImageDraw.Draw(row).text((4, reduced[0].height + 3), text, fill="black")
    return row


def _stacked(rows: list[Image.Image]) -> Image.Image:
    """Two columns of rows."""
    halves = [rows[::2], rows[1::2]]
    page = Image.new("RGB", (4 * SIDE, max(sum(row.height for row in half) for half in halves)), "white")
    for column, half in enumerate(halves):
        top = 0
        for row in half:
            page.paste(row, (2 * SIDE * column, top))
            top += row.height
    return page


if __name__ == "__main__":
    run(main)
