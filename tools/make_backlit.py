"""Make a paired set out of normal photos, by simulating backlight.

python -m tools make-backlit PHOTOS OUT [--per-photo 2] [--size 512] [--seed 0] [--masks DIR] [--noise 0 0.02]

Writes OUT/backlit/NAME.png and OUT/ground_truth/NAME.png of the same names, and OUT/pairs.csv with what was drawn.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import write_text, writing
from common.paths import absolute, find_folder, is_file, one_form, read_text
from common.progress import track
from data.backlight import BacklightRanges, simulate_backlight
from data.images import ImageError, Photo, read_rgb8, write_photo
from data.listing import list_images
from serving.jobs import Job, plan_outputs

COLUMNS = ("file", "source", "seed", *BacklightRanges.__dataclass_fields__)
HEADING = ",".join(COLUMNS) + "\n"  # alone in pairs.csv until the set is whole


def main(argv: list[str]) -> int:
    default = BacklightRanges()
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="folder of normal photos (searched recursively)")
    parser.add_argument("out", help="folder of the set; must not hold one already")
    parser.add_argument(
        "--per-photo", type=int, default=1, metavar="N", help="backlit versions of each photo (default 1)"
    )
    parser.add_argument(
        "--size", type=int, default=None, metavar="PIXELS", help="shrink photos whose longer side is above this"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--masks", metavar="DIR", help="foreground masks (white: foreground) named like the photos; default: drawn"
    )
    for name, text in (
        ("foreground-stops", "exposure lost by the foreground, in stops"),
        ("background-stops", "exposure gained by the rest, in stops"),
        ("foreground-share", "share of the picture that is foreground"),
        ("noise", "standard deviation of sensor noise, of full scale"),
    ):
        bounds = getattr(default, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}",
            nargs=2,
            type=float,
            default=bounds,
            metavar=("LOW", "HIGH"),
            help=f"{text} (default {bounds[0]:g} {bounds[1]:g})",
        )
    args = parser.parse_args(argv)
    if args.size is not None and args.size < 16:
        raise UserError(f"--size: expected at least 16 pixels, found {args.size}")
    if args.foreground_share[1] > 1:
        raise UserError(f"--foreground-share: expected at most 1, found {args.foreground_share[1]}")
    if args.per_photo < 1:
        raise UserError(f"--per-photo: expected at least 1, found {args.per_photo}")
    ranges = {name: tuple(getattr(args, name)) for name in BacklightRanges.__dataclass_fields__}
    for name, (low, high) in ranges.items():
        if not 0 <= low <= high:
            raise UserError(f"--{name.replace('_', '-')}: expected 0 <= LOW <= HIGH, found {low} {high}")

    out, photos = Path(args.out), find_folder(args.photos, "photos")
    if out.resolve().is_relative_to(photos.resolve()):
        raise UserError(f"out: expected a folder outside that of the photos, found {out}")
    begun = is_file(out / "pairs.csv") and read_text(out / "pairs.csv") == HEADING  # stopped before its end: rebuilt
    for part in (out / "pairs.csv", out / "backlit", out / "ground_truth"):
        if part.exists() and not begun:
            raise UserError(f"out: expected a folder of no earlier set, found {part}; name another one")
    jobs = plan_outputs([photos], out / "backlit", "png", overwrite=begun, keys=("photos", "out"))
    masks = {_stem(path, args.masks): path for path in list_images(args.masks, "--masks")} if args.masks else {}
    rows, failures = make_pairs(
        jobs, photos, out, args.per_photo, args.size, args.seed, BacklightRanges(**ranges), masks
    )
    for path, reason in failures:
        say(f"failed: {path}: {reason}", file=sys.stderr)
    say(f"{len(rows)} pairs out of {len(jobs)} photos in {out}")
    return EXIT_SOME_FAILED if failures else EXIT_OK


def make_pairs(
    jobs: list[Job],
    root: Path,
    out: Path,
    per_photo: int,
    size: int | None,
    seed: int,
    ranges: BacklightRanges,
    masks: dict[Path, Path],
) -> tuple[list[dict], list[tuple[Path, str]]]:
    """Write the pairs, named as the jobs' results, and pairs.csv; returns their rows, and which photos failed and why.

    Each pair has a generator of its own, seeded by (seed, its name), so adding photos changes no other pair.
    """
    import hashlib

    import torch

    rows, failures = [], []
    write_text(out / "pairs.csv", HEADING)
    root = absolute(root)  # as the jobs name it
    for job in track(jobs, "simulating"):
        path, name = job.source, job.relative.with_suffix("")
        try:
            truth = _to_tensor(_shrunk(read_rgb8(path), size))
            mask = None
            if masks:
                if _stem(path, root) not in masks:
                    raise ImageError(f"expected a mask of the same name, found none for {name}")
                grey = (
                    Image.fromarray(read_rgb8(masks[_stem(path, root)]))
                    .convert("L")
                    .resize(truth.shape[:0:-1], Image.Resampling.BILINEAR)
                )
                mask = torch.from_numpy(np.array(grey))[None].float() / 255
            for version in range(per_photo):
                file = Path(f"{name}_{version}.png" if per_photo > 1 else f"{name}.png")
                digest = hashlib.sha256(f"{seed} {file.as_posix()}".encode("utf-8", "surrogateescape")).digest()
                generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
                backlit = simulate_backlight(truth, generator, ranges, mask)
                for folder, photo in (("backlit", backlit.photo), ("ground_truth", truth)):
                    write_photo(out / folder / file, Photo(photo.permute(1, 2, 0).numpy()))
                drawn = {name: f"{value:.4f}" for name, value in backlit.parameters.items()}
                rows.append({"file": file.as_posix(), "source": path.name, "seed": seed, **drawn})
        except ImageError as error:
            failures.append((path, str(error).removeprefix(f"{path}: ")))
    if rows:
        with writing(out / "pairs.csv") as temporary:
            _write_csv(temporary, rows)
    return rows, failures


def _shrunk(pixels: np.ndarray, size: int | None) -> np.ndarray:
    photo = Image.fromarray(pixels)
    if size is not None:
        photo.thumbnail((size, size), Image.Resampling.LANCZOS)
    return np.array(photo)


def _stem(path: Path, folder: str | Path) -> str:
    """What photo and mask have in common: sub-folder and name without suffix, in one form of Unicode."""
    return one_form(path.relative_to(folder).with_suffix("").as_posix())


def _to_tensor(pixels: np.ndarray):
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        file.write(HEADING)
        csv.DictWriter(file, fieldnames=COLUMNS, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    run(main)
