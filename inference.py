"""Enhance backlit photos with trained weights.

python inference.py PHOTOS                     a folder; results go to PHOTOS_enhanced
python inference.py a.jpg b.png --output out   files
python inference.py --cfg my.yaml --strength 0.7 --side-by-side
torchrun --nproc-per-node 2 inference.py PHOTOS   each process takes every second photo
"""

if __name__ == "__main__":  # before other imports: Ctrl-C in the middle of them is no traceback
    from common.interrupt import without_traceback

    without_traceback()

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.cli import EXIT_OK, EXIT_SOME_FAILED, add_output, make_parser, named_as_typed, run
from common.console import print_json, quietly, say
from common.errors import UserError

if TYPE_CHECKING:
    from serving.jobs import Job
    from serving.pipeline import Outcome
    from serving.run import Device, Plan, Run

FLAGS = {
    "output": "data.output",
    "checkpoint": "model.checkpoint",
    "format": "save.format",
    "same_for": "model.same_for",
    "highlights": "save.highlights",
    "denoise": "save.denoise",
}  # flag -> config key, for text
NUMBERS = {"strength": "model.strength", "map_scale": "model.map_scale"}
SHOWN = 20  # lines of one kind about photos; the rest is counted
SWITCHES = {
    "dither": "save.dither",
    "side_by_side": "save.side_by_side",
    "illumination": "save.illumination",
    "skip_existing": "save.skip_existing",
    "overwrite": "save.overwrite",
}


def main(argv: list[str]) -> int:
    """Parse, validate, enhance. Returns the exit code; raises UserError for a user's mistake."""
    parser = make_parser(__doc__, "configs/inference/inference.yaml", example="save.quality=90")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="folders (searched recursively) and photos")
    parser.add_argument("-i", "--input", nargs="+", metavar="PATH", help="the same as INPUT")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder of results (default: FOLDER_enhanced beside the photos' folder)"
    )
    parser.add_argument("-c", "--checkpoint", metavar="FILE", help="weights of the network, .safetensors or .pth")
    parser.add_argument("--strength", metavar="F", help="0 (the photo) to 1 (the full result), or auto: by each photo")
    parser.add_argument(
        "--same-for", metavar="S", help="folder: the photos of a folder are one scene, brightened alike"
    )
    parser.add_argument("--format", metavar="F", help="keep, png, jpeg (or jpg), webp or tiff (or tif)")
    parser.add_argument(
        "--map-scale", metavar="N", help="2 or 4: for previews, the map at a half or a quarter of the sides"
    )
    parser.add_argument("--highlights", metavar="H", help="clip, hue or shoulder: what becomes of values above white")
    parser.add_argument("--denoise", metavar="D", help="off, auto or always: remove noise from brightened shadows")
    parser.add_argument("--dither", action="store_true", help="against banding where shadows are brightened much")
    parser.add_argument("--side-by-side", action="store_true", help="also write photo and result as one picture")
    parser.add_argument("--illumination", action="store_true", help="also write the illumination map")
    parser.add_argument("--skip-existing", action="store_true", help="leave out photos whose result is there")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files of the results' names, whoever wrote them"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be written where, write nothing")
    add_output(parser, "what became of each photo, counts, device, seconds")
    args = parser.parse_args(argv)
    with named_as_typed(_typed(args)), quietly(args.quiet):
        return _enhance(args)


def _enhance(args: argparse.Namespace) -> int:
    # each where it is first needed: --help and mistakes are reported before slow imports
    from configs.load import load_config
    from configs.schema import InferenceConfig

    numbers = [f"{key}={getattr(args, flag)}" for flag, key in NUMBERS.items() if getattr(args, flag) is not None]
    config = load_config(InferenceConfig, args.cfg, [*args.overrides, *numbers], _flags(args))

    from serving.run import enhance_folder, make_plan

    plan = make_plan(config)
    if args.dry_run:
        _print_plan(args, plan)
        return EXIT_OK
    run = enhance_folder(plan, lambda device: _print_begin(plan, device))
    if run.main:
        _print_outcome(run, plan.jobs)
        if args.json:
            print_json(_summary(run, plan), "results", _results(run.outcome, plan.jobs))
    return EXIT_SOME_FAILED if run.outcome.failures else EXIT_OK


def _print_plan(args: argparse.Namespace, plan: "Plan") -> None:
    """What a dry run tells."""
    from configs.changes import as_yaml, changed

    differs = as_yaml(changed(plan.config.model_dump(), type(plan.config))).splitlines()
    say(f"# {args.cfg}, what differs from the defaults", *differs, "")
    say(f"weights: {plan.weights}", *_places(plan))
    say(*_some([f"{job.source} -> {job.target}" for job in plan.jobs]))
    if args.json:
        results = ({"photo": str(job.source), "result": str(job.target)} for job in plan.jobs)
        print_json({"dry_run": True, "weights": str(plan.weights), "replaced": len(plan.replaces)}, "results", results)


