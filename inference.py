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

from common.cli import EXIT_OK, EXIT_SOME_FAILED, Flag, Given, add_output, given, make_parser, named_as_typed, run
from common.console import print_json, quietly, say
from common.errors import UserError

if TYPE_CHECKING:
    from serving.jobs import Job
    from serving.outcome import Outcome
    from serving.run import Device, Plan, Run

FLAGS = (
    Flag(
        "--output",
        "data.output",
        "folder of results (default: FOLDER_enhanced beside the photos' folder)",
        "DIR",
        short="-o",
    ),
    Flag("--checkpoint", "model.checkpoint", "weights of the network, .safetensors or .pth", "FILE", short="-c"),
    Flag(
        "--strength",
        "model.strength",
        "0 (the photo) to 1 (the full result), or auto: by each photo's brightness",
        "F",
        parsed=True,
    ),
    Flag("--same-for", "model.same_for", "folder: the photos of a folder are one scene, brightened alike", "S"),
    Flag("--format", "save.format", "keep, png, jpeg (or jpg), webp or tiff (or tif)", "F"),
    Flag(
        "--map-scale",
        "model.map_scale",
        "2 or 4: for previews, the map at a half or a quarter of the sides",
        "N",
        parsed=True,
    ),
    Flag("--highlights", "save.highlights", "clip, hue or shoulder: what becomes of values above white", "H"),
    Flag("--denoise", "save.denoise", "off, auto or always: remove noise from brightened shadows", "D"),
    Flag("--dither", "save.dither", "against banding where shadows are brightened much"),
    Flag("--side-by-side", "save.side_by_side", "also write photo and result as one picture"),
    Flag("--illumination", "save.illumination", "also write the illumination map"),
    Flag("--skip-existing", "save.skip_existing", "leave out photos whose result is there"),
    Flag("--overwrite", "save.overwrite", "replace files of the results' names, whoever wrote them"),
)
SHOWN = 20  # lines of one kind about photos; the rest is counted


def main(argv: list[str]) -> int:
    """Parse, validate, enhance. Returns the exit code; raises UserError for a user's mistake."""
    parser = make_parser(__doc__, "configs/inference/inference.yaml", example="save.quality=90")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="folders (searched recursively) and photos")
    parser.add_argument("-i", "--input", nargs="+", action="extend", metavar="PATH", help="the same as INPUT")
    for flag in FLAGS:
        flag.add_to(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be written where, write nothing")
    add_output(parser, "what became of each photo, counts, device, seconds")
    args = parser.parse_args(argv)
    if args.inputs and args.input:
        raise UserError("expected photos as INPUT or with --input, found both")
    flags = given(args, FLAGS)
    if args.inputs or args.input:
        flags.values["data.input"] = args.inputs or args.input
        flags.typed["data.input"] = "INPUT" if args.inputs else "--input"
    elif not any(override.startswith("data.input=") for override in args.overrides):
        flags.typed["data.input"] = "no INPUT was named (such as: python inference.py PHOTOS); the config's data.input"
    with named_as_typed(flags.typed), quietly(args.quiet):
        return _enhance(args, flags)


def _enhance(args: argparse.Namespace, flags: Given) -> int:
    # each where it is first needed: --help and mistakes are reported before slow imports
    from configs.load import load_config
    from configs.schema import InferenceConfig

    config = load_config(InferenceConfig, args.cfg, flags.overrides, flags.values)

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
        say(*_some(lines), file=sys.stderr)
    counts = f"enhanced {outcome.enhanced}, skipped {outcome.skipped}, failed {len(outcome.failures)}"
    per_photo, per_second = seconds / max(outcome.enhanced, 1), outcome.pixels / 1e6 / max(seconds, 1e-9)
    speed = f" ({per_photo:.2f} s/photo, {per_second:.2f} megapixels/s)" if outcome.enhanced else ""
    say(f"{counts} of {len(jobs)} in {seconds:.1f} s{speed}")
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
    if count := plan.others:
        what = "made with other settings or weights, or of photos changed since (--skip-existing)"
        lines.append(f"         keeps {_counted(count)} {what}")
    if count := len(plan.replaces):
        whose = f" (--skip-existing keeps {'it' if count == 1 else 'them'})"
        if plan.config.save.overwrite:
            whose = " or other files of their names (--overwrite)"
        lines.append(f"         replaces {_counted(count)} of an earlier run{whose}")
    return lines


def _counted(results: int) -> str:
    return f"{results:,} result{'' if results == 1 else 's'}"


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
        "kept_of_other_settings": plan.others,
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


if __name__ == "__main__":
    run(main)
