"""What a run folder tells, also one that is unfinished, of an earlier version, or damaged: read once, for reports."""

import itertools
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_file
from common.parse import parse_json, parse_yaml
from common.paths import what_is_at
from configs.schema import method_of
from training.phases import STARTS
from training.tracking import RunFiles, parse_metrics

SCORES = {"psnr": "val_psnr", "ssim": "val_ssim", "brightness": "val_brightness"}  # of a report -> of the log
LARGEST = 1e100
FOLDERS = {"backlit": "backlit_images_path", "welllit": "welllit_images_path"}  # in the list of photos -> in `data`
RECORD_LIMIT = 2**28  # bytes of what a run tells about itself; a list of a million photos


@dataclass(frozen=True)
class Run:
    """The content of a run folder. Of what is missing or damaged, nothing is there, and its name is in `missing`."""

    files: RunFiles
    config: dict[str, Any]
    metrics: list[dict]  # lines of the log: `iteration`, `phase`, and values that are finite numbers or texts
    provenance: dict[str, Any]
    summary: dict[str, Any]  # of a finished run
    outcome: dict[str, Any]  # how it ended: `exit`, `reason`
    photos: dict[str, int]  # folder -> how many photos of it
    previews: dict[int, Path]  # iteration -> picture, in order
    validated_on: str = ""  # stands for the validation pairs and their size; "" where these are not known
    left_out: tuple[str, ...] = ()  # photos that could not be read, and why
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.files.path.resolve().name

    @property
    def method(self) -> str | None:
        """As `TrainConfig.method`; runs of earlier versions may lack the losses' keys."""
        mode, *losses = (self.setting(key) for key in ("exp.mode", "loss.residual", "loss.pixel"))
        known = all(isinstance(weight, int | float) for weight in losses)
        return method_of(mode, *losses) if known else mode

    def setting(self, key: str) -> Any:
        """The value of a dotted config key, or None."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @cached_property
    def steps(self) -> list[dict]:
        """Lines about a training step."""
        return [line for line in self.metrics if "loss" in line]

    @cached_property
    def guided(self) -> list[dict]:
        """Those of the steps that tell where results lie along the direction, and where they should."""
        return [line for line in self.steps if {"projection", "set_point", "backlit_projection"} <= line.keys()]

    @cached_property
    def checks(self) -> list[dict]:
        """Lines about validation."""
        return [line for line in self.metrics if "val_psnr" in line]

    @cached_property
    def reports(self) -> list[dict]:
        """Lines about CLIP-LIT's guidance, after each phase that trains it."""
        return [line for line in self.metrics if "guidance_accuracy" in line]

    @property
    def iterations(self) -> int:
        return max((line["iteration"] for line in self.metrics), default=0)

    @property
    def seconds(self) -> float | None:
        """Of training, without validation."""
        known = [line["seconds"] for line in self.metrics if "seconds" in line]
        return max(known) if known else None

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """ "input", "best" by validation, "snapshot" (of best.safetensors), "last": psnr (dB), ssim, brightness,
        iteration; of what was measured.
        """
        rows: dict[str, dict[str, float]] = {}
        enhancing = [line for line in self.checks if line["iteration"] and line.get("phase") not in STARTS]
        if self.checks and "val_psnr_input" in self.checks[0]:
            rows["input"] = {"psnr": self.checks[0]["val_psnr_input"]}
            if "val_ssim_input" in self.checks[0]:
                rows["input"]["ssim"] = self.checks[0]["val_ssim_input"]
        if enhancing:
            best = max(enhancing, key=lambda line: line["val_psnr"])
            rows["best"] = _scores(best, best["iteration"])
        for name, key in (("best", "best_val"), ("snapshot", "best")):
            values, iteration = self.summary.get(key), self.summary.get(f"{key}_iteration")
            values = _plain(values) if isinstance(values, dict) else {}
            if "val_psnr" in values and isinstance(iteration, int):
                rows[name] = _scores(values, iteration)
        if enhancing:
            rows["last"] = _scores(enhancing[-1], enhancing[-1]["iteration"])
        return rows

    @cached_property
    def times(self) -> list[dict[str, Any]]:
        """Where the time went: `name`, `iterations`, `seconds`, `rate` (iterations a second) of set-up, of each phase
        (CLIP-LIT's rounds together), and of validation, where the log has it.
        """
        rows: dict[str, dict[str, Any]] = {}
        before = {"iteration": 0, "seconds": 0.0}
        timed = [line for line in self.metrics if "seconds" in line and "phase" in line]
        if timed and timed[0]["iteration"] == 0:
            rows["set-up: embeddings and guidance"] = {"iterations": 0, "seconds": timed[0]["seconds"], "rounds": 1}
            before = timed[0]
        for phase, lines in itertools.groupby(timed, key=lambda line: line["phase"]):
            *_, last = lines
            name = re.sub(r" \d+$", "", phase)
            row = rows.setdefault(name, {"iterations": 0, "seconds": 0.0, "rounds": 0})
            row["iterations"] += last["iteration"] - before["iteration"]
            row["seconds"] += last["seconds"] - before["seconds"]
            row["rounds"] += last["iteration"] > before["iteration"]
            before = last
        checks = [line["validation_seconds"] for line in self.checks if "validation_seconds" in line]
        if checks:
            rows["validation and previews"] = {"iterations": 0, "seconds": sum(checks), "rounds": len(checks)}
        for row in rows.values():
            row["rate"] = row["iterations"] / row["seconds"] if row["iterations"] and row["seconds"] > 0 else None
        return [{"name": name, **row} for name, row in rows.items() if row["rounds"]]

    @cached_property
    def ended(self) -> tuple[str, str]:
        """How: "finished", "stopped", "diverged", "failed" or "unfinished"; and why, in words."""
        if self.summary:
            return "finished", ""
        if self.outcome:
            return str(self.outcome.get("exit", "unfinished")), str(self.outcome.get("reason", ""))
        return "unfinished", "still in training, or ended without a word"

    def result(self) -> dict[str, Any]:
        """What a program wants to know of a run."""
        how, why = self.ended
        files, scores = self.files, self.scores
        snapshots = (("best", files.best_file), ("best_val", files.best_val_file))
        return {
            "run": str(files.path),
            "method": self.method,
            "exit": how,
            "reason": why or None,
            "left_out": list(self.left_out),
            "iterations": self.iterations,
            "seconds": self.seconds,
            **{name: scores.get(name) for name in ("input", "best", "snapshot", "last")},
            "weights": {name: str(file) for name, file in snapshots if file.is_file()},
            "report": str(files.report_file) if files.report_file.is_file() else None,
        }


def read_run(folder: str | Path) -> Run:
    """What is there of a run. Raises UserError where `folder` is none, or holds neither a config nor a log of a run."""
    what = what_is_at(folder)
    if what != "a folder":
        raise UserError(f"{folder}: expected a run folder, found {what}")
    files, missing = RunFiles(Path(folder)), []

    def read(file: Path, load: Any) -> dict:
        try:
            content = load(read_file(file, limit=RECORD_LIMIT).decode("utf-8-sig"))
            if isinstance(content, dict):
                return content
            what = f"{file.name} (damaged)"
        except FileNotFoundError:
            what = "" if file in (files.summary_file, files.outcome_file) else file.name  # of an unfinished run
        except (OSError, UserError, ValueError):
            what = f"{file.name} (damaged)"
        missing.extend([what] if what else [])
        return {}

    config = read(files.config_file, parse_yaml)
    record, summary, outcome, listed = (
        read(file, parse_json)
        for file in (files.provenance_file, files.summary_file, files.outcome_file, files.photos_file)
    )
    listed = {name: its for name, its in listed.items() if isinstance(its, dict)}
    data = config.get("data") if isinstance(config.get("data"), dict) else {}
    left_out = outcome.get("left_out")
    left_out = tuple(str(reason) for reason in left_out) if isinstance(left_out, list) else ()
    paths = set(map(path_of, left_out))
    photos = {
        name: sum(str(Path(str(data.get(FOLDERS.get(name), ""))) / path) not in paths for path in its)
        for name, its in listed.items()
    }
    metrics, damaged = _log(files.metrics_file)
    if damaged or not metrics:
        missing.append(f"{files.metrics_file.name}{f' ({damaged} damaged lines)' if damaged else ''}")
    if not config and not metrics:
        raise UserError(f"{folder}: expected a run folder, found neither a config.yaml nor a metrics.jsonl of a run")
    pairs = [sorted(listed.get(name, {}).items(), key=repr) for name in ("val_backlit", "val_gt")]
    size = data.get("val_size") or data.get("image_size")
    return Run(
        files,
        config,
        metrics,
        record,
        summary,
        outcome,
        photos,
        _previews(files.previews),
        validated_on=repr((pairs, size)) if all(pairs) else "",
        left_out=left_out,
        missing=tuple(missing),
    )


def path_of(reason: str) -> str:
    """Of the photo that could not be read: reasons begin with it."""
    return reason.partition(": expected ")[0]


def _log(file: Path) -> tuple[list[dict], int]:
    """The lines of a log, of which only what can be drawn or read is kept, and how many are damaged."""
    try:
        lines, damaged = parse_metrics(file)
    except (OSError, UserError):
        return [], 1
    kept = [_plain(line) for line in lines]
    whole = [line for line in kept if isinstance(line.get("iteration"), int) and line["iteration"] >= 0]
    return whole, len(damaged) + len(kept) - len(whole)


def _plain(line: dict) -> dict:
    """Finite numbers, and the texts that a log has."""
    texts = ("phase", "tokens_backlit", "tokens_welllit")
    return {
        key: value
        for key, value in line.items()
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and abs(value) < LARGEST  # plots could not scale them
            and key not in texts
        )
        or (key in texts and isinstance(value, str))
    }


def _scores(line: dict, iteration: int) -> dict[str, float]:
    return {name: line[key] for name, key in SCORES.items() if key in line} | {"iteration": iteration}


def _previews(folder: Path) -> dict[int, Path]:
    numbered = ((re.fullmatch(r"iteration_(\d{1,12})", path.stem), path) for path in sorted(folder.glob("*.png")))
    return {int(match[1]): path for match, path in numbered if match}
