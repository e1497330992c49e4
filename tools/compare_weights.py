"""Score weight files side by side on pairs, beside a gamma, CLAHE and doing nothing.

python -m tools compare-weights --backlit DIR --gt DIR --weights FILE_OR_FOLDER [...] [--json FILE] [--sheet PNG]

Photos are enhanced at full size with the padding of inference; PSNR and SSIM by protocol `rgb`. Figures of harm
(`metrics.harm`): clipped, the share of pixels of the backlit photos that turn white; hue, the mean angle to the hue of
the ground truth; change, the mean absolute change of photos that are well lit already, of full scale, and the largest.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import note, say
from common.errors import UserError
from common.files import write_text
from common.paths import one_form, read_text
from common.provenance import provenance
from data.images import read_all, read_rgb8
from data.listing import list_images, named

GAMMA = 2.2
WEIGHT_SUFFIXES = (".safetensors", ".pth")

Method = Callable[[np.ndarray], np.ndarray]  # (H,W,3) float32 in [0, 1] -> the same


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlit", required=True, metavar="DIR")
    parser.add_argument("--gt", required=True, metavar="DIR")
    parser.add_argument(
        "--list",
        nargs="+",
        default=[],
        metavar="FILE",
        help="only the photos named in these text files, one name a line; a mean for each file",
    )
    parser.add_argument("--kinds", metavar="CSV", help="table with columns file, kind: a mean for each kind too")
    parser.add_argument("--well-lit", metavar="DIR", help="photos that should stay as they are")
    parser.add_argument(
        "--well-lit-photos", type=int, default=40, metavar="N", help="use N of them, evenly spread (default 40)"
    )
    parser.add_argument(
        "--well-lit-list",
        nargs="+",
        default=[],
        metavar="FILE",
        help="instead: the photos named in these text files; figures for each file",
    )
    parser.add_argument(
        "--weights",
        nargs="*",
        default=[],
        metavar="PATH",
        help="UNet weights or folders of them; NAME=FILE names a row",
    )
    parser.add_argument("--json", metavar="OUT.json")
    parser.add_argument(
        "--sheet", metavar="OUT.png", help="a picture: photos in rows, input, methods and truth in columns"
    )
    parser.add_argument(
        "--sheet-photos", type=int, default=6, metavar="N", help="use N of them, evenly spread (default 6)"
    )
    args = parser.parse_args(argv)
    for key in ("backlit", "gt"):
        list_images(getattr(args, key), f"--{key}")
    well_lit = list_images(args.well_lit, "--well-lit") if args.well_lit else []
    for key in ("well_lit_photos", "sheet_photos"):
        if getattr(args, key) < 1:
            raise UserError(f"--{key.replace('_', '-')}: expected at least 1, found {getattr(args, key)}")
    kinds = read_kinds(args.kinds) if args.kinds else {}
    files = weight_files(args.weights)

    from metrics.pairing import pair, read_names

    stay = {Path(file).stem: read_names(file, "--well-lit-list") for file in args.well_lit_list}
    stay = {part: [path for path in well_lit if named(Path(path.name), names)] for part, names in stay.items()}
    stay = stay or ({"well-lit": _spread(well_lit, args.well_lit_photos)} if well_lit else {})
    from serving.enhancer import Enhancer

    pairs = pair(args.backlit, args.gt).pairs
    lists = {Path(file).stem: set(read_names(file, "--list")) for file in args.list}
    if lists:
        pairs = [p for p in pairs if any(named(Path(p.name), names) for names in lists.values())]
    if not pairs:
        raise UserError("--backlit, --gt: expected photos of the same names, found none")
    methods: dict[str, Method] = {
        "untouched input": lambda photo: photo,
        f"gamma {GAMMA}": lambda photo: photo ** np.float32(1 / GAMMA),
        "CLAHE": _clahe,
        "computed start map": _start_map,
    }
    asked_for = {Path(item.rpartition("=")[2]) for item in args.weights}
    for name, file in files.items():
        try:
            enhancer = Enhancer(file)
        except UserError as error:
            if file in asked_for:
                raise
            note(f"left out: {error}")  # a folder may hold other weights too
            continue
        methods[name] = lambda photo, enhancer=enhancer: enhancer.enhance(photo)[0]
    failures: list[str] = []
    found = dict(read_all([path for p in pairs for path in (p.enhanced, p.truth)], failures))
    pairs = [p for p in pairs if p.enhanced in found and p.truth in found]
    photos = [(found[p.enhanced], found[p.truth]) for p in pairs]
    stay = {part: [path for path, _ in read_all(paths, failures)] for part, paths in stay.items()}
    for reason in failures:
        say(f"failed: {reason}", file=sys.stderr)
    if not pairs:
        raise UserError("--backlit, --gt: expected pairs that can be read, found none")

    def members(names: set[str] | None = None, kind: str | None = None) -> list[int]:
        return [
            i
            for i, p in enumerate(pairs)
            if (names is None or named(Path(p.name), names)) and (kind is None or kinds.get(one_form(p.name)) == kind)
        ]

    parts, kind_names = lists if len(lists) > 1 else {}, sorted(set(kinds.values()))
    groups = {"all": members()}
    groups |= {part: members(names) for part, names in parts.items()}
    groups |= {kind: members(kind=kind) for kind in kind_names}
    groups |= {f"{part}, {kind}": members(names, kind) for part, names in parts.items() for kind in kind_names}
    rows = {}
    for name, method in methods.items():
        scores = [_score(method, *photo) for photo in tqdm(photos, desc=name, leave=False, disable=None)]
        rows[name] = {group: _mean([scores[i] for i in members]) for group, members in groups.items() if members}
        for part, paths in stay.items():
            changes = [
                _change(method, read_rgb8(p)) for p in tqdm(paths, desc=f"{name}, {part}", leave=False, disable=None)
            ]
            rows[name][f"change, {part}"] = {
                "mean": round(float(np.mean(changes)), 4),
                "largest": round(max(changes), 4),
                "photos_above_0.05": sum(value > 0.05 for value in changes),
            }
        _print_row(name, rows[name], header=len(rows) == 1)
    if args.json:
        counts = {group: len(members) for group, members in groups.items() if members}
        content = {
            "pairs": counts,
            "well_lit_photos": {part: len(paths) for part, paths in stay.items()},
            "protocol": "rgb",
            "rows": rows,
            **provenance(),
        }
        write_text(args.json, json.dumps(content, indent=2) + "\n")
    if args.sheet:
        _sheet(methods, _spread(photos, args.sheet_photos), Path(args.sheet))
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _spread(items: list, count: int) -> list:
    """At most `count` of the items, evenly spread."""
    return items[:: max(1, -(-len(items) // count))]


def _sheet(methods: dict[str, Method], photos: list[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    from training.tracking import photo_grid

    rows = []
    for backlit, truth in photos:
        results = [_to_uint8(method(backlit.astype(np.float32) / 255)) for method in methods.values()]
        rows.append([*results, truth])  # the first method leaves its input as it is
    photo_grid(rows, [*methods, "ground truth"], path, side=300)
    say(str(path))


def weight_files(items: list[str]) -> dict[str, Path]:
    """Row name -> file, of `FILE`, `NAME=FILE` and `FOLDER` (searched recursively).

    Raises UserError for what is neither.
    """
    files: dict[str, Path] = {}
    for item in items:
        name, _, path = item.rpartition("=")
        path = Path(path)
        found = sorted(p for p in path.rglob("*") if p.suffix in WEIGHT_SUFFIXES) if path.is_dir() else [path]
        if not found or not path.exists():
            raise UserError(f"--weights: expected a weight file or a folder of them, found {item}")
        for file in found:
            files[name or (f"{file.parent.name}/{file.stem}" if path.is_dir() else file.stem)] = file
    return files


def read_kinds(file: str) -> dict[str, str]:
    """File name -> kind. Raises UserError where the table has no such columns."""
    try:
        rows = list(csv.DictReader(read_text(file).splitlines()))
    except UserError as error:
        raise UserError(f"--kinds: {error}") from None
    except csv.Error as error:
        raise UserError(f"--kinds: expected a CSV with columns file and kind, found {file}: {error}") from None
    if not rows or not {"file", "kind"} <= rows[0].keys():
        raise UserError(
            f"--kinds: expected a CSV with columns file and kind, "
            f"found {file} with {', '.join(map(str, rows[0])) if rows else 'no rows'}"
        )
    return {one_form(row["file"]): row["kind"] or "" for row in rows}


def _clahe(photo: np.ndarray) -> np.ndarray:
    """scikit-image's, with its defaults: on V of HSV."""
    from skimage.exposure import equalize_adapthist

    return equalize_adapthist(photo)


