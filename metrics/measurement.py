"""A folder of results against its ground truths: each photo's figures, their means, and the CSV and JSON of them.

Imports nothing slow until it measures, so that a script can check all else before.
"""

import contextlib
import csv
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from common.errors import UserError
from common.files import write_text, writing
from common.progress import track
from common.provenance import provenance

if TYPE_CHECKING:
    from data.images import Limits
    from metrics.full_reference import Lpips
    from metrics.pairing import Pair, Pairing
    from metrics.stlpips import StLpips

METRICS = {  # heading, digits
    "psnr": ("PSNR dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "lpips": ("LPIPS", "{:.4f}"),
    "stlpips": ("ST-LPIPS", "{:.4f}"),
}
CSV_HEADINGS = ("name,rgb_", "name,paper_")  # how a CSV of ours begins
THREADS = 4  # at most
AT_ONCE = 16_000_000  # pixels measured at the same time, or one pair: 24 megapixels took 3.5 GB

Protocol = Literal["rgb", "paper"]
Values = dict[str, float | None]  # metric -> value; None: not to be had, or of too small a photo


@dataclass(frozen=True)
class Summary:
    """One protocol's figures over all photos that it measured."""

    mean: Values
    """Of the photos that have a value; None where none has."""
    count: int
    """Photos."""
    measured: dict[str, int]
    """Photos that have a value, by metric."""


@dataclass(frozen=True)
class Measurement:
    """What measuring a folder gave."""

    enhanced_dir: Path
    gt_dir: Path
    protocols: tuple[Protocol, ...]
    """The first one's figures lead in tables and JSON."""
    pairing: "Pairing"
    scores: dict[str, dict[str, Values]]
    """Name of a result -> protocol -> metric -> value, in the order of the pairs."""
    failed: list[tuple[str, str]]
    """(name, why it could not be measured, or not with all protocols), sorted."""
    reasons: dict[str, str | None]
    """Of `lpips` and `stlpips`: why there are no values, or None."""

    def summary(self, protocol: Protocol) -> Summary:
        rows = [values[protocol] for values in self.scores.values() if protocol in values]
        known = {metric: [row[metric] for row in rows if row[metric] is not None] for metric in METRICS}
        mean = {metric: fmean(values) if values else None for metric, values in known.items()}
        return Summary(mean, len(rows), {metric: len(values) for metric, values in known.items()})

    def content(self) -> dict[str, Any]:
        """What the JSON holds: `mean` and `images` of the first protocol, `protocols` with each one's means and counts,
        what had no partner, what failed, and what is needed to repeat it.
        """
        first, *others = self.protocols
        summaries = {protocol: self.summary(protocol) for protocol in self.protocols}
        reasons = {f"{metric}_reason": reason for metric, reason in self.reasons.items() if reason}
        images = [
            {"name": name, **values.get(first, {}), **{other: values[other] for other in others if other in values}}
            for name, values in self.scores.items()
        ]
        return {
            "protocol": first,
            "mean": summaries[first].mean | reasons,
            "protocols": {protocol: vars(summary) for protocol, summary in summaries.items()},
            "images": images,
            "unmatched": {"enhanced": self.pairing.unmatched_enhanced, "ground_truth": self.pairing.unmatched_gt},
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed],
            "gt_images_path": str(self.gt_dir),
            "enhanced_images_path": str(self.enhanced_dir),
            **provenance(),
        }

    def write_json(self, path: Path) -> dict[str, Any]:
        """Write the content, and return it. Raises as `common.files.writing` does."""
        content = self.content()
        write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
        return content

    def write_csv(self, path: Path) -> None:
        """A line for each photo, a column for each protocol and metric. Raises as `common.files.writing` does."""
        columns = [(protocol, metric) for protocol in self.protocols for metric in METRICS]
        with writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", *map("_".join, columns)])
            for name, values in self.scores.items():  # csv writes None as an empty cell
                writer.writerow([name, *(values.get(protocol, {}).get(metric) for protocol, metric in columns)])


def measure_folder(
    enhanced_dir: Path,
    gt_dir: Path,
    protocols: Sequence[Protocol] = ("rgb", "paper"),
    *,
    lpips: Literal["auto", "on", "off"] = "auto",
    stlpips: Literal["auto", "alex", "vgg", "off"] = "auto",
    limits: "Limits | None" = None,
) -> Measurement:
    """Measure each result that has a ground truth; one that cannot be measured is named and does not stop the others.

    protocols: of `metrics.full_reference`. lpips, stlpips: the modes of `Lpips` and `StLpips`. limits: of the photos;
    None: the defaults. Progress goes to stderr. Raises UserError where a folder has no image, where no result has the
    name of a ground truth, and where a metric that was asked for cannot be had; ValueError for unknown protocols.
    """
    from data.images import STANDARD
    from metrics.full_reference import PROTOCOLS, Lpips
    from metrics.pairing import pair
    from metrics.stlpips import StLpips

    if isinstance(protocols, str) or not protocols or not set(protocols) <= set(PROTOCOLS):
        raise ValueError(f"protocols: expected some of {', '.join(PROTOCOLS)}, found {protocols!r}")
    pairing = pair(enhanced_dir, gt_dir)
    if not pairing.pairs and not pairing.problems:
        raise UserError(
            f"no result has the name of a ground truth: {len(pairing.unmatched_enhanced)} in {enhanced_dir} "
            f"(such as {pairing.unmatched_enhanced[0]}), "
            f"{len(pairing.unmatched_gt)} in {gt_dir} (such as {pairing.unmatched_gt[0]})"
        )
    meter = _Meter(tuple(protocols), Lpips(lpips), StLpips(stlpips), limits or STANDARD)
    reasons = {"lpips": meter.lpips.reason, "stlpips": meter.stlpips.reason}  # also loads them, before the threads
    scores, failed = meter.measure_all(pairing.pairs)
    failed = sorted([*pairing.problems, *failed])
    return Measurement(enhanced_dir, gt_dir, meter.protocols, pairing, scores, failed, reasons)


@dataclass(frozen=True)
class _Meter:
    """What measures pairs, and with what."""

    protocols: tuple[Protocol, ...]
    lpips: "Lpips"
    stlpips: "StLpips"
    limits: "Limits"

    def measure_all(self, pairs: Sequence["Pair"]) -> tuple[dict[str, dict[str, Values]], list[tuple[str, str]]]:
        """({name: {protocol: {metric: value}}}, [(name, why it failed)]), in the order of the pairs."""
        scores, failed = {}, []
        room = Room(AT_ONCE)
        # threads, because SSIM, which takes most of the time, leaves the interpreter free
        pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
        try:
            done = pool.map(lambda pair: self.measure(pair, room), pairs)
            for pair, (values, problem) in zip(pairs, track(done, "measuring", len(pairs)), strict=True):
                if values:
                    scores[pair.name] = values
                if problem:
                    failed.append((pair.name, problem))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
        return scores, failed

    def measure(self, pair: "Pair", room: "Room") -> tuple[dict[str, Values], str | None]:
        """({protocol: {metric: value}}, why it failed): what was measured before a failure is kept."""
        from data.images import read_rgb8
        from metrics.full_reference import PROTOCOLS, TooSmallError

        values: dict[str, Values] = {}
        wanted = [protocol for protocol in self.protocols if protocol == "rgb" or pair.first_of_family]
        try:
            if wanted:
                result, truth = (read_rgb8(path, limits=self.limits) for path in (pair.enhanced, pair.truth))
                with room.take(result.shape[0] * result.shape[1]):
                    for protocol in wanted:
                        values[protocol] = PROTOCOLS[protocol](result, truth, self.lpips) | {"stlpips": None}
                    with contextlib.suppress(TooSmallError):
                        distance = self.stlpips(result, truth)  # no protocol's own
                        values = {protocol: scores | {"stlpips": distance} for protocol, scores in values.items()}
        except UserError as error:
            return values, str(error)
        except MemoryError:
            return values, "expected a pair that fits into memory, found too little for it"
        return values, None


class Room:
    """Lets threads in as long as they measure at most `limit` pixels together, and one in any case."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken, self.changed = limit, 0, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for so many pixels."""
        with self.changed:
            self.changed.wait_for(lambda: self.taken == 0 or self.taken + pixels <= self.limit)
            self.taken += pixels
        try:
            yield
        finally:
            with self.changed:
                self.taken -= pixels
                self.changed.notify_all()
