"""The report on a direction as one HTML file that opens anywhere: its pictures are inside, its texts escaped."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("direction_report.html.j2")
BACKLIT, WELLLIT = "#31589c", "#e08a1e"  # colours of the two folders, here and in the template


def page(report: dict, pictures: list[dict], curves: str | None, agree: float) -> str:
    """The HTML, every text escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    first = next(index for index, part in enumerate(report["shifts"]) if part["n"] == report["n"])
    sections = [{**part, **picture} for part, picture in zip(report["shifts"], pictures, strict=True)]
    return template.render(
        report=report, sections=sections, main=sections[first], curves=curves, agree=agree, colors=(BACKLIT, WELLLIT)
    )


def shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def histogram(part: dict, parts: list[dict]) -> str:
    """Projections of both folders with the set point, as a PNG data URI; one scale for all parts."""
    return _figure(_histogram, part, _limits(parts))


def stability(parts: list[dict], agree: float) -> str:
    """Agreement of directions from k photos a side, one curve for each shift, as a PNG data URI."""
    return _figure(_stability, parts, agree)


def thumbnail(path: Path, made: dict[Path, str], height: int = 130) -> str:
    """A photo as a JPEG data URI."""
    from PIL import Image

    from data.images import read_rgb8

    if path not in made:
        photo = Image.fromarray(read_rgb8(path))
        photo.thumbnail((height * 2, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        photo.save(buffer, format="JPEG", quality=82)
        made[path] = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return made[path]


def _figure(draw: Callable, *arguments: object) -> str:
    """A matplotlib figure as a PNG data URI."""
    figure = draw(*arguments)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _limits(parts: list[dict]) -> tuple[float, float]:
    values = [value for part in parts for row in part["projections"].values() for value in row]
    margin = 0.05 * (max(values) - min(values)) + 1e-6
    return min(values) - margin, max(values) + margin


def _histogram(part: dict, limits: tuple[float, float]) -> "Figure":
    """Projections of both folders, and the set point."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.0), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(*limits, 41)
    for side, color, label in (("backlit", BACKLIT, "backlit"), ("welllit", WELLLIT, "well-lit")):
        axes.hist(
            part["projections"][side],
            bins,
            color=color,
            alpha=0.65,
            label=label,
            weights=[100 / len(part["projections"][side])] * len(part["projections"][side]),
        )
    axes.axvline(part["backlit_projection"], color=BACKLIT, ls=":", lw=1.6, label="mean of backlit")
    axes.axvline(part["set_point"], color="k", ls="--", lw=1.4, label="set point τ")
    axes.set(xlabel="projection on r", ylabel="% of the folder", xlim=limits)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, frameon=False, ncols=4, loc="outside upper center")
    return figure


def _stability(parts: list[dict], agree: float) -> "Figure":
    """Agreement of directions from k photos a side, one curve for each shift."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.0), layout="constrained")
    axes = figure.subplots()
    for part in parts:
        curve = {int(size): value for size, value in part["agreement"].items()}
        if curve:
            axes.plot(list(curve), list(curve.values()), "o-", ms=4, label=f"n = {part['n']}")
    axes.axhline(agree, color="k", ls="--", lw=1, label=f"{agree}: the same")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel="photos a side", ylabel="cosine of two\ndisjoint samples", ylim=(min(0, axes.get_ylim()[0]), 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure
