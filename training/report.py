"""The report on a run as one HTML file that opens anywhere, made of what the run's folder holds."""

import os
from pathlib import Path
from typing import Any

from common.console import note
from common.errors import UserError
from common.files import read_file, write_text
from common.pages import figure_uri, page, picture_uri
from common.parse import parse_json
from common.progress import duration
from common.sequences import evenly
from common.written import check_replaceable
from configs.changes import as_yaml, changed
from configs.schema import TrainConfig
from training.advice import advise
from training.plots import panels
from training.runs import Run, read_run

RUN_PAGE = Path(__file__).with_name("run_report.html.j2")
MOST_PREVIEWS = 24  # in a report, evenly spread; the folder has them all
PREVIEW = (620, 1600)  # px
ROWS = {
    "input": "untouched input",
    "best": "best by validation",
    "snapshot": "best by loss",
    "last": "last iteration",
}


def write_report(folder: str | Path, file: str | Path | None = None) -> Run:
    """Write the report on a run (default: report.html in it); one note tells what the folder lacks. Returns the run.

    Raises UserError where `folder` holds no run, and where `file` is another program's or cannot be written.
    """
    run = read_run(folder)
    target = Path(file or run.files.report_file)
    check_replaceable(target, "--out" if file else "report")
    write_text(target, run_page(run, target.parent))
    if run.missing:
        note(f"{run.files.path}: the report is without {', '.join(run.missing)}")
    return run


def run_page(run: Run, place: Path) -> str:
    """The HTML on a run. place: the folder in which the page will lie, for its links."""
    return page(
        RUN_PAGE,
        run=run,
        ended=run.ended,
        advice=advise(run),
        curves={name: figure_uri(figure) for name, figure in panels(run.metrics).items()},
        previews=_previews(run),
        scores=[(title, run.scores[name]) for name, title in ROWS.items() if name in run.scores],
        guidance=_guidance(run),
        direction=_direction_report(run, place),
        changed=as_yaml(changed(run.config, TrainConfig)),
        config=as_yaml(run.config),
        duration=duration,
        weights=_weights(run),
        origin=_origin(run.provenance),
        processor=_hardware(run.provenance)[:1],
    )


def _previews(run: Run) -> list[tuple[int, str]]:
    """(iteration, JPEG data URI); a picture that cannot be read is left out."""
    pictures = [(iteration, picture(run.previews[iteration])) for iteration in evenly([*run.previews], MOST_PREVIEWS)]
    return [(iteration, uri) for iteration, uri in pictures if uri]


def picture(path: Path) -> str | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture_uri(picture.convert("RGB"), *PREVIEW)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return None


def _guidance(run: Run) -> list[tuple[str, str]]:
    """What guides, in figures of the log and keys of the config."""
    rows = []
    if run.method == "supervised":
        return rows
    encoder = run.setting("clip.guidance.model")
    if encoder:
        rows.append(("encoder", f"{encoder}, {run.setting('clip.guidance.pretrained') or 'random weights'}"))
    guided = run.guided
    if run.method == "rave":
        shift = run.setting("guidance.remove_first_n_tokens")
        rows.append(("direction", f"{run.setting('guidance.direction')}{f', shifted by {shift}' if shift else ''}"))
    if guided:
        start, goal, end = (guided[-1][key] for key in ("backlit_projection", "set_point", "projection"))
        by_photo = run.setting("guidance.set_point") == "photo"
        kind = ", mean of the last batch" if by_photo else ""
        before = "inputs" if by_photo else "the photos that the direction starts from"
        rows.append((f"projection of {before}{kind or ', mean'}", f"{start:+.4f}"))
        rows.append((f"set point{kind}", f"{goal:+.4f}"))
        rows.append(("enhanced photos, at the end", f"{end:+.4f}"))
    for report in run.reports[-1:]:
        rows.append(("puts on the right side, held-back photos", f"{100 * report['guidance_accuracy']:.1f} %"))
        names = {"s_backlit": "backlit", "s_enhanced": "enhanced", "s_welllit": "well-lit"}
        means = [f"{title} {report[key]:.3f}" for key, title in names.items() if key in report]
        rows.append(("mean negative similarity S", ", ".join(means)))
        for side, title in (("backlit", "backlit"), ("welllit", "well-lit")):
            if f"tokens_{side}" in report:
                rows.append((f"tokens nearest to {title}", report[f"tokens_{side}"]))
    return rows


def _direction_report(run: Run, place: Path) -> dict[str, Any] | None:
    """What `python -m tools interpret-residual` wrote for this run, beside its folder, in figures and a link."""
    folder = run.files.path.with_name(f"{run.files.path.name}_direction")
    try:
        report = parse_json(read_file(folder / "report.json"))
        part = next(part for part in report["shifts"] if part["n"] == report["n"])
        return {
            "link": Path(os.path.relpath(folder / "report.html", place)).as_posix(),
            "auc": float(part["auc"]),
            "light_share": float(report["light_share"]),
            "words": [str(word) for word in part["content_words"]],
        }
    except (OSError, UserError, ValueError, LookupError, TypeError, StopIteration):
        return None


def _origin(record: dict) -> list[tuple[str, str]]:
    """Command, commit, hardware and versions, of what a record of a run has."""
    commit = record.get("commit") or "unknown"
    changes = ", with uncommitted changes" if record.get("uncommitted_changes") else ""
    versions = record.get("versions")
    packages = [f"{name} {its}" for name, its in versions.items()] if isinstance(versions, dict) else []
    rows = [
        ("command", str(record.get("command", ""))),
        ("commit", f"{commit}{changes}" if record else ""),
        ("hardware", ", ".join(_hardware(record))),
        ("versions", ", ".join([*([f"Python {record['python']}"] if "python" in record else []), *packages])),
    ]
    again = record.get("resumed")
    for entry in again if isinstance(again, list) else []:
        if isinstance(entry, dict):
            rows.append(
                ("resumed", f"at iteration {entry.get('iteration')}, commit {entry.get('commit') or 'unknown'}")
            )
    return [(title, text) for title, text in rows if text]


def _hardware(record: dict) -> list[str]:
    """GPU, processor and cores, as far as they are known, what trained first."""
    facts = record.get("hardware")
    if not isinstance(facts, dict):
        return []
    cores = f"{facts['cores']} cores" if facts.get("cores") else None
    return [str(fact) for fact in (facts.get("gpu"), facts.get("processor"), cores) if fact]


def _weights(run: Run) -> list[tuple[str, Path]]:
    files = run.files
    named = {
        "best snapshot": files.best_file,
        "best by validation": files.best_val_file,
        "guidance": files.guidance_file,
        "direction": files.direction_file,
        "state, for --resume": files.state_file,
    }
    return [(title, file.relative_to(files.path)) for title, file in named.items() if file.is_file()]
