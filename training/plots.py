"""Curves of a run's log: one picture of three panels for the run folder, single panels for reports."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import writing
from training.phases import GUIDANCE_TERMS, UNET_TERMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (6.0, 3.6)  # inches


def plot_curves(metrics: list[dict], path: Path, title: str) -> None:
    """One PNG: loss terms; what guides (RAVE: the projection on r, CLIP-LIT: negative similarities S);
    validation PSNR and SSIM.

    Grey stretches: the guidance was trained, the UNet frozen.
    """
    from matplotlib.figure import Figure  # slow to import; without pyplot there is no global state

    drawn = [draw for draw in (_losses, _guidance, _validation) if _panel(draw, metrics)]  # no empty places between
    figure = Figure(figsize=(13 * max(1, len(drawn)) / 3, 3.8), layout="constrained")
    for axes, draw in zip(figure.subplots(1, max(1, len(drawn)), squeeze=False)[0], drawn, strict=False):
        draw(axes, metrics)
    figure.suptitle(title, parse_math=False)  # a run may be named `$1`
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def panels(metrics: list[dict]) -> dict[str, "Figure"]:
    """What it shows -> figure, of everything that a log has: loss, guidance, validation, map."""
    drawn = {"loss": _losses, "guidance": _guidance, "validation": _validation, "map": _map}
    figures = {name: _panel(draw, metrics) for name, draw in drawn.items()}
    return {name: figure for name, figure in figures.items() if figure}


def overlays(logs: Mapping[str, list[dict]]) -> dict[str, "Figure"]:
    """Value -> figure with one curve for each run, of what at least one log has."""
    wanted = {
        "val_psnr": "validation PSNR / dB",
        "val_ssim": "validation SSIM",
        "loss": "loss (total)",
        "projection": "cos(Φ(I_t), r)",
        "negative_similarity": "negative similarity S",
        "mean_illumination": "mean of the map",
    }
    figures = {name: _panel(_overlay, logs, name, title) for name, title in wanted.items()}
    return {name: figure for name, figure in figures.items() if figure}


def _panel(draw: Callable[..., bool], *arguments: Any) -> "Figure | None":
    """A figure of one panel, or None where there is nothing to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=PANEL)  # fixed margins: a layout that fits itself draws everything several times
    margins = {"left": 0.13, "right": 0.89 if draw is _validation else 0.97, "top": 0.91}
    axes = figure.subplots(gridspec_kw={**margins, "bottom": 0.26 if draw is _validation else 0.14})
    return figure if draw(axes, *arguments) else None


def _losses(axes: "Axes", metrics: list[dict]) -> bool:
    steps = _steps(metrics)
    _plot(axes, steps, "loss", label="loss (total)", lw=2)
    for name in (*UNET_TERMS, *GUIDANCE_TERMS):
        _plot(axes, steps, name, label=f"{name}, weighted", lw=1)
    scale = "log" if any(m["loss"] > 0 for m in steps) else "linear"
    axes.set(title="training loss", xlabel="iteration", yscale=scale)
    _phases(axes, steps)
    return bool(steps)


def _guidance(axes: "Axes", metrics: list[dict]) -> bool:
    steps, reports = _steps(metrics), [m for m in metrics if "guidance_accuracy" in m]
    guided = [m for m in steps if "projection" in m]
    if guided:
        _plot(axes, steps, "projection", label="enhanced batch")
        _plot(axes, steps, "set_point", label="set point, mean of the batch", color="k", ls="--", lw=1)
        _plot(axes, steps, "backlit_projection", label="before enhancement, mean", color="0.5", ls=":", lw=1)
        axes.set(title="cos(Φ(I_t), r)", xlabel="iteration")
    elif reports:
        _plot(axes, steps, "negative_similarity", label="enhanced batch", lw=1, color="tab:orange")
        for name, color in (("backlit", "tab:blue"), ("enhanced", "tab:orange"), ("welllit", "tab:green")):
            label = f"held-back {name.replace('welllit', 'well-lit')}"
            _plot(axes, reports, f"s_{name}", label=label, marker="o", ls=":", color=color)
        axes.set(title="negative similarity S", xlabel="iteration", ylim=(-0.03, 1.03))
    else:
        return False
    _phases(axes, steps)
    if len(guided) > 1:
        axes.set_xlim(guided[0]["iteration"], steps[-1]["iteration"])
    return True


