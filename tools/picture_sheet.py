"""One picture of photos in rows and weight files in columns, to look at results side by side.

python tools/picture_sheet.py PHOTO [PHOTO ...] --weights [NAME=]FILE [...] --out sheet.png [--truth DIR] [--side 300]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from data.images import read_rgb8
from tools.compare_weights import weight_files


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+")
    parser.add_argument(
        "--weights", nargs="+", required=True, metavar="PATH", help="UNet weights; NAME=FILE names a column"
    )
    parser.add_argument("--truth", metavar="DIR", help="folder of ground truths of the same names, for a last column")
    parser.add_argument("--out", required=True, metavar="SHEET.png")
    parser.add_argument("--side", type=int, default=300, help="pixels a photo (default %(default)s)")
    args = parser.parse_args(argv)
    for path in args.photos:
        if not Path(path).is_file():
            raise UserError(f"photos: expected a photo, found nothing there: {path}")
    files = weight_files(args.weights)

    import numpy as np

    from serving.enhancer import Enhancer
    from training.tracking import photo_grid

    enhancers = {name: Enhancer(file) for name, file in files.items()}
    rows = []
    for path in map(Path, args.photos):
        photo = read_rgb8(path)
        row = [photo]
        for enhancer in enhancers.values():
            result, _ = enhancer.enhance(photo.astype(np.float32) / 255)
            row.append(np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8))
        if args.truth:
            truth = Path(args.truth) / path.name
            row.append(read_rgb8(truth) if truth.is_file() else np.full_like(photo, 255))
        rows.append(row)
    photo_grid(rows, ["input", *enhancers, *(["ground truth"] if args.truth else [])], Path(args.out), args.side)
    print(args.out)
    return EXIT_OK


if __name__ == "__main__":
    run(main)
