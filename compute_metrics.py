"""Measure a folder of results against ground truths: PSNR, SSIM, LPIPS -> a table, JSON and CSV.

    python compute_metrics.py --gt GROUND_TRUTHS --enhanced RESULTS

Files are matched by sub-folder and exact name without suffix; `name(1).png`, `name(2).png` belong to `name.*`.
Two protocols, named everywhere: `rgb` (the community's) and `paper` (what the RAVE release computes; one result
per `name(1)`, `name(2)` family). Brightness is never matched to the ground truth's.
Exit code 0, 2 for a mistake of the user's, 3 when some files could not be measured.
"""

if __name__ == "__main__":  # before other imports: Ctrl-C in the middle of them is no traceback
    from common.interrupt import without_traceback

    without_traceback()

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import EXIT_OK, EXIT_SOME_FAILED, Flag, add_output, given, make_parser, named_as_typed, run
from common.console import note, quietly, say
from common.errors import UserError
from common.files import real_path, write_text
from common.paths import find_folder
from common.tables import lines
from common.written import check_replaceable
from metrics.measurement import CSV_HEADINGS, METRICS, Measurement, Values, measure_folder

if TYPE_CHECKING:
    from configs.schema import MetricsConfig

FLAGS = (
    Flag("--gt", "data.gt_images_path", "folder of ground truths", "DIR"),
    Flag("--enhanced", "data.enhanced_images_path", "folder of results", "DIR"),
    Flag(
        "--json",
        "metrics.json_file",
        "JSON to write (default: ENHANCED_metrics.json beside the folder of results)",
        "FILE",
    ),
    Flag("--csv", "metrics.csv_file", "CSV to write (default: beside the JSON)", "FILE"),
    Flag(
        "--report",
        "metrics.report_file",
        "HTML page to write with the worst and best results and difference maps",
        "FILE",
    ),
    Flag("--protocol", "metrics.protocol", "rgb, paper or both", "NAME"),
    Flag("--lpips", "metrics.lpips", "auto, on or off", "MODE"),
    Flag("--stlpips", "metrics.stlpips", "auto, alex, vgg or off", "MODE"),
    Flag("--overwrite", "metrics.overwrite", "replace files of these names, whoever wrote them"),
)
ALL_SHOWN = 40  # images; of more, only the EXTREMES worst and best are shown
EXTREMES = 5
UNMATCHED_SHOWN = 10


def main(argv: list[str]) -> int:
    """Returns the exit code. Raises UserError for a user's mistake."""
    parser = make_parser(__doc__, default_cfg="metrics.yaml", example="metrics.protocol=rgb")
    for flag in FLAGS:
        flag.add_to(parser)
    add_output(parser)
    args = parser.parse_args(argv)

    from configs.load import load_config  # not for --help, which would take twice as long
    from configs.schema import MetricsConfig

    flags = given(args, FLAGS)
    with named_as_typed(flags.typed), quietly(args.quiet):
        return _compare(load_config(MetricsConfig, args.cfg, flags.overrides, flags.values))


def _compare(config: "MetricsConfig") -> int:
    """Measure and report. Returns the exit code; raises as `main`."""
    enhanced_dir = _folder(config.data.enhanced_images_path, "--enhanced", "data.enhanced_images_path")
    gt_dir = _folder(config.data.gt_images_path, "--gt", "data.gt_images_path")
    if real_path(enhanced_dir) == real_path(gt_dir):
        note(f"results and ground truths are one folder, each photo is compared with itself: {gt_dir}")
    json_file, csv_file, page_file = _output_files(config, enhanced_dir)

    chosen, limits = config.metrics, config.data.limits
    protocols = ("rgb", "paper") if chosen.protocol == "both" else (chosen.protocol,)
    measured = measure_folder(
        enhanced_dir, gt_dir, protocols, lpips=chosen.lpips, stlpips=chosen.stlpips, limits=limits
    )
    _print_report(measured)
    content = measured.write_json(json_file)
    measured.write_csv(csv_file)
    if page_file:
        from metrics.report import metrics_page

        write_text(page_file, metrics_page(content, measured.pairing.pairs, limits))
    say("", f"written: {json_file}", *(f"         {file}" for file in (csv_file, page_file) if file))
    sys.stdout.flush()  # failures come last, also where both streams end up in one file
    for name, reason in measured.failed:
        say(f"failed: {name}: {reason}", file=sys.stderr)
    return EXIT_SOME_FAILED if measured.failed else EXIT_OK


def _folder(value: str | None, flag: str, key: str) -> Path:
    if value is None:
        raise UserError(f"{flag} DIR is missing (or {key} in the config)")
    return find_folder(value, key)