def _validation(axes: "Axes", metrics: list[dict]) -> bool:
    checks = [m for m in metrics if "val_psnr" in m]
    if not checks:
        return False
    _plot(axes, checks, "val_psnr", marker="o", ms=3, label="enhanced, PSNR")
    axes.set(title="validation", xlabel="iteration", ylabel="PSNR / dB")
    ssim = axes.twinx()
    _plot(ssim, checks, "val_ssim", color="tab:green", lw=1, label="enhanced, SSIM")
    ssim.set_ylabel("SSIM", color="tab:green")
    if "val_psnr_input" in checks[0]:
        axes.axhline(checks[0]["val_psnr_input"], color="k", ls="--", lw=1, label="untouched input, PSNR")
    if "val_ssim_input" in checks[0]:
        ssim.axhline(checks[0]["val_ssim_input"], color="tab:green", ls=":", lw=1, label="untouched input, SSIM")
    lines = axes.get_lines() + ssim.get_lines()
    labels = [line.get_label() for line in lines]
    axes.legend(lines, labels, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False)
    return True


def _map(axes: "Axes", metrics: list[dict]) -> bool:
    steps = [m for m in _steps(metrics) if "mean_illumination" in m]
    _plot(axes, steps, "mean_illumination", label="mean of the map, 1 changes nothing")
    checks = [m for m in metrics if "val_brightness" in m]
    _plot(axes, checks, "val_brightness", label="mean brightness of validation results", marker="o", ms=3)
    axes.axhline(1, color="k", ls="--", lw=1)
    axes.set(title="illumination map", xlabel="iteration", ylim=(0, None))
    _phases(axes, steps)
    return bool(steps)


def _overlay(axes: "Axes", logs: Mapping[str, list[dict]], name: str, title: str) -> bool:
    for number, (run, metrics) in enumerate(logs.items()):
        lines = [m for m in metrics if name in m]
        if lines:
            points = {"marker": "o", "ms": 3} if name.startswith("val_") else {"lw": 1}
            label = f"\u200b{run}" if run.startswith("_") else run  # which matplotlib would leave out
            points["color"] = f"C{number % 10}"  # a run has the same one in every panel
            axes.plot([m["iteration"] for m in lines], [m[name] for m in lines], label=label, **points)
    if not axes.get_lines():
        return False
    axes.set(title=title, xlabel="iteration", yscale="log" if name == "loss" else "linear")
    for text in axes.legend(fontsize=7, loc="best").get_texts():
        text.set_parse_math(False)  # a run may be named `$1`
    return True


def _steps(metrics: list[dict]) -> list[dict]:
    return [m for m in metrics if "loss" in m]


def _phases(axes: "Axes", steps: list[dict]) -> None:
    """Where phases begin, the legend, and the whole run from left to right."""
    for before, after in itertools.pairwise([{"iteration": 0, "phase": None}, *steps]):
        if any(name in after for name in GUIDANCE_TERMS):
            axes.axvspan(before["iteration"], after["iteration"], color="0.93", lw=0, zorder=-1)
        elif before.get("phase") not in (None, after.get("phase")):
            axes.axvline(before["iteration"], color="0.8", zorder=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="best")
    if steps:
        axes.set_xlim(0, max(steps[-1]["iteration"], 1))


def _plot(axes: "Axes", lines: list[dict], name: str, **style: Any) -> None:
    """One value over iterations, with a gap where lines do not have it."""
    if any(name in line for line in lines):
        axes.plot([line["iteration"] for line in lines], [line.get(name, float("nan")) for line in lines], **style)
