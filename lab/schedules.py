"""How soon each method has most of its gain: UNet steps and seconds to 95 %, under two schedules.

python -m lab.schedules --compared runs/compare     the runs that `make compare` left there
python -m lab.schedules --pairs DIR --unpaired DIR [--schedules ours published] [--seeds 0 1 2]

DIR of pairs holds backlit/ and ground_truth/, for validation; DIR of unpaired photos backlit/ and welllit/. The methods
are those of `make compare`, of one UNet, start and rate. "ours": as many UNet steps for each; "published": the
releases' iterations, divided. Each run starts without caches, so that its seconds hold all that its guidance needs:
embeddings and direction, or guidance training and enhanced sets. Finished runs are in docs/results/schedules.json and
not done again.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from common.cli import EXIT_OK, ArgumentParser, run
from common.errors import UserError
from common.files import write_text
from common.paths import REPO_ROOT
from configs.load import load_config
from configs.schema import TrainConfig
from lab.claims import OFFLINE, SPLITS
from tools.compare_methods import METHODS

RESULTS = REPO_ROOT / "docs" / "results" / "schedules.json"
GAIN = 0.95  # of the way from the untouched input's PSNR to the run's best
DIVISOR = 50  # of the published iterations
SIDE, VAL_SIDE, EVERY = 48, 64, 5  # pixels of training and of validation; iterations between two validations
TITLES = {"compare": "`make compare`", "ours": "one budget", "published": f"published / {DIVISOR}"}
CLAIM = 25  # times less training time, of the RAVE paper
PUBLISHED = {"CLIP-LIT": "clip_lit.yaml", "CLIP-LIT-Latent": "clip_lit_latent.yaml", "RAVE": "rave.yaml"}
RAVE_BEST = 3100  # iterations at which the release's earlier RAVE weights lie, reconstruction included
LENGTHS = {  # keys that make a schedule
    "train": ("num_iters", "num_rounds"),
    "unet_model": ("num_reconstruction_iters", "num_round_iters"),
    "guidance_model": ("num_pretrain_iters", "num_refine_iters"),
}
OURS = {
    "train": {"num_iters": 120, "num_rounds": 2},
    "unet_model": {"num_reconstruction_iters": 40, "num_round_iters": 60},
    "guidance_model": {"num_pretrain_iters": 400, "num_refine_iters": 300},
}


def lengths(schedule: str, method: str) -> dict[str, dict[str, int]]:
    """Section -> key -> iterations (rounds: their number) of a method under "ours" or "published"."""
    if schedule == "ours":
        return OURS
    return {
        section: {key: value if key == "num_rounds" else value and value // DIVISOR for key, value in values.items()}
        for section, values in published(method).items()
    }


def published(method: str) -> dict[str, dict[str, int]]:
    """The same, of the release."""
    config = load_config(TrainConfig, PUBLISHED[method])
    return {section: {key: getattr(getattr(config, section), key) for key in keys} for section, keys in LENGTHS.items()}


def configured(schedule: str, method: str, seed: int, args) -> TrainConfig:
    """The method's quick-start config with other photos, the UNet of the offline configs, and these lengths."""
    name = f"{schedule}_{METHODS[method].removesuffix('_quickstart.yaml')}_seed{seed}"
    settings = [
        f"data.backlit_images_path={args.unpaired}/backlit",
        f"data.welllit_images_path={args.unpaired}/welllit",
        f"data.val_backlit_path={args.pairs}/backlit",
        f"data.val_gt_path={args.pairs}/ground_truth",
        f"data.val_list={SPLITS[0]}",
        *(f"data.image_size={SIDE}", f"data.val_size={VAL_SIDE}", f"train.val_iter={EVERY}"),
        *(f"exp.save_dir={args.runs}", f"exp.cache_dir={args.runs}/cache", f"exp.exp_name={name}"),
        *(f"exp.seed={seed}", "exp.overwrite=true", "train.preview_photos=0"),
    ]
    config = load_config(TrainConfig, METHODS[method], settings)
    guidance = {"max_extensions": 0, "image_size": VAL_SIDE, "cached_augmentations": 4, "nearest_tokens": 0}
    unet = load_config(TrainConfig, OFFLINE["paired"]).unet_model.model_dump() | {"max_extensions": 0}
    tree = config.model_dump()
    tree["unet_model"] = unet
    tree["guidance_model"] |= guidance
    for section, values in lengths(schedule, method).items():
        tree[section] |= values
    return TrainConfig.model_validate(tree)


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--compared", metavar="FOLDER", help="read the runs of `make compare`, train none")
    parser.add_argument("--pairs", help="folder of backlit/ and ground_truth/")
    parser.add_argument("--unpaired", help="folder of backlit/ and welllit/")
    parser.add_argument("--schedules", nargs="+", choices=("ours", "published"), default=["ours", "published"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", default="runs/schedules", help="folder of the runs (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.compared:
        for method, cfg in METHODS.items():
            _keep("compare", method, 0, figures(Path(args.compared) / Path(cfg).stem))
        return EXIT_OK
    for name in ("pairs", "unpaired"):
        if getattr(args, name) is None:
            raise UserError(f"--{name}: expected a folder of photos, or --compared")
    for schedule in args.schedules:
        for seed in args.seeds:
            for method in METHODS:
                if str(seed) not in _known().get(f"{schedule}/{method}", {}):
                    config = configured(schedule, method, seed, args)
                    _keep(schedule, method, seed, _trained(config))
    return EXIT_OK


def _known() -> dict:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def _keep(schedule: str, method: str, seed: int, row: dict) -> None:
    known = _known()
    known.setdefault(f"{schedule}/{method}", {})[str(seed)] = row
    write_text(RESULTS, json.dumps(known, indent=1) + "\n")
    print(schedule, method, seed, row["reached"], flush=True)


def _trained(config: TrainConfig) -> dict:
    from training.loop import train

    shutil.rmtree(config.exp.cache_dir, ignore_errors=True)
    return figures(train(config))


def figures(folder: Path) -> dict:
    """Of a finished run: its curve over steps of the UNet and of the guidance, and where it has 95 % of its gain."""
    from lab.runs import summarise
    from training.tracking import read_metrics

    found = summarise(folder)
    lines = read_metrics(folder / "metrics.jsonl")
    untouched = found["summary"]["best"]["val_psnr_input"]
    curve = steps_and_scores(lines)
    best = max(curve, key=lambda point: point["val_psnr"])
    source = found["provenance"]
    return {
        "untouched": untouched,
        "best": best,
        "last": curve[-1],
        "reached": reached(curve, untouched),
        "restarts": found["summary"]["restarts"],
        "collapses": found["summary"]["collapses"],
        "seconds_per_step": found["seconds_per_step_median"],
        "side": found["config"]["data"]["image_size"],
        "val_side": found["config"]["data"]["val_size"] or found["config"]["data"]["image_size"],
        "every": found["config"]["train"]["val_iter"],
        "curve": curve,
        **{name: source[name] for name in ("command", "commit", "uncommitted_changes", "hardware")},
    }


def steps_and_scores(lines: list[dict]) -> list[dict]:
    """Each validation of a run's log: steps of the UNet and of the guidance until then, seconds, PSNR and SSIM."""
    ends: dict[str, int] = {}  # phase -> its last iteration; a phase logs its last one
    for line in lines:
        if "loss" in line:
            ends[line["phase"]] = line["iteration"]
    points, starts = [], dict(zip(ends, [0, *ends.values()], strict=False))
    for line in lines:
        if "val_psnr" not in line:
            continue
        of_guidance = sum(
            min(end, line["iteration"]) - starts[phase]
            for phase, end in ends.items()
            if phase.startswith(("initialisation", "refinement")) and starts[phase] < line["iteration"]
        )
        steps = {"unet_steps": line["iteration"] - of_guidance, "guidance_steps": of_guidance}
        scores = {name: round(line[name], 4) for name in ("seconds", "val_psnr", "val_ssim")}
        points.append(steps | scores)
    return points


def reached(curve: list[dict], untouched: float) -> dict:
    """The first point of a curve with 95 % of the run's gain: of its best PSNR over that of the untouched input."""
    best = max(point["val_psnr"] for point in curve)
    return next(point for point in curve if point["val_psnr"] >= untouched + GAIN * (best - untouched))


# ---------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------


def table(rows: dict, sources: Callable[[dict, str], str]) -> str:
    """Steps and seconds to 95 % of each method's own gain. sources: hardware and commits of such rows, as text."""
    lines = [
        "| schedule | method | seeds | best: mean PSNR / dB (range) | UNet steps to 95 % of the gain (range) | "
        "guidance steps by then | seconds (range) | times RAVE's: UNet steps, seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for schedule, title in TITLES.items():
        rave = list(rows.get(f"{schedule}/RAVE", {}).values())
        for method in METHODS:
            done = list(rows.get(f"{schedule}/{method}", {}).values())
            if not done:
                continue
            soon = {name: [row["reached"][name] for row in done] for name in done[0]["reached"]}
            times = [
                fmean(soon[name]) / fmean(row["reached"][name] for row in rave) for name in ("unet_steps", "seconds")
            ]
            cells = [
                _mean_and_range([row["best"]["val_psnr"] for row in done], ".2f"),
                _mean_and_range(soon["unet_steps"], ".0f"),
                f"{fmean(soon['guidance_steps']):.0f}",
                _mean_and_range(soon["seconds"], ".0f"),
                f"{times[0]:.1f}, {times[1]:.1f}",
            ]
            lines.append(f"| {title} | {method} | {len(done)} | {' | '.join(cells)} |")
        if rave:
            side, val_side, every, untouched = (rave[0][name] for name in ("side", "val_side", "every", "untouched"))
            notes.append(
                f"{title}: trained at {side} px, validated at {val_side} px every {every} iterations, "
                f"untouched input {untouched:.2f} dB"
            )
    what = (
        f"The first validation with {100 * GAIN:.0f} % of the run's own gain, from the untouched input to its best. "
        "Seconds of training with all that the guidance needs, validation apart; other work ran on the same cores. "
        f"{'; '.join(notes)}. "
    )
    return "\n".join(lines) + f"\n\n{what}{sources(rows, 'schedules')}"


def published_table(rows: dict, full_size: dict[str, dict]) -> str:
    """What the releases' iterations would take: computed from measured costs of a step, not run.

    full_size: figures of runs of a few steps with encoders of the published size, "clip_lit" and "rave".
    """
    costs = {
        "full-size encoders, 256 px, batch 4, photos encoded in each step": [
            full_size[name]["seconds_per_step_median"] for name in ("clip_lit", "rave")
        ],
    }
    for schedule, title in TITLES.items():
        steps = [rows.get(f"{schedule}/{method}", {}).get("0") for method in ("CLIP-LIT", "RAVE")]
        if all(steps):
            what = f"{title}, {steps[0]['side']} px, batch 4, embeddings cached"
            costs[what] = [row["seconds_per_step"] for row in steps]
    of, rave = published("CLIP-LIT"), published("RAVE")
    rounds, start = of["train"]["num_rounds"], of["unet_model"]["num_reconstruction_iters"]
    lines = [
        "| step costs measured with | s a step: UNet, initialisation, refinement | CLIP-LIT, whole | RAVE, whole | "
        "times | RAVE, to its earlier best | times |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, (clip_lit_step, rave_step) in costs.items():
        lift, learn, refine = (clip_lit_step[name] for name in ("enhancement 1", "initialisation", "refinement 1"))
        whole = (
            of["guidance_model"]["num_pretrain_iters"] * learn
            + start * clip_lit_step["reconstruction"]
            + rounds * of["unet_model"]["num_round_iters"] * lift
            + rounds * of["guidance_model"]["num_refine_iters"] * refine
        )
        cells = [f"{lift:.2g}, {learn:.2g}, {refine:.2g}", f"{whole / 3600:.1f} h"]
        for guided in (rave["train"]["num_iters"], RAVE_BEST - start):
            seconds = start * rave_step["reconstruction"] + guided * rave_step["rave"]
            cells += [f"{seconds / 3600:.1f} h", f"{whole / seconds:.1f}"]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    unet = start + rounds * of["unet_model"]["num_round_iters"]
    learned = of["guidance_model"]["num_pretrain_iters"] + rounds * of["guidance_model"]["num_refine_iters"]
    note = (
        f"Computed, not run. CLIP-LIT takes {unet:,} steps of the UNet and {learned:,} of the guidance, RAVE "
        f"{start + rave['train']['num_iters']:,} of the UNet, {RAVE_BEST:,} to its earlier best weights. If a guidance "
        f"step cost nothing, CLIP-LIT would take {unet / RAVE_BEST:.1f} times as long as these; if as much as a UNet "
        f"step, {(unet + learned) / RAVE_BEST:.1f} times; for {CLAIM} times it would have to cost "
        f"{(CLAIM * RAVE_BEST - unet) / learned:.1f} UNet steps."
    )
    return "\n".join(lines) + f"\n\n{note}"


def _mean_and_range(values: list[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return f"{fmean(values):{form}}" + (f" ({low} to {high})" if low != high else "")


if __name__ == "__main__":
    run(main)
