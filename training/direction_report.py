"""The report on a direction as one HTML file that opens anywhere: its pictures are inside, its texts escaped."""

from pathlib import Path
from typing import TYPE_CHECKING

from common import pages
from common.pages import BACKLIT, WELLLIT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("direction_report.html.j2")


def page(report: dict, pictures: list[dict], curves: str | None, agree: float) -> str:
    """The HTML, every text escaped."""
    first = next(index for index, part in enumerate(report["shifts"]) if part["n"] == report["n"])
    sections = [{**part, **picture} for part, picture in zip(report["shifts"], pictures, strict=True)]
    return pages.page(TEMPLATE, report=report, sections=sections, main=sections[first], curves=curves, agree=agree)


def histogram(part: dict, parts: list[dict]) -> str:
    """Projections of both folders with the set point, as a PNG data URI; one scale for all parts."""
    return pages.figure_uri(_histogram(part, _limits(parts)))


def stability(parts: list[dict], agree: float) -> str:
    """Agreement of directions from k photos a side, one curve for each shift, as a PNG data URI."""
    return pages.figure_uri(_stability(parts, agree))


def thumbnail(path: Path, made: dict[Path, str], height: int = 130) -> str:
    """A photo as a JPEG data URI."""
    from PIL import Image

    from data.images import read_rgb8

    if path not in made:
        made[path] = pages.picture_uri(Image.fromarray(read_rgb8(path)), 2 * height, height)
    return made[path]


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
