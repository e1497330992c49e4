"""Score weight files side by side on pairs, beside a gamma, CLAHE and doing nothing.

python -m tools compare-weights --backlit DIR --gt DIR --weights FILE_OR_FOLDER [...] [--json FILE] [--sheet PNG]
python -m tools compare-weights --backlit DIR --gt DIR --other NAME=FOLDER_OF_RESULTS   another program's results

Photos are enhanced at full size with the padding of inference; PSNR and SSIM by protocol `rgb`. Figures of harm
(`metrics.harm`), of full scale: clipped, the share of pixels of the backlit photos that turn white; hue, the mean angle
to the hue of the ground truth; change, the mean absolute change of photos that are well lit already, the largest, and
the share of photos above 0.05; low key, the same of their darkest parts, where these are dark. Of ground truths that
are darkened in 30 steps of exposure: jump, the largest change of the result's mean from one step to the next, and fall,
by how much a brighter photo gets a darker result. Of ground truths with simulated backlight: lift, the share of the
dark ground's brightness that comes back, and sky, how much the sky changes. noise: what enhancement makes of noise in
shadows, as a factor. With the lists of configs/splits the rule of `metrics.choice` names its pick.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import note, say
from common.errors import UserError
from common.files import real_path, write_text
from common.provenance import provenance
from common.sequences import evenly
from common.written import check_replaceable
from data.listing import list_images, named
from models.shipped import SHIPPED, shipped_unets

if TYPE_CHECKING:
    from metrics.comparison import Material
    from metrics.pairing import Pair
    from metrics.scores import Row

GAMMA = 2.2
WELL_LIT_PHOTOS, SHEET_PHOTOS = 40, 6  # how many are used where nothing is said


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    from metrics.candidates import read_kinds, read_lists, weight_files

    kinds = read_kinds(args.kinds) if args.kinds else {}
    files, asked_for = weight_files(
        args.weights or ([] if args.other else [str(SHIPPED / name) for name in shipped_unets()])
    )

    from metrics.choice import STAY, VALIDATION, choose, exceeded
    from metrics.comparison import figures, groups, read_material
    from metrics.pairing import pair

    stay = _photos_that_should_stay(args)
    pairs = pair(args.backlit, args.gt).pairs
    if not pairs:
        raise UserError("--backlit, --gt: expected photos of the same names, found none")
    lists = read_lists(args.list, "--list", [Path(p.name) for p in pairs])
    if lists:
        pairs = [p for p in pairs if any(named(Path(p.name), names) for names in lists.values())]
    taken = {*lists, *(f"change, {part}" for part in (*stay, "low key"))} & set(kinds.values())
    if taken:
        raise UserError(f"--kinds: expected other kinds than lists and columns are named, found {min(taken)}")
    if kinds and groups(pairs, {}, kinds).keys() == {"all"}:
        raise UserError(f"--kinds: expected names of the {len(pairs)} photos, found none in {args.kinds}")
    rows = _rows(args, files, asked_for, pairs, stay)
    failures: list[str] = []
    material = read_material(pairs, stay, rows.values(), failures)
    for reason in failures:
        say(f"failed: {reason}", file=sys.stderr)
    if not material.pairs:
        raise UserError("--backlit, --gt: expected pairs that can be read, found none")
    parts = groups(material.pairs, lists, kinds)
    stayed = {part: len(paths) for part, paths in material.stay.items()}
    stayed |= {"low key": len(material.low_key)} if material.low_key else {}
    measured: dict[str, dict] = {}
    _print_heading([*parts], [*stayed])
    for name, row in rows.items():
        measured[name] = figures(name, row, material, parts)
        _print_row(name, measured[name], [*parts], [*stayed])
    candidates = {name: measured[name] for name in files if name in measured}
    picked = None
    if VALIDATION in parts and all(material.stay.get(part) for part in STAY) and candidates:
        picked = choose(candidates)
        say(f"the rule (metrics/choice.py) picks: {picked or 'none'}")
        for name, row in candidates.items():
            if reasons := exceeded(row):
                say(f"not {name}: {', '.join(reasons)}")
    if args.json:
        content = {
            "pairs": {group: len(members) for group, members in parts.items()},
            "well_lit_photos": stayed,
            "protocol": "rgb",
            "picked": picked,
            "rows": measured,
            **provenance(),
        }
        write_text(args.json, json.dumps(content, indent=2) + "\n")
        say(f"written: {args.json}")
    if args.sheet:
        _sheet(rows, material, evenly(material.pairs, args.sheet_photos or SHEET_PHOTOS), Path(args.sheet))
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _arguments(argv: list[str]) -> argparse.Namespace:
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
        "--well-lit-photos", type=int, metavar="N", help=f"use N of them, evenly spread (default {WELL_LIT_PHOTOS})"
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
        help="UNet weights or folders of them; NAME=FILE names a row (default: the shipped ones, without --other)",
    )
    parser.add_argument(
        "--other", nargs="*", default=[], metavar="NAME=FOLDER", help="another program's results of the backlit photos"
    )
    parser.add_argument(
        "--other-well-lit",
        nargs="*",
        default=[],
        metavar="NAME=FOLDER",
        help="the same program's, of the well-lit ones",
    )
    parser.add_argument("--json", metavar="OUT.json")
    parser.add_argument(
        "--sheet", metavar="OUT.png", help="a picture: photos in rows, input, methods and truth in columns"
    )
    parser.add_argument(
        "--sheet-photos", type=int, metavar="N", help=f"use N of them, evenly spread (default {SHEET_PHOTOS})"
    )
    args = parser.parse_args(argv)
    for key in ("backlit", "gt"):
        list_images(getattr(args, key), f"--{key}")
    for key, needed in {"well_lit_photos": "well_lit", "well_lit_list": "well_lit", "sheet_photos": "sheet"}.items():
        flag, value = f"--{key.replace('_', '-')}", getattr(args, key)
        if isinstance(value, int) and value < 1:
            raise UserError(f"{flag}: expected at least 1, found {value}")
        if value and not getattr(args, needed):
            raise UserError(f"{flag}: expected --{needed.replace('_', '-')} with it, found none")
    if real_path(args.backlit) == real_path(args.gt):
        raise UserError(f"--backlit, --gt: expected two folders, found one: {args.gt}")
    if args.json:
        check_replaceable(Path(args.json), "--json")
    if args.sheet:
        from data.images.grid import GRID_MARK

        check_replaceable(Path(args.sheet), "--sheet", mark=GRID_MARK)
    if args.json and args.sheet and real_path(args.json) == real_path(args.sheet):
        raise UserError(f"--json, --sheet: expected two files, found one: {args.json}")
    return args


def _photos_that_should_stay(args: argparse.Namespace) -> dict[str, list[Path]]:
    """By list, or under one name."""
    from metrics.candidates import read_lists

    if not args.well_lit:
        return {}
    photos = {path: path.relative_to(args.well_lit) for path in list_images(args.well_lit, "--well-lit")}
    lists = read_lists(args.well_lit_list, "--well-lit-list", [*photos.values()])
    if not lists:
        return {"well-lit": evenly([*photos], args.well_lit_photos or WELL_LIT_PHOTOS)}
    return {part: [path for path, place in photos.items() if named(place, names)] for part, names in lists.items()}


def _rows(
    args: argparse.Namespace,
    files: dict[str, Path],
    asked_for: set[str],
    pairs: list["Pair"],
    stay: dict[str, list[Path]],
) -> dict[str, "Row"]:
    """Plain methods, weight files and other programs' results, in this order. asked_for: files that no folder gave."""
    from metrics.scores import Row, clahe, other_results, start_map
    from serving.enhancer import Enhancer

    rows = {
        "untouched input": Row(lambda photo: photo),
        f"gamma {GAMMA}": Row(lambda photo: photo ** np.float32(1 / GAMMA)),
        "CLAHE": Row(clahe),
        "computed start map": Row(start_map),
    }
    if taken := rows.keys() & files.keys():
        raise UserError(f"--weights: expected a name that no other row has, found {', '.join(sorted(taken))}")
    for name, file in files.items():
        try:
            enhancer = Enhancer(file)
        except UserError as error:
            if name in asked_for:
                raise
            note(f"left out: {error}")  # a folder may hold other weights too
            continue
        rows[name] = Row(lambda photo, enhancer=enhancer: enhancer.enhance(photo)[0])
    results = other_results(args.other, "--other", args.backlit, [p.enhanced for p in pairs])
    known = [path for paths in stay.values() for path in paths]
    of_well_lit = other_results(args.other_well_lit, "--other-well-lit", args.well_lit, known)
    if unknown := of_well_lit.keys() - results.keys():
        raise UserError(f"--other-well-lit: expected a name of --other, found {', '.join(sorted(unknown))}")
    if taken := results.keys() & rows.keys():
        raise UserError(f"--other: expected a name that no other row has, found {', '.join(sorted(taken))}")
    return rows | {name: Row(None, of_pairs | of_well_lit.get(name, {})) for name, of_pairs in results.items()}


