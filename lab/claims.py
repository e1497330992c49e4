"""RAVE's claims with a real encoder: trainings of one UNet, step for step alike, that differ in what guides them.

python -m lab.claims --pairs DIR --unpaired DIR [--cells NAME ...] [--seeds 0 1 2]

DIR of pairs holds backlit/ and ground_truth/, whose validation and test scenes (configs/splits/) are not trained on;
DIR of unpaired photos holds backlit/ and welllit/. Every run is `train_rave.py` in a process of its own. Finished ones
are in docs/results/claims.json and are not done again, so that anyone can go on where another stopped.
"""

import json
import subprocess
import sys
from pathlib import Path

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text
from common.paths import REPO_ROOT

RESULTS = REPO_ROOT / "docs" / "results" / "claims.json"
SPLITS = ("configs/splits/pairs_validation.txt", "configs/splits/pairs_test.txt")
OFFLINE = {"paired": "rave_paired_offline.yaml", "relit": "rave_relit_offline.yaml"}

# One direction, space and kind of set point beside another: same UNet, steps and seeds, no factor on Δ. The last
# layer's difference is a third of the stages', and enters squared.
STEPS, SIDE = 100, 48
ALIKE = [
    *(f"train.num_iters={STEPS}", f"data.image_size={SIDE}", "train.val_iter=35"),
    *("guidance.set_point_factor=1.0", "guidance.relit.photos=welllit"),
]
DIRECTIONS = {
    "paired": [],
    "folders": ["guidance.direction=folders"],
    "shifted5": ["guidance.direction=folders", "guidance.remove_first_n_tokens=5"],
    "shifted15": ["guidance.direction=folders", "guidance.remove_first_n_tokens=15"],
    "shifted50": ["guidance.direction=folders", "guidance.remove_first_n_tokens=50"],
    "relit": ["guidance.direction=relit"],
}
SPACES = {"last": ["guidance.layers=last", "loss.residual=250"], "stages": ["guidance.layers=stages"]}
SET_POINTS = {"mean": ["guidance.set_point=mean"], "photo": ["guidance.set_point=photo"]}


def cells() -> dict[str, tuple[str, list[str]]]:
    """Name -> config and settings: the shipped configs as they are, then the claims, the paper's way and ours first."""
    found = {f"offline/{regime}": (cfg, []) for regime, cfg in OFFLINE.items()}
    spaces_and_points = (("last", "mean"), ("stages", "photo"), ("last", "photo"), ("stages", "mean"))
    for space, point in spaces_and_points:
        of_space, of_point = SPACES[space], SET_POINTS[point]
        for direction, settings in DIRECTIONS.items():
            guided = [*ALIKE, *settings, *of_space, *of_point]
            found[f"{direction}/{space}/{point}"] = (OFFLINE["paired"], guided)
    return found


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True, help="folder of backlit/ and ground_truth/")
    parser.add_argument("--unpaired", required=True, help="folder of backlit/ and welllit/")
    parser.add_argument("--cells", nargs="+", default=list(cells()), metavar="NAME", help="(default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", default="runs/claims", help="folder of the runs (default: %(default)s)")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.cells if name not in cells()]:
        raise UserError(f"--cells: expected some of {', '.join(cells())}, found {', '.join(unknown)}")
    for seed in args.seeds:
        for name in args.cells:
            if str(seed) not in _known().get(name, {}):
                _train(name, seed, args.pairs, args.unpaired, Path(args.runs))
    return EXIT_OK


def _known() -> dict:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def _train(name: str, seed: int, pairs: str, unpaired: str, runs: Path) -> None:
    from lab.runs import summarise

    cfg, settings = cells()[name]
    paired = "paired" in name.split("/")
    photos = (f"{pairs}/backlit", f"{pairs}/ground_truth") if paired else (f"{unpaired}/backlit", f"{unpaired}/welllit")
    exp_name = f"{name.replace('/', '_')}_seed{seed}"
    every = [
        *settings,
        f"exp.seed={seed}",
        f"exp.exp_name={exp_name}",
        f"exp.save_dir={runs}",
        "exp.overwrite=true",
        f"data.backlit_images_path={photos[0]}",
        f"data.welllit_images_path={photos[1]}",
        f"data.val_backlit_path={pairs}/backlit",
        f"data.val_gt_path={pairs}/ground_truth",
        f"data.val_list={SPLITS[0]}",
        *([f"data.leave_out=[{', '.join(SPLITS)}]"] if paired else []),
    ]
    command = [sys.executable, "train_rave.py", "--cfg", cfg, *(part for s in every for part in ("--set", s))]
    print(f"{name}, seed {seed}", flush=True)
    result = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        row = compact(summarise(REPO_ROOT / runs / exp_name))
    else:  # a training that breaks down is a result as well
        row = {"broke": (result.stderr.strip().splitlines() or ["?"])[-1]}
        if "results turned white" not in row["broke"]:
            raise UserError(f"{name}, seed {seed}: {row['broke']}")
    known = _known()  # others may have added theirs
    known.setdefault(name, {})[str(seed)] = row
    write_text(RESULTS, json.dumps(known, indent=1) + "\n")
    print(json.dumps({key: row.get(key) for key in ("best", "last", "broke")}), flush=True)


def compact(found: dict) -> dict:
    """Of a run's figures: the validation curve of the guided phase, its best and last point, the snapshot that the run
    keeps.
    """
    names = ("iteration", "val_psnr", "val_ssim", "val_brightness", "seconds")
    curve = [{name: point[name] for name in names} for point in found["validation"] if point["phase"] == "rave"]
    source = found["provenance"]
    return {
        "curve": curve,
        "best": max(curve, key=lambda point: point["val_psnr"]),
        "last": curve[-1],
        "kept": {name: round(found["summary"]["best"][name], 4) for name in names[1:4]},
        "input": {name: found["summary"]["best"][name] for name in ("val_psnr_input", "val_ssim_input")},
        "collapses": found["summary"]["collapses"],
        **{name: source[name] for name in ("command", "commit", "uncommitted_changes", "hardware")},
    }


if __name__ == "__main__":
    run(main)
