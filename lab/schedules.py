"""How soon each method has most of its gain: UNet steps and seconds to 95 %, and what the published lengths would take.

python -m lab.schedules FOLDER [FOLDER ...]     # what `python -m tools compare-methods --out FOLDER` left, seed by seed

Their seconds hold all that the guidance needs: embeddings and direction, or guidance training and enhanced sets.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from common.cli import EXIT_OK, ArgumentParser, run
from common.files import write_text
from common.paths import REPO_ROOT
from configs.load import load_config
from configs.schema import TrainConfig
from tools.compare_methods import METHODS

RESULTS = REPO_ROOT / "docs" / "results" / "schedules.json"
GAIN = 0.95  # of the way from the untouched input's PSNR to the run's best
CLAIM = 25  # times less training time, of the RAVE paper
RAVE_BEST = 3100  # iterations at which the release's earlier RAVE weights lie, reconstruction included


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    args = parser.parse_args(argv)
    rows: dict[str, dict[str, dict]] = {method: {} for method in METHODS}
    for folder in args.folders:
        for method, cfg in METHODS.items():
            row = figures(folder / Path(cfg).stem)
            rows[method][str(row.pop("seed"))] = row
    write_text(RESULTS, json.dumps(rows, indent=1) + "\n")
    return EXIT_OK


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
        "seed": found["config"]["exp"]["seed"],
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
        "| method | seeds | best: mean PSNR / dB (range) | UNet steps to 95 % of the gain (range) | guidance steps by "
        "then | seconds (range) | times RAVE's: UNet steps, seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    rave = rows["RAVE"].values()
    for method, seeds in rows.items():
        done = list(seeds.values())
        soon = {name: [row["reached"][name] for row in done] for name in done[0]["reached"]}
        times = [fmean(soon[name]) / fmean(row["reached"][name] for row in rave) for name in ("unet_steps", "seconds")]
        cells = [
            _mean_and_range([row["best"]["val_psnr"] for row in done], ".2f"),
            _mean_and_range(soon["unet_steps"], ".0f"),
            f"{fmean(soon['guidance_steps']):.0f}",
            _mean_and_range(soon["seconds"], ".0f"),
            f"{times[0]:.1f}, {times[1]:.1f}",
        ]
        lines.append(f"| {method} | {len(done)} | {' | '.join(cells)} |")
    one = next(iter(rave))
    what = (
        f"The first validation with {100 * GAIN:.0f} % of the run's own gain, from the untouched input to its best. "
        "Seconds of training with all that the guidance needs, validation apart; other work ran on the same cores. "
        f"Trained at {one['side']} px, validated at {one['val_side']} px every {one['every']} iterations, untouched "
        f"input {one['untouched']:.2f} dB. "
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
    steps = [next(iter(rows[method].values())) for method in ("CLIP-LIT", "RAVE")]
    what = f"`make compare`, {steps[0]['side']} px, batch 4, embeddings cached"
    costs[what] = [row["seconds_per_step"] for row in steps]
    of, rave = (load_config(TrainConfig, cfg).model_dump() for cfg in ("clip_lit.yaml", "rave.yaml"))
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