def _start_map(photo: np.ndarray) -> np.ndarray:
    """What `unet_model.first_map: retinex` teaches the network before it is guided, without a network."""
    import torch

    from models.retinex import enhance, first_illumination

    images = torch.from_numpy(photo).permute(2, 0, 1)[None]
    return enhance(images, first_illumination(images))[0].permute(1, 2, 0).numpy()


def _to_uint8(photo: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8)


def _score(method: Method, backlit: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    from metrics.full_reference import psnr_rgb, ssim_rgb
    from metrics.harm import hue_error, newly_clipped

    start = time.perf_counter()
    result = method(backlit.astype(np.float32) / 255)
    seconds = time.perf_counter() - start
    result = _to_uint8(result)
    return {
        "psnr": psnr_rgb(result, truth),
        "ssim": ssim_rgb(result, truth),
        "clipped": newly_clipped(backlit, result),
        "hue_error": hue_error(result, truth),
        "seconds_per_photo": seconds,
    }


def _change(method: Method, photo: np.ndarray) -> float:
    from metrics.harm import change

    return change(photo, _to_uint8(method(photo.astype(np.float32) / 255)))


def _mean(scores: list[dict[str, float]]) -> dict[str, float | None]:
    """Means; of a hue, over the photos that have colour, None where none has."""
    columns = {key: [score[key] for score in scores if not np.isnan(score[key])] for key in scores[0]}
    return {key: round(float(np.mean(values)), 4) if values else None for key, values in columns.items()}


def _print_row(name: str, row: dict, header: bool) -> None:
    groups = [group for group in row if ", " not in group]  # combined ones are in the JSON
    stay = [key for key in row if key.startswith("change, ")]
    if header:
        tqdm.write(
            f"{'PSNR / dB, SSIM':36}"
            + "".join(f" {group:>16}" for group in groups)
            + f" {'clipped':>8} {'hue':>6}"
            + "".join(f" {key:>22}" for key in stay)
            + f" {'s/photo':>8}"
        )
    cells = "".join(f" {row[group]['psnr']:9.2f}  {row[group]['ssim']:.3f}" for group in groups)
    changes = "".join(f" {row[key]['mean']:12.3f}, to {row[key]['largest']:.3f}" for key in stay)
    whole = row["all"]
    hue = "     –" if whole["hue_error"] is None else f"{whole['hue_error']:5.1f}°"
    figures = f" {100 * whole['clipped']:6.2f} % {hue}{changes} {whole['seconds_per_photo']:8.2f}"
    tqdm.write(f"{name:36}{cells}{figures}")


if __name__ == "__main__":
    run(main)
