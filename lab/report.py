"""Fill the documents: tables, pictures, the figures of runs.

python -m lab.report tables                     # rewrite every marked table of README.md and docs/
python -m lab.report pictures                   # the pictures of the documents
python -m lab.report run runs/NAME docs/results/NAME         # a run's figures and curves, no photos
python -m lab.report experiments runs/search docs/results/experiments.json

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, NAME being one of lab/tables.py; a test checks that
all are up to date.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import yaml

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text, writing
from common.paths import REPO_ROOT
from configs.changes import flat
from lab.runs import summarise
from lab.tables import TABLES

DOCUMENTS = (
    REPO_ROOT / "README.md",
    REPO_ROOT / "pretrained_models" / "README.md",
    *sorted((REPO_ROOT / "docs").glob("*.md")),
)

# in docs/photos, and what each stands for
BEFORE_AFTER = {
    "seeding.jpg": "against the sun",
    "room.jpg": "a dark room with a window",
    "city.jpg": "stays as it is",
}
COLUMN = (560, 373)  # pixels of a photo in that picture
SEED = 4
# public-domain sample picture: stops lost by the foreground, its share, stops gained by the rest, noise
FAILURES = {
    "astronaut.png": (4.5, 0.92, 0.3, 0.0015),
    "chelsea.png": (2.0, 0.5, 0.3, 0.0),
    "coffee.png": (3.5, 1.0, 0.0, 0.001),
}

LEFT_OUT = (
    "exp.exp_name",
    "exp.save_dir",
    "exp.overwrite",
    "exp.cache_dir",
    "train.num_workers",
    "train.preview_photos",
    "train.save_iter",
)


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tables", help="rewrite the tables of the documents")
    commands.add_parser("pictures", help="make the pictures of the documents")
    for name, what in (("run", "run folder"), ("experiments", "folder of run folders")):
        command = commands.add_parser(name, help=f"put the figures of a {what} into docs/results")
        command.add_argument("source", help=what)
        command.add_argument("out", help="the JSON; a picture of the same name goes beside that of a run")
    args = parser.parse_args(argv)
    if args.command == "tables":
        tables()
    elif args.command == "pictures":
        pictures()
    else:
        {"run": record_run, "experiments": record_experiments}[args.command](Path(args.source), Path(args.out))
    return EXIT_OK


# ---------------------------------------------------------------------------------------------
# Tables and pictures
# ---------------------------------------------------------------------------------------------


def tables() -> None:
    """Rewrite the marked tables of every document."""
    for document in DOCUMENTS:
        text = filled(document.read_text(encoding="utf-8"))
        write_text(document, text)


def filled(text: str) -> str:
    """The text with every marked table rebuilt."""

    def table(match: re.Match) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def pictures() -> None:
    """before_after.jpg: a photo of each kind. failures.png: simulated backlight that the shipped weights leave."""
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    from configs.schema import InferenceModel
    from data.backlight import BacklightRanges, simulate_backlight
    from data.images import read_rgb8
    from data.images.grid import photo_grid
    from data.images.photo import to_integers
    from data.samples import sample_picture
    from serving.enhancer import Enhancer

    results = REPO_ROOT / "docs" / "results"
    weights = REPO_ROOT / InferenceModel().checkpoint
    enhancer = Enhancer(weights, device="cpu", backend="torch", precision="fp32")
    (width, height), gap, label = COLUMN, 8, 48
    pairs = Image.new("RGB", ((width + gap) * len(BEFORE_AFTER) - gap, label + 2 * height), "white")
    draw, font = ImageDraw.Draw(pairs), ImageFont.load_default(32)
    for column, (name, what) in enumerate(BEFORE_AFTER.items()):
        left = column * (width + gap)
        draw.text((left + width // 2, label // 2), what, "black", font, anchor="mm")
        photo = read_rgb8(REPO_ROOT / "docs" / "photos" / name)
        for row, image in enumerate((photo, enhancer.enhance(photo)[0])):
            reduced = Image.fromarray(image).resize(COLUMN, Image.Resampling.LANCZOS)
            pairs.paste(reduced, (left, label + row * height))
    with writing(results / "before_after.jpg") as temporary:
        pairs.save(temporary, quality=88)
    columns = []
    for name, (stops, share, gain, noise) in FAILURES.items():
        ranges = BacklightRanges(
            foreground_stops=(stops, stops),
            foreground_share=(share, share),
            background_stops=(gain, gain),
            noise=(noise, noise),
        )
        photo = torch.from_numpy(sample_picture(name).copy()).permute(2, 0, 1).float() / 255
        backlit = simulate_backlight(photo, torch.Generator().manual_seed(SEED), ranges).photo.permute(1, 2, 0)
        backlit = to_integers(backlit.numpy(), np.uint8)
        columns.append([backlit, enhancer.enhance(backlit)[0]])
    rows = [list(row) for row in zip(*columns, strict=True)]
    photo_grid(rows, ["", f"above: backlit; below: by {weights.name}", ""], results / "failures.png", side=300)


# ---------------------------------------------------------------------------------------------
# Figures of runs
# ---------------------------------------------------------------------------------------------


def record_run(folder: Path, out: Path) -> None:
    """Put the figures of a finished run into OUT.json and its curves into OUT.png."""
    if not (folder / "summary.json").is_file():
        raise UserError(f"run: expected a finished run, found no summary.json in {folder}")
    write_text(out.with_suffix(".json"), json.dumps(summarise(folder), indent=2) + "\n")
    with writing(out.with_suffix(".png")) as temporary:
        shutil.copyfile(folder / "curves.png", temporary)
    print(f"{out.with_suffix('.json')}, {out.with_suffix('.png')}")


def record_experiments(runs: Path, out: Path) -> None:
    """Put what a folder of runs tried into one JSON. Runs already in it stay, so that run folders may be deleted."""
    folders = [path.parent for path in runs.glob("*/metrics.jsonl")] if runs.is_dir() else []
    if not folders:
        raise UserError(f"runs: expected a folder of run folders, found none in {runs}")
    known = {known["run"]: known for known in json.loads(out.read_text(encoding="utf-8"))} if out.is_file() else {}
    known.update({folder.name: experiment(folder) for folder in folders})
    entries = sorted(known.values(), key=lambda e: e["started"])
    write_text(out, json.dumps(entries, indent=1) + "\n")
    print(f"{out}: {len(entries)} runs")


def experiment(folder: Path) -> dict:
    """One run: its settings as `section.key`, and PSNR, SSIM and brightness of validation at the start, at best and at
    the end.
    """
    from training.tracking import read_metrics

    metrics = read_metrics(folder / "metrics.jsonl")
    checks = [m for m in metrics if "val_psnr" in m]
    if not checks:
        raise UserError(f"{folder}: expected a run with validation, found none in its metrics.jsonl")
    settings = flat(yaml.safe_load((folder / "config.yaml").read_text()))
    names = ("iteration", "val_psnr", "val_ssim", "val_brightness")
    points = {"start": checks[0], "best": max(checks, key=lambda m: m["val_psnr"]), "end": checks[-1]}
    return {
        "run": folder.name,
        "started": (folder / "config.yaml").stat().st_mtime,
        "settings": {key: _public(value) for key, value in settings.items() if key not in LEFT_OUT},
        **{name: {key: round(point[key], 4) for key in names} for name, point in points.items()},
        "seconds": round(metrics[-1].get("seconds", 0)),
    }


def _public(value: object) -> object:
    """Of an absolute path only the name: where it lay on one machine says nothing on another."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


if __name__ == "__main__":
    run(main)