def _print_begin(plan: "Plan", device: "Device") -> None:
    say(f"weights: {plan.weights}", f"device:  {device}", *_places(plan))


def _print_outcome(run: "Run", jobs: list["Job"]) -> None:
    outcome, seconds = run.outcome, run.seconds
    alike: dict[str, list[str]] = {}
    for path, note in outcome.notes:
        alike.setdefault(note, []).append(f"note: {path}: {note}")
    for lines in alike.values():
        say(*_some(lines))
    counts = f"enhanced {outcome.enhanced}, skipped {outcome.skipped}, failed {len(outcome.failures)}"
    per_photo, per_second = seconds / max(outcome.enhanced, 1), outcome.pixels / 1e6 / max(seconds, 1e-9)
    speed = f"{per_photo:.2f} s/photo, {per_second:.2f} megapixels/s"
    say(f"{counts} of {len(jobs)} in {seconds:.1f} s ({speed})")
    if outcome.fault:
        print(f"\n{outcome.fault}This is a bug, please report it; the other photos were done.\n", file=sys.stderr)
    for path, reason in outcome.failures:
        say(f"failed: {path}: {reason}", file=sys.stderr)


def _places(plan: "Plan") -> list[str]:
    """How many photos, the folders that are written into, and what is replaced there."""
    first, *beside = plan.folders()
    lines = [
        f"photos:  {len(plan.jobs)}{_left_out(plan.inputs)}",
        f"output:  {first}",
        *(f"         {f}" for f in beside),
    ]
    if count := len(plan.replaces):
        results = f"{count:,} result{'' if count == 1 else 's'}"
        overwrite = plan.config.save.overwrite
        whose = " or other files of their names (--overwrite)" if overwrite else " (--skip-existing keeps them)"
        lines.append(f"         replaces {results} of an earlier run{whose}")
    return lines


def _summary(run: "Run", plan: "Plan") -> dict[str, Any]:
    """What `--json` tells of the run as a whole."""
    outcome, choice = run.outcome, run.device.choice
    return {
        "output": str(plan.output),
        "weights": str(plan.weights),
        "device": str(choice),
        "runs_on": {"device": choice.device, "precision": choice.precision, "backend": choice.backend},
        "photos": len(plan.jobs),
        "enhanced": outcome.enhanced,
        "skipped": outcome.skipped,
        "failed": [{"photo": str(path), "reason": reason} for path, reason in outcome.failures],
        "replaced": len(plan.replaces & outcome.seconds.keys()),
        "seconds": round(run.seconds, 2),
    }


def _some(lines: list[str]) -> list[str]:
    """The lines; of many, the first, and how many more there are."""
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"... and {len(lines) - SHOWN:,} more"]


def _results(outcome: "Outcome", jobs: list["Job"]) -> Iterator[dict[str, Any]]:
    """What became of each photo, in the order of the jobs."""
    reasons, notes = dict(outcome.failures), dict(outcome.notes)
    for job in jobs:
        source, result = str(job.source), str(job.target)
        if job.source in reasons:
            yield {"photo": source, "result": None, "status": "failed", "reason": reasons[job.source]}
        elif job.source in outcome.seconds:
            taken, note = round(outcome.seconds[job.source], 3), notes.get(job.source)
            note = {"note": note} if note else {}
            yield {"photo": source, "result": result, "status": "enhanced", "seconds": taken, **note}
        else:
            yield {"photo": source, "result": result, "status": "skipped", "reason": "its result is there"}


def _left_out(inputs: list[str]) -> str:
    """Photos in the folders that cannot be read here, as a remark."""
    from data.listing import left_out

    text = left_out([path for path in inputs if os.path.isdir(path)])  # noqa: PTH112
    return f" (left out: {text})" if text else ""


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as {config key: value}, so that they pass through the config's own validation."""
    if args.inputs and args.input:
        raise UserError("expected photos as INPUT or with --input, found both")
    flags: dict[str, Any] = {key: getattr(args, flag) for flag, key in FLAGS.items() if getattr(args, flag) is not None}
    flags |= {key: True for switch, key in SWITCHES.items() if getattr(args, switch)}
    return flags | ({"data.input": args.inputs or args.input} if args.inputs or args.input else {})


def _typed(args: argparse.Namespace) -> dict[str, str]:
    """{config key: what was typed for it}, of what was."""
    keys = {**FLAGS, **SWITCHES, **NUMBERS}
    typed = {
        key: f"--{name.replace('_', '-')}" for name, key in keys.items() if getattr(args, name) not in (None, False)
    }
    return typed | ({"data.input": "INPUT" if args.inputs else "--input"} if args.inputs or args.input else {})


if __name__ == "__main__":
    run(main)
