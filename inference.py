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
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from common.cli import EXIT_OK, EXIT_SOME_FAILED, add_output, make_parser, named_as_typed, run
from common.console import print_json, quietly, say
from common.errors import UserError
from common.files import make_folder

if TYPE_CHECKING:
    from accelerate import PartialState

    from serving.jobs import Job
    from serving.pipeline import Outcome

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
    from configs.changes import as_yaml, changed
    from configs.load import load_config
    from configs.schema import InferenceConfig
    from models.shipped import find_weights

    numbers = [f"{key}={getattr(args, flag)}" for flag, key in NUMBERS.items() if getattr(args, flag) is not None]
    config = load_config(InferenceConfig, args.cfg, [*args.overrides, *numbers], _flags(args))
    inputs = [config.data.input] if isinstance(config.data.input, str) else config.data.input
    if inputs is None:
        raise UserError(
            "data.input: expected a folder or photos, found nothing; for example: python inference.py PHOTOS"
        )
    checkpoint = find_weights(config.model.checkpoint, "model.checkpoint").resolve()

    from serving.jobs import plan_outputs, replaced

    save = config.save
    if save.skip_existing and save.overwrite:
        raise UserError("save.skip_existing, save.overwrite: expected at most one of them, found both")
    extras = [what for what in ("side_by_side", "illumination") if getattr(save, what)]
    jobs = plan_outputs(
        inputs, config.data.output, save.format, keep=save.skip_existing, overwrite=save.overwrite, extras=extras
    )
    there = set() if save.skip_existing else replaced(jobs, extras)
    where = [*_outputs(jobs[0], extras), *_replaces(len(there), save.overwrite)]
    if args.dry_run:
        say(
            f"# {args.cfg}, what differs from the defaults",
            *as_yaml(changed(config.model_dump(), InferenceConfig)).splitlines(),
        )
        say("", f"weights: {checkpoint}", f"photos:  {len(jobs)}{_left_out(inputs)}", *where)
        say(*_some([f"{job.source} -> {job.target}" for job in jobs]))
        if args.json:
            results = ({"photo": str(job.source), "result": str(job.target)} for job in jobs)
            print_json({"dry_run": True, "weights": str(checkpoint), "replaced": len(there)}, "results", results)
        return EXIT_OK

    created = not jobs[0].output.exists()
    make_folder(jobs[0].output, "data.output")

    from data.outputs import record_result
    from serving.enhancer import Enhancer
    from serving.pipeline import enhance_files, settings

    processes = _processes(config.model.device)
    rank, world = (processes.process_index, processes.num_processes) if processes else (0, 1)
    enhancer = Enhancer(checkpoint, **config.model.model_dump(exclude={"checkpoint", "strength", "same_for"}))
    if rank == 0:
        say(f"weights: {checkpoint}", f"device:  {enhancer.choice}{f', {world} processes' if processes else ''}")
        say(f"photos:  {len(jobs)}{_left_out(inputs)}", *where)
    start = time.perf_counter()
    outcome = enhance_files(
        jobs[rank::world],
        enhancer,
        **settings(config),
        scenes=jobs,
        record=partial(record_result, writer=str(rank) if rank else ""),
    )
    if processes:
        outcome = _gathered(outcome, jobs)
        processes.destroy_process_group()
    if rank:
        return EXIT_SOME_FAILED if outcome.failures else EXIT_OK
    if created:
        with contextlib.suppress(OSError):
            jobs[0].output.rmdir()  # which only takes an empty folder
    seconds = time.perf_counter() - start
    code = _report(outcome, jobs, seconds)
    if args.json:
        choice, failed = enhancer.choice, [{"photo": str(path), "reason": reason} for path, reason in outcome.failures]
        runs_on = {"device": choice.device, "precision": choice.precision, "backend": choice.backend}
        place = {"output": str(jobs[0].output), "weights": str(checkpoint), "device": str(choice), "runs_on": runs_on}
        counts = {"photos": len(jobs), "enhanced": outcome.enhanced, "skipped": outcome.skipped, "failed": failed}
        counts |= {"replaced": len(there & outcome.seconds.keys()), "seconds": round(seconds, 2)}
        print_json(place | counts, "results", _results(outcome, jobs))
    return code


def _some(lines: list[str]) -> list[str]:
    """The lines; of many, the first, and how many more there are."""
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"... and {len(lines) - SHOWN:,} more"]


def _outputs(job: "Job", extras: list[str]) -> list[str]:
    """The folders that results, and what is written beside them, go to."""
    return [f"output:  {job.output}", *(f"         {job.folder_beside(extra)}" for extra in extras)]


def _replaces(count: int, overwrite: bool) -> list[str]:
    """A line on the files of an earlier run that this one replaces, where there are any."""
    results = f"{count:,} result{'' if count == 1 else 's'}"
    whose = " or other files of their names (--overwrite)" if overwrite else " (--skip-existing keeps them)"
    return [f"         replaces {results} of an earlier run{whose}"] if count else []


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


def _processes(device: str) -> "PartialState | None":
    """This process among those that torchrun or `accelerate launch` started, or None where it is the only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    import torch
    from accelerate import PartialState

    # told so, for processes without a GPU to find each other: otherwise each would enhance all photos
    return PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())


def _gathered(outcome: "Outcome", jobs: list["Job"]) -> "Outcome":
    """What became of all processes' photos, in the order of the jobs; every process gets it."""
    from accelerate.utils import gather_object

    from serving.pipeline import together

    return together(gather_object([outcome]), jobs)


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


def _report(outcome: "Outcome", jobs: list["Job"], seconds: float) -> int:
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
    return EXIT_SOME_FAILED if outcome.failures else EXIT_OK


if __name__ == "__main__":
    run(main)
