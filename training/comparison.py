"""Runs side by side: what differs between them, their scores, and what several seeds of one config come to."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from pydantic import ValidationError

from common.files import write_text
from common.pages import figure_uri, page
from common.tables import lines
from common.written import check_replaceable
from configs.changes import ABSENT, defaults, differing, flat
from configs.effects import has_effect
from configs.schema import TrainConfig
from training.plots import overlays
from training.report import ROWS, picture
from training.runs import Run

COMPARISON_PAGE = Path(__file__).with_name("comparison.html.j2")
SEED = "exp.seed"
LEFT_OUT = ("exp.exp_name", "exp.save_dir", "exp.cache_dir", "exp.overwrite")  # where runs are, not what they are


def write_comparison(runs: Sequence[Run], file: str | Path) -> None:
    """Write one page on several runs. Raises UserError as `write_report` does."""
    check_replaceable(Path(file), "--report")
    names = unique_names(runs)
    logs = {name: run.metrics for name, run in zip(names, runs, strict=True)}
    html = page(
        COMPARISON_PAGE,
        runs=names,
        rows=table(runs),
        differing=differing_keys(runs),
        seeds=[([names[number] for number in members], scores) for members, scores in over_seeds(runs)],
        cautions=cautions(runs),
        curves={name: figure_uri(figure) for name, figure in overlays(logs).items()},
        previews=[(name, uri) for name, run in zip(names, runs, strict=True) if (uri := _last_preview(run))],
    )
    write_text(file, html)


def console_lines(runs: Sequence[Run]) -> list[str]:
    """The same as text."""
    names, keys = unique_names(runs), differing_keys(runs)
    told = [*lines([["", *names], *([title, *cells] for title, cells in table(runs))]), ""]
    for members, scores in over_seeds(runs):
        of = ", ".join(names[number] for number in members)
        told += [f"mean ± standard deviation over {len(members)} seeds: {of}", *lines(scores), ""]
    if not keys:
        return [*told, "the configs differ in nothing that says what a run is"]
    cells = [[key, *("null" if value is None else str(value) for value in row)] for key, row in keys.items()]
    return [*told, *lines([["keys that differ (–: no effect)", *names], *cells])]


def table(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Row title -> one cell for each run: how it ended, length, scores."""

    def score(name: str, key: str, form: str, run: Run) -> str:
        value = run.scores.get(name, {}).get(key)
        return "–" if value is None else format(value, form)

    rows = [
        ("method", [run.method or "–" for run in runs]),
        ("ended", [run.ended[0] for run in runs]),
        ("iterations", [f"{run.iterations:,}" for run in runs]),
        ("seconds", ["–" if run.seconds is None else f"{run.seconds:,.0f}" for run in runs]),
    ]
    for name, title in ROWS.items():
        if any(name in run.scores for run in runs):
            rows.append((f"{title}: PSNR / dB", [score(name, "psnr", ".2f", run) for run in runs]))
            rows.append((f"{title}: SSIM", [score(name, "ssim", ".3f", run) for run in runs]))
    rows.append(("best at iteration", [score("best", "iteration", ",", run) for run in runs]))
    return rows


def differing_keys(runs: Sequence[Run]) -> dict[str, list]:
    """Config key -> its value in each run, `ABSENT` where it has no effect there. Of keys that differ and tell what a
    run is; those that have an effect in one run alone only where they are not left at their default.
    """
    configs = [_validated(run.config) for run in runs]
    trees = [config.model_dump() if config else run.config for config, run in zip(configs, runs, strict=True)]
    usual, rows = flat(defaults(TrainConfig)), {}
    for key, values in differing(trees).items():
        with_effect = [config is None or has_effect(config, key) for config in configs]
        shown = [value if matters else ABSENT for value, matters in zip(values, with_effect, strict=True)]
        told = [value for value, matters in zip(values, with_effect, strict=True) if matters]
        alone = len(told) == 1 and told[0] != usual.get(key, ABSENT)
        if key not in LEFT_OUT and (alone or any(value != told[0] for value in told)):
            rows[key] = shown
    return rows


def over_seeds(runs: Sequence[Run]) -> list[tuple[list[int], list[tuple[str, str]]]]:
    """Of finished runs by one config, of several seeds: their numbers in `runs`, and score -> "mean ± sd"."""
    groups: dict[str, dict[str, int]] = {}  # what the config is beside the seed -> seed -> number
    for number, run in enumerate(runs):
        rest = {key: value for key, value in flat(run.config).items() if key not in (SEED, *LEFT_OUT)}
        if run.ended[0] == "finished":
            groups.setdefault(str(rest), {}).setdefault(str(run.setting(SEED)), number)
    found = []
    for members in ([*seeds.values()] for seeds in groups.values() if len(seeds) > 1):
        scores = []
        for name, title in ROWS.items():
            for key, what, form in (("psnr", "PSNR / dB", ".2f"), ("ssim", "SSIM", ".3f")):
                values = [runs[number].scores.get(name, {}).get(key) for number in members]
                if name != "input" and None not in values:
                    scores.append((f"{title}: {what}", f"{fmean(values):{form}} ± {stdev(values):{form}}"))
        found += [(members, scores)] if scores else []
    return found


def cautions(runs: Sequence[Run]) -> list[str]:
    """What keeps the scores of runs from being compared."""
    measured = {run.validated_on for run in runs if run.checks and run.validated_on}
    return ["the runs validate on different photos or sizes: do not compare their scores"] if len(measured) > 1 else []


def _last_preview(run: Run) -> str | None:
    return picture(list(run.previews.values())[-1]) if run.previews else None


def _validated(config: dict) -> TrainConfig | None:
    """The config of a run; None where it is another version's."""
    with contextlib.suppress(ValidationError):
        return TrainConfig.model_validate(config)
    return None


def unique_names(runs: Sequence[Run]) -> list[str]:
    """The runs by the shortest ends of their paths that tell them apart."""
    paths = [run.files.path.resolve() for run in runs]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return names
