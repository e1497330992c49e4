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

import contextlib
import csv
import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from common.cli import EXIT_OK, EXIT_SOME_FAILED, add_output, make_parser, named_as_typed, run
from common.console import note, quietly, say
from common.errors import UserError
from common.files import real_path, write_text, writing
from common.paths import find_folder
from common.progress import track
from common.provenance import provenance
from common.tables import lines
from common.written import check_replaceable

if TYPE_CHECKING:
    from configs.schema import MetricsConfig

METRICS = {  # heading, digits
    "psnr": ("PSNR dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "lpips": ("LPIPS", "{:.4f}"),
    "stlpips": ("ST-LPIPS", "{:.4f}"),
}
FLAGS = {
    "gt": ("data.gt_images_path", "DIR", "folder of ground truths"),
    "enhanced": ("data.enhanced_images_path", "DIR", "folder of results"),
    "json": (
        "metrics.json_file",
        "FILE",
        "JSON to write (default: ENHANCED_metrics.json beside the folder of results)",
    ),
    "csv": ("metrics.csv_file", "FILE", "CSV to write (default: beside the JSON)"),
    "report": ("metrics.report_file", "FILE", "HTML page to write with the worst and best results and difference maps"),
    "protocol": ("metrics.protocol", "NAME", "rgb, paper or both"),
    "lpips": ("metrics.lpips", "MODE", "auto, on or off"),
    "stlpips": ("metrics.stlpips", "MODE", "auto, alex, vgg or off"),
}
ALL_SHOWN = 40  # images; of more, only the EXTREMES worst and best are shown
EXTREMES = 5
UNMATCHED_SHOWN = 10
HEADINGS = ("name,rgb_", "name,paper_")  # of a CSV of ours
THREADS = 4  # at most
AT_ONCE = 16_000_000  # pixels measured at the same time, or one pair: 24 megapixels took 3.5 GB


def main(argv: list[str]) -> int:
    """Returns the exit code. Raises UserError for a user's mistake."""
    parser = make_parser(__doc__, default_cfg="metrics.yaml", example="metrics.protocol=rgb")
    for flag, (key, metavar, text) in FLAGS.items():
        parser.add_argument(f"--{flag}", metavar=metavar, help=f"{text}; sets {key}")
    parser.add_argument("--overwrite", action="store_true", help="replace files of these names, whoever wrote them")
    add_output(parser)
    args = parser.parse_args(argv)

    from configs.load import load_config  # not for --help, which would take twice as long
    from configs.schema import MetricsConfig

    typed = {key: f"--{flag}" for flag, (key, *_) in FLAGS.items() if getattr(args, flag) is not None}
    with named_as_typed(typed), quietly(args.quiet):
        given = {key: getattr(args, flag.removeprefix("--")) for key, flag in typed.items()}
        given |= {"metrics.overwrite": True} if args.overwrite else {}
        return _compare(load_config(MetricsConfig, args.cfg, args.overrides, given))


def _compare(config: "MetricsConfig") -> int:
    """Measure and report. Returns the exit code; raises as `main`."""
    enhanced_dir = _folder(config.data.enhanced_images_path, "--enhanced", "data.enhanced_images_path")
    gt_dir = _folder(config.data.gt_images_path, "--gt", "data.gt_images_path")
    if real_path(enhanced_dir) == real_path(gt_dir):
        note(f"results and ground truths are one folder, each photo is compared with itself: {gt_dir}")
    json_file, csv_file, page_file = _output_files(config, enhanced_dir)

    from data.images import Limits
    from metrics.full_reference import Lpips  # not before everything above is known to be right: it takes seconds
    from metrics.pairing import pair
    from metrics.report import metrics_page
    from metrics.stlpips import StLpips

    pairing = pair(enhanced_dir, gt_dir)
    if not pairing.pairs and not pairing.problems:
        raise UserError(
            f"no result has the name of a ground truth: {len(pairing.unmatched_enhanced)} in {enhanced_dir} "
            f"(such as {pairing.unmatched_enhanced[0]}), "
            f"{len(pairing.unmatched_gt)} in {gt_dir} (such as {pairing.unmatched_gt[0]})"
        )
    lpips = Lpips(config.metrics.lpips)
    stlpips = StLpips(config.metrics.stlpips)
    reasons = {"lpips": lpips.reason, "stlpips": stlpips.reason}
    protocols = ["rgb", "paper"] if config.metrics.protocol == "both" else [config.metrics.protocol]
    limits = Limits(config.data.max_megapixels, config.data.incomplete)
    scores, failed = _measure(pairing.pairs, protocols, lpips, stlpips, limits)
    failed = sorted([*pairing.problems, *failed])

    summary = _summary(scores, protocols, reasons)
    summary |= {
        "unmatched": {"enhanced": pairing.unmatched_enhanced, "ground_truth": pairing.unmatched_gt},
        "failed": [{"name": name, "reason": reason} for name, reason in failed],
        "gt_images_path": str(gt_dir),
        "enhanced_images_path": str(enhanced_dir),
        **provenance(),
    }
    skipped = sum(not item.first_of_family for item in pairing.pairs) if "paper" in protocols else 0
    _print_report(scores, summary, skipped)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    write_text(json_file, text)
    with writing(csv_file) as temporary:
        _write_csv(temporary, scores, protocols)
    if page_file:
        write_text(
            page_file, metrics_page(summary, pairing.pairs, {k: title for k, (title, _) in METRICS.items()}, limits)
        )
    say("", f"written: {json_file}", *(f"         {file}" for file in (csv_file, page_file) if file))
    sys.stdout.flush()  # failures come last, also where both streams end up in one file
    for name, reason in failed:
        say(f"failed: {name}: {reason}", file=sys.stderr)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _folder(value: str | None, flag: str, key: str) -> Path:
    if value is None:
        raise UserError(f"{flag} DIR is missing (or {key} in the config)")
    return find_folder(value, key)


def _output_files(config: "MetricsConfig", enhanced_dir: Path) -> tuple[Path, Path, Path | None]:
    """Where JSON, CSV and page go; their folders are made now, so that a bad path costs no measuring."""
    folder = Path(os.path.normpath(enhanced_dir.absolute()))  # gives "." a name
    json_file = Path(config.metrics.json_file or folder.with_name(f"{folder.name}_metrics.json"))
    overwrite = config.metrics.overwrite
    _check_output("metrics.json_file", json_file, "--json", overwrite)
    csv_file = Path(config.metrics.csv_file or json_file.with_suffix(".csv"))
    _check_output("metrics.csv_file", csv_file, "--csv", overwrite)
    if json_file.absolute() == csv_file.absolute():
        raise UserError(f"metrics.json_file, metrics.csv_file: expected two files, found one: {json_file}")
    page_file = Path(config.metrics.report_file) if config.metrics.report_file else None
    if page_file:
        _check_output("metrics.report_file", page_file, "--report", overwrite)
        if page_file.absolute() in (json_file.absolute(), csv_file.absolute()):
            raise UserError(f"metrics.report_file: expected a file of its own, found that of the figures: {page_file}")
    return json_file, csv_file, page_file


def _check_output(key: str, path: Path, flag: str, overwrite: bool) -> None:
    from data.listing import image_suffixes

    if path.suffix.lower() in image_suffixes():
        raise UserError(f"{key}: expected a name that is no photo's, found {path}")
    check_replaceable(path, key, heading=HEADINGS, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: the folder of {path} cannot be made: {error.strerror}") from None
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{key}: its folder cannot be written to: {path.parent}; choose another with {flag} FILE")


def _measure(
    pairs: list, protocols: list[str], lpips: Any, stlpips: Any, limits: Any
) -> tuple[dict[str, dict], list[tuple[str, str]]]:
    """({name: {protocol: {metric: value}}}, [(name, why it failed)])."""
    scores, failed = {}, []
    room = _Room(AT_ONCE)
    # threads, because SSIM, which takes most of the time, leaves the interpreter free
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    try:
        done = pool.map(lambda item: _measure_one(item, protocols, lpips, stlpips, limits, room), pairs)
        for item, (values, problem) in zip(pairs, track(done, "measuring", len(pairs)), strict=True):
            if values:
                scores[item.name] = values
            if problem:
                failed.append((item.name, problem))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return scores, failed


class _Room:
    """Lets threads in as long as they measure at most `limit` pixels together, and one in any case."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken, self.changed = limit, 0, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.taken == 0 or self.taken + pixels <= self.limit)
            self.taken += pixels
        try:
            yield
        finally:
            with self.changed:
                self.taken -= pixels
                self.changed.notify_all()


def _measure_one(
    item: Any, protocols: list[str], lpips: Any, stlpips: Any, limits: Any, room: _Room
) -> tuple[dict[str, dict], str | None]:
    """({protocol: {metric: value}}, why it failed): what was measured before a failure is kept."""
    from data.images import read_rgb8
    from metrics.full_reference import PROTOCOLS, TooSmallError

    values: dict[str, dict] = {}
    wanted = [protocol for protocol in protocols if protocol == "rgb" or item.first_of_family]
    try:
        if wanted:
            result, truth = (read_rgb8(path, limits=limits) for path in (item.enhanced, item.truth))
            with room.take(result.shape[0] * result.shape[1]):
                for protocol in wanted:
                    values[protocol] = PROTOCOLS[protocol](result, truth, lpips) | {"stlpips": None}
                with contextlib.suppress(TooSmallError):
                    distance = stlpips(result, truth)  # no protocol's own
                    values = {protocol: scores | {"stlpips": distance} for protocol, scores in values.items()}
    except UserError as error:
        return values, str(error)
    except MemoryError:
        return values, "expected a pair that fits into memory, found too little for it"
    return values, None


def _summary(scores: dict[str, dict], protocols: list[str], reasons: dict[str, str | None]) -> dict[str, Any]:
    """The JSON's `mean` and `images` carry the first protocol; `protocols` has each one's mean and count."""
    per_protocol = {}
    for protocol in protocols:
        rows = [values[protocol] for values in scores.values() if protocol in values]
        measured = {metric: sum(row[metric] is not None for row in rows) for metric in METRICS}
        mean = {metric: _mean(rows, metric) for metric in METRICS}
        per_protocol[protocol] = {"mean": mean, "count": len(rows), "measured": measured}
    first = protocols[0]
    images = []
    for name, values in scores.items():
        others = {protocol: values[protocol] for protocol in protocols[1:] if protocol in values}
        images.append({"name": name, **values[first], **others})
    mean = per_protocol[first]["mean"] | {f"{name}_reason": reason for name, reason in reasons.items() if reason}
    return {"protocol": first, "mean": mean, "protocols": per_protocol, "images": images}


def _mean(rows: list[dict], metric: str) -> float | None:
    values = [row[metric] for row in rows if row[metric] is not None]
    return fmean(values) if values else None


def _write_csv(path: Path, scores: dict[str, dict], protocols: list[str]) -> None:
    columns = [(protocol, metric) for protocol in protocols for metric in METRICS]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *map("_".join, columns)])
        for name, values in scores.items():  # csv writes None as an empty cell
            writer.writerow([name, *(values.get(protocol, {}).get(metric) for protocol, metric in columns)])


def _print_report(scores: dict[str, dict], summary: dict[str, Any], skipped: int) -> None:
    protocols = summary["protocols"]
    say(f"results:       {summary['enhanced_images_path']}", f"ground truths: {summary['gt_images_path']}", "")
    reasons = {name: summary["mean"].get(f"{name}_reason") for name in ("lpips", "stlpips")}
    wanted = [name for name in METRICS if name != "stlpips" or not reasons[name]]  # optional: the JSON says why
    rows = [["protocol", "images", *(METRICS[name][0] for name in wanted)]]
    rows += [[name, str(entry["count"]), *_cells(entry["mean"], wanted)] for name, entry in protocols.items()]
    say(*lines(rows))
    if skipped:
        say(f"paper: one result per name(1), name(2) family, so {skipped} not measured with it")
    if reasons["lpips"]:
        say(f"{METRICS['lpips'][0]}: {reasons['lpips']}")
    for name, entry in protocols.items():
        for metric, count in entry["measured"].items():
            if 0 < count < entry["count"]:
                say(f"{name}: {METRICS[metric][0]} of {count} images, the others are too small for it")

    first = summary["protocol"]
    worst_first = sorted(scores, key=lambda name: scores[name].get(first, {}).get("psnr", math.inf))
    groups = {"": list(scores)}
    if len(scores) > ALL_SHOWN:
        groups = {
            f"lowest PSNR ({first})": worst_first[:EXTREMES],
            f"highest PSNR ({first})": worst_first[: -EXTREMES - 1 : -1],
        }
    metrics = [metric for metric in METRICS if not reasons.get(metric)]
    titles = [f"{protocol} {METRICS[metric][0].split()[0]}" for protocol in protocols for metric in metrics]
    rows = [["image", *titles]]
    for title, names in groups.items():
        rows += [[f"{title}:"]] if title else []
        for name in names:
            cells = [cell for protocol in protocols for cell in _cells(scores[name].get(protocol, {}), metrics)]
            rows.append([name, *cells])
    if scores:
        say("", *lines(rows))

    for kind, what in (
        ("enhanced", "results without a ground truth"),
        ("ground_truth", "ground truths without a result"),
    ):
        names = summary["unmatched"][kind]
        if names:
            more = len(names) - UNMATCHED_SHOWN
            say("", f"{what}: {len(names)}", *(f"  {name}" for name in names[:UNMATCHED_SHOWN]))
            say(*([f"  ... and {more} more"] if more > 0 else []))


def _cells(values: dict[str, float | None], metrics: list[str] | None = None) -> list[str]:
    return [
        "-" if values.get(metric) is None else METRICS[metric][1].format(values[metric])
        for metric in metrics or METRICS
    ]


if __name__ == "__main__":
    run(main)
