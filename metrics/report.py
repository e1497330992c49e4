"""A page on a measurement: the means; the worst and best results, their ground truths and difference maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import UserError
from common.pages import BACKLIT, WELLLIT, figure_uri, page, picture_uri
from data.images import STANDARD, Limits, read_rgb8
from metrics.measurement import METRICS
from metrics.pairing import Pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("metrics_report.html.j2")
SHOWN = 5  # at each end
FULL = 0.3  # difference, of full scale, from which a map has its full colour
WIDTH, HEIGHT = 420, 420  # px of a picture, at most
NAMED = 20  # failures and photos without a partner that are listed; the JSON names all


def metrics_page(summary: dict[str, Any], pairs: Sequence[Pair], limits: Limits = STANDARD) -> str:
    """The HTML. summary: what `Measurement.content` gave, the JSON. pairs: those that were measured."""
    headings = {metric: heading for metric, (heading, _) in METRICS.items()}
    ranked = sorted((i for i in summary["images"] if i.get("psnr") is not None), key=lambda image: image["psnr"])
    places = {pair.name: pair for pair in pairs}
    count = min(SHOWN, (len(ranked) + 1) // 2)
    ends = {"worst": ranked[:count], "best": ranked[len(ranked) - min(count, len(ranked) - count) :][::-1]}
    metrics = [name for name in headings if any(image.get(name) is not None for image in ranked)]
    return page(
        TEMPLATE,
        summary=summary,
        headings=headings,
        metrics=metrics,
        ends={name: [_shown(places[image["name"]], image, limits) for image in row] for name, row in ends.items()},
        histogram=figure_uri(_histogram([image["psnr"] for image in ranked])) if len(ranked) > 2 * SHOWN else None,
        full=FULL,
        named=NAMED,
    )


def difference_map(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H,W,3) uint8 twice -> (H,W,3) uint8: white where they agree, orange where the result is brighter than the
    ground truth, blue where it is darker; by the mean absolute difference of the channels, full from `FULL` on.
    """
    difference = (result.astype(np.float32) - truth) / 255
    strength = np.clip(np.abs(difference).mean(axis=2) / FULL, 0, 1)[..., None]
    brighter = difference.mean(axis=2)[..., None] > 0
    colours = np.where(brighter, _rgb(WELLLIT), _rgb(BACKLIT))
    return np.rint(255 + strength * (colours - 255)).astype(np.uint8)


def _shown(pair: Pair, image: dict[str, Any], limits: Limits) -> dict[str, Any]:
    from PIL import Image

    try:
        result, truth = (read_rgb8(path, limits=limits) for path in (pair.enhanced, pair.truth))
    except UserError:  # gone since it was measured
        return {**image, "pictures": {}}
    pictures = {"result": result, "ground truth": truth, "difference": difference_map(result, truth)}
    return {**image, "pictures": {name: picture_uri(Image.fromarray(p), WIDTH, HEIGHT) for name, p in pictures.items()}}


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def _histogram(values: list[float]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=min(40, max(10, len(values) // 10)), color=BACKLIT)
    axes.axvline(float(np.mean(values)), color="k", ls="--", lw=1.2, label=f"mean {np.mean(values):.2f} dB")
    axes.set(xlabel="PSNR / dB", ylabel="photos")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure
