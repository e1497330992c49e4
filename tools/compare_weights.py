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
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.cli import EXIT_OK, EXIT_SOME_FAILED, ArgumentParser, run
from common.console import note, say
from common.errors import UserError
from common.files import write_text
from common.paths import one_form
from common.progress import track
from common.provenance import provenance
from common.written import check_no_input, check_replaceable
from data.images import read_all
from data.listing import list_images, named

if TYPE_CHECKING:
    from metrics.scores import Scored

GAMMA = 2.2
PROBED = 4  # ground truths that are darkened and simulated


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
        "--sheet-photos", type=int, default=6, metavar="N", help="use N of them, evenly spread (default 6)"
    )
    args = parser.parse_args(argv)
    for key in ("backlit", "gt"):
        list_images(getattr(args, key), f"--{key}")
    well_lit = list_images(args.well_lit, "--well-lit") if args.well_lit else []
    for key in ("well_lit_photos", "sheet_photos"):
        if getattr(args, key) < 1:
            raise UserError(f"--{key.replace('_', '-')}: expected at least 1, found {getattr(args, key)}")
    from metrics.candidates import read_kinds, read_lists, weight_files

    kinds = read_kinds(args.kinds) if args.kinds else {}
    files = weight_files(args.weights)

    from metrics.choice import STAY, VALIDATION, choose, exceeded
    from metrics.harm import change, changes, probe
    from metrics.pairing import pair
    from metrics.scores import (
        Scored,
        changed,
        check_size,
        clahe,
        low_key_parts,
        means,
        other_results,
        reduced,
        score,
        start_map,
        unfit,
    )

    if args.well_lit_list and not args.well_lit:
        raise UserError("--well-lit-list: expected the folder of these photos (--well-lit DIR), found none")
    places = {path: path.relative_to(args.well_lit) for path in well_lit}
    stay = read_lists(args.well_lit_list, "--well-lit-list", [*places.values()])
    stay = {part: [path for path, place in places.items() if named(place, names)] for part, names in stay.items()}
    stay = stay or ({"well-lit": _spread(well_lit, args.well_lit_photos)} if well_lit else {})
    from serving.enhancer import Enhancer

    pairs = pair(args.backlit, args.gt).pairs
    if not pairs:
        raise UserError("--backlit, --gt: expected photos of the same names, found none")
    lists = read_lists(args.list, "--list", [Path(p.name) for p in pairs])
    if lists:
        pairs = [p for p in pairs if any(named(Path(p.name), names) for names in lists.values())]
    if args.json:
        check_replaceable(Path(args.json), "--json")
    if args.sheet:
        of_pairs = (path for p in pairs for path in (p.enhanced, p.truth))
        check_no_input(Path(args.sheet), [*files.values(), *well_lit, *of_pairs], "--sheet")
    scored = {
        "untouched input": Scored(lambda photo: photo),
        f"gamma {GAMMA}": Scored(lambda photo: photo ** np.float32(1 / GAMMA)),
        "CLAHE": Scored(clahe),
        "computed start map": Scored(start_map),
    }
    if taken := scored.keys() & files.keys():
        raise UserError(f"--weights: expected a name that no other row has, found {', '.join(sorted(taken))}")
    asked_for = {Path(item.rpartition("=")[2]) for item in args.weights}
    for name, file in files.items():
        try:
            enhancer = Enhancer(file)
        except UserError as error:
            if file in asked_for:
                raise
            note(f"left out: {error}")  # a folder may hold other weights too
            continue
        scored[name] = Scored(lambda photo, enhancer=enhancer: enhancer.enhance(photo)[0])
    candidates = [name for name in scored if name in files]
    results = {"--other": other_results(args.other, "--other", args.backlit, [p.enhanced for p in pairs])}
    known = [path for paths in stay.values() for path in paths]
    results["--other-well-lit"] = other_results(args.other_well_lit, "--other-well-lit", args.well_lit, known)
    if unknown := results["--other-well-lit"].keys() - results["--other"].keys():
        raise UserError(f"--other-well-lit: expected a name of --other, found {', '.join(sorted(unknown))}")
    if taken := results["--other"].keys() & scored.keys():
        raise UserError(f"--other: expected a name that no other row has, found {', '.join(sorted(taken))}")
    for name, of_pairs in results["--other"].items():
        scored[name] = Scored(None, of_pairs | results["--other-well-lit"].get(name, {}))
    failures: list[str] = []
    found = dict(read_all([path for p in pairs for path in (p.enhanced, p.truth)], failures))
    lit = {path: pixels.shape for paths in stay.values() for path, pixels in read_all(paths, failures)}
    shapes = lit | {path: photo.shape for path, photo in found.items()}
    unread = {p.enhanced for p in pairs if unfit(p.truth, found.get(p.truth), shapes.get(p.enhanced), failures)}
    for row in scored.values():  # photos without a result of another program that can be read
        readable = dict(read_all(row.results.values(), failures))
        for photo, path in row.results.items():
            if path in readable and photo in shapes:
                check_size(path, readable[path], shapes[photo])
        unread |= {photo for photo, path in row.results.items() if path not in readable}
    pairs = [p for p in pairs if p.enhanced in found and p.enhanced not in unread]
    photos = {p.enhanced: (found[p.enhanced], found[p.truth]) for p in pairs}
    stay = {part: [path for path in paths if path in lit and path not in unread] for part, paths in stay.items()}
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

    parts = lists if len(lists) > 1 or VALIDATION in lists else {}
    kind_names = sorted(set(kinds.values()))
    groups = {"all": members()}
    groups |= {part: members(names) for part, names in parts.items()}
    groups |= {kind: members(kind=kind) for kind in kind_names}
    groups |= {f"{part}, {kind}": members(names, kind) for part, names in parts.items() for kind in kind_names}
    truths = [reduced(truth) for _, truth in _spread(list(photos.values()), PROBED)]
    low_key = low_key_parts(path for paths in stay.values() for path in paths)
    stayed = {part: len(paths) for part, paths in stay.items()} | ({"low key": len(low_key)} if low_key else {})
    rows = {}
    for name, row in scored.items():
        scores = [score(row, path, *photo) for path, photo in track(photos.items(), name)]
        rows[name] = {group: means([scores[i] for i in members]) for group, members in groups.items() if members}
        for part, paths in stay.items():
            if paths and row.has(paths):
                progress = track(paths, f"{name}, {part}")
                rows[name][f"change, {part}"] = changes([changed(row, path) for path in progress])
        if row.method and low_key:
            rows[name]["change, low key"] = changes([change(part, row(Path(), part)) for part in low_key])
        if row.method:
            rows[name]["probes"] = probe(row.method, truths)
        _print_row(name, rows[name], [*filter(groups.get, groups)], stayed, header=len(rows) == 1)
    picked = None
    if VALIDATION in groups and all(stay.get(part) for part in STAY) and candidates:
        picked = choose({name: rows[name] for name in candidates})
        say(f"the rule (metrics/choice.py) picks: {picked or 'none'}")
        for name in candidates:
            if reasons := exceeded(rows[name]):
                say(f"not {name}: {', '.join(reasons)}")
    if args.json:
        content = {
            "pairs": {group: len(members) for group, members in groups.items() if members},
            "well_lit_photos": stayed,
            "protocol": "rgb",
            "picked": picked,
            "rows": rows,
            **provenance(),
        }
        write_text(args.json, json.dumps(content, indent=2) + "\n")
    if args.sheet:
        _sheet(scored, _spread(list(photos.items()), args.sheet_photos), Path(args.sheet))
    return EXIT_SOME_FAILED if failures else EXIT_OK


def _spread(items: list, count: int) -> list:
    """At most `count` of the items, evenly spread."""
    return items[:: max(1, -(-len(items) // count))]


def _sheet(scored: dict[str, "Scored"], photos: list[tuple[Path, tuple[np.ndarray, np.ndarray]]], path: Path) -> None:
    from training.tracking import photo_grid

    # the first of them leaves its input as it is
    rows = [[*(row(name, backlit) for row in scored.values()), truth] for name, (backlit, truth) in photos]
    photo_grid(rows, [*scored, "ground truth"], path, side=300)
    say(str(path))


def _print_row(name: str, row: dict, groups: list[str], stay: Iterable[str], header: bool) -> None:
    groups = [group for group in groups if ", " not in group]  # combined ones are in the JSON
    if header:
        say(
            f"{'PSNR / dB, SSIM':36}"
            + "".join(f" {group:>16}" for group in groups)
            + f" {'clipped':>8} {'hue':>6}"
            + "".join(f" {f'change, {part}':>26}" for part in stay)
            + f" {'jump':>6} {'fall':>6} {'lift':>6} {'sky':>6} {'noise':>6} {'s/MP':>6}"
        )
    cells = "".join(f" {row[group]['psnr']:9.2f}  {row[group]['ssim']:.3f}" for group in groups)
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