def _output_files(config: "MetricsConfig", enhanced_dir: Path) -> tuple[Path, Path, Path | None]:
    """Where JSON, CSV and page go; checked now, so that a bad path costs no measuring."""
    folder = Path(os.path.normpath(enhanced_dir.absolute()))  # gives "." a name
    json_file = Path(config.metrics.json_file or folder.with_name(f"{folder.name}_metrics.json"))
    overwrite = config.metrics.overwrite
    _check_output("metrics.json_file", json_file, overwrite)
    csv_file = Path(config.metrics.csv_file or json_file.with_suffix(".csv"))
    _check_output("metrics.csv_file", csv_file, overwrite)
    if real_path(json_file) == real_path(csv_file):
        raise UserError(f"metrics.json_file, metrics.csv_file: expected two files, found one: {json_file}")
    page_file = Path(config.metrics.report_file) if config.metrics.report_file else None
    if page_file:
        _check_output("metrics.report_file", page_file, overwrite)
        if real_path(page_file) in (real_path(json_file), real_path(csv_file)):
            raise UserError(f"metrics.report_file: expected a file of its own, found that of the figures: {page_file}")
    return json_file, csv_file, page_file


def _check_output(key: str, path: Path, overwrite: bool) -> None:
    from data.listing import image_suffixes

    if path.suffix.lower() in image_suffixes():
        raise UserError(f"{key}: expected a name that is no photo's, found {path}")
    check_replaceable(path, key, heading=CSV_HEADINGS, overwrite=overwrite)


def _print_report(measured: Measurement) -> None:
    say(f"results:       {measured.enhanced_dir}", f"ground truths: {measured.gt_dir}", "")
    _print_means(measured)
    _print_images(measured)
    pairing = measured.pairing
    _print_unmatched("results without a ground truth", pairing.unmatched_enhanced)
    _print_unmatched("ground truths without a result", pairing.unmatched_gt)


def _print_means(measured: Measurement) -> None:
    summaries = {protocol: measured.summary(protocol) for protocol in measured.protocols}
    # a metric of an optional package is told in the JSON alone
    wanted = [metric for metric in METRICS if metric != "stlpips" or not measured.reasons[metric]]
    rows = [["protocol", "images", *(METRICS[metric][0] for metric in wanted)]]
    rows += [[protocol, str(its.count), *_cells(its.mean, wanted)] for protocol, its in summaries.items()]
    say(*lines(rows))
    skipped = sum(not pair.first_of_family for pair in measured.pairing.pairs)
    if skipped and "paper" in measured.protocols:
        say(f"paper: one result per name(1), name(2) family, so {skipped} not measured with it")
    if measured.reasons["lpips"]:
        say(f"{METRICS['lpips'][0]}: {measured.reasons['lpips']}")
    for protocol, its in summaries.items():
        for metric, count in its.measured.items():
            if 0 < count < its.count:
                say(f"{protocol}: {METRICS[metric][0]} of {count} images, the others are too small for it")


def _print_images(measured: Measurement) -> None:
    """Each photo's figures; of many photos, only those of both ends."""
    scores, (first, *_) = measured.scores, measured.protocols
    groups = {"": list(scores)}
    if len(scores) > ALL_SHOWN:
        worst_first = sorted(scores, key=lambda name: scores[name].get(first, {}).get("psnr", math.inf))
        groups = {
            f"lowest PSNR ({first})": worst_first[:EXTREMES],
            f"highest PSNR ({first})": worst_first[: -EXTREMES - 1 : -1],
        }
    metrics = [metric for metric in METRICS if not measured.reasons.get(metric)]
    titles = [f"{protocol} {METRICS[metric][0].split()[0]}" for protocol in measured.protocols for metric in metrics]
    rows = [["image", *titles]]
    for title, names in groups.items():
        rows += [[f"{title}:"]] if title else []
        for name in names:
            values = [scores[name].get(protocol, {}) for protocol in measured.protocols]
            rows.append([name, *(cell for each in values for cell in _cells(each, metrics))])
    if scores:
        say("", *lines(rows))


def _print_unmatched(what: str, names: list[str]) -> None:
    if names:
        more = len(names) - UNMATCHED_SHOWN
        say("", f"{what}: {len(names)}", *(f"  {name}" for name in names[:UNMATCHED_SHOWN]))
        say(*([f"  ... and {more} more"] if more > 0 else []))


def _cells(values: Values, metrics: list[str]) -> list[str]:
    return ["-" if values.get(metric) is None else METRICS[metric][1].format(values[metric]) for metric in metrics]


if __name__ == "__main__":
    run(main)