def _sheet(rows: dict[str, "Row"], material: "Material", pairs: list["Pair"], path: Path) -> None:
    from data.images.grid import photo_grid

    pixels = material.pixels
    # the first of the rows leaves its input as it is
    pictures = [[*(row(p.enhanced, pixels[p.enhanced]) for row in rows.values()), pixels[p.truth]] for p in pairs]
    photo_grid(pictures, [*rows, "ground truth"], path, side=300)
    say(f"written: {path}")


def _print_heading(groups: list[str], stay: list[str]) -> None:
    say(
        f"{'PSNR / dB, SSIM':36}"
        + "".join(f" {group:>16}" for group in groups if ", " not in group)  # combined ones are in the JSON
        + f" {'clipped':>8} {'hue':>6}"
        + "".join(f" {f'change, {part}':>26}" for part in stay)
        + f" {'jump':>6} {'fall':>6} {'lift':>6} {'sky':>6} {'noise':>6} {'s/MP':>6}"
    )


def _print_row(name: str, row: dict, groups: list[str], stay: list[str]) -> None:
    cells = "".join(f" {row[group]['psnr']:9.2f}  {row[group]['ssim']:.3f}" for group in groups if ", " not in group)
    whole = row["all"]
    cells += f" {100 * whole['clipped']:6.2f} %" + _cell(whole["hue_error"], 6, 1, "°")
    for part in stay:
        found = row.get(f"change, {part}")
        text = (
            f"{found['mean']:.3f}, to {found['largest']:.3f}, {100 * found['share_above_0.05']:.0f} %" if found else "–"
        )
        cells += f" {text:>26}"
    probes = row.get("probes", {})
    for key, digits in (("largest_jump", 3), ("fall", 3), ("region_lift", 2), ("sky_change", 3), ("noise_gain", 2)):
        cells += _cell(probes.get(key), 6, digits)
    say(f"{name:36}{cells}{_cell(whole['seconds_per_megapixel'], 6, 2)}")


def _cell(value: float | None, width: int, digits: int, unit: str = "") -> str:
    text = "–" if value is None else f"{value:.{digits}f}{unit}"
    return f" {text:>{width}}"


if __name__ == "__main__":
    run(main)
