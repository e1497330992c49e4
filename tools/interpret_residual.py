"""Report what guides a RAVE training: its words, photos and possible bias.

python -m tools interpret-residual --cfg train.yaml [--set KEY=VALUE] [--out DIR]

Writes report.html, one file that opens anywhere, and report.json.

For the direction of the config (`guidance:`) and for shifts of it by n tokens: the vocabulary's nearest and farthest tokens, words among
them that may be data bias, how well it separates the two folders, the photos at its ends, and how much it depends on
which photos it was made of. The direction itself is written beside, as direction.safetensors (for `guidance.saved`).
"""

import argparse
import base64
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import EXIT_OK, make_parser, run
from common.console import say
from common.errors import UserError
from common.paths import find_folder
from configs.load import load_config
from configs.schema import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from losses.residual import ResidualGuidance
    from metrics.direction import Vocabulary
    from models.clip_encoder import ClipEncoder
    from training.directions import Recipe

TEMPLATE = Path(__file__).with_name("interpret_residual.html.j2")
BACKLIT, WELLLIT = "#31589c", "#e08a1e"  # colours of the two folders, here and in the template
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # photos a side, whose directions are compared
AGREE = 0.95  # cosine from which two directions are called the same; of our own


def main(argv: list[str]) -> int:
    parser = make_parser(__doc__, default_cfg="configs/train/rave.yaml")
    parser.add_argument("--out", metavar="DIR", help="report folder (default: SAVE_DIR/EXP_NAME_direction)")
    parser.add_argument(
        "--n", type=_natural, nargs="+", default=[0, 5, 15, 50], metavar="N", help="shifts to show (default: 0 5 15 50)"
    )
    parser.add_argument(
        "--whole-words", action="store_true", help="list whole words that the encoder knows, no pieces of words"
    )
    parser.add_argument(
        "--tokens",
        type=_positive,
        metavar="T",
        help="read T tokens, spread evenly over the vocabulary, for encoders that are slow here",
    )
    parser.add_argument(
        "--top", type=_positive, default=15, metavar="K", help="tokens to list at each end (default: %(default)s)"
    )
    parser.add_argument(
        "--photos", type=_positive, default=6, metavar="K", help="photos to show at each end (default: %(default)s)"
    )
    parser.add_argument(
        "--bootstrap",
        type=_positive,
        default=100,
        metavar="B",
        help="times that photos are drawn anew (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    config = load_config(TrainConfig, args.cfg, args.overrides)
    for key in ("backlit_images_path", "welllit_images_path"):
        find_folder(getattr(config.data, key), f"data.{key}")
    out = Path(args.out or Path(config.exp.save_dir) / f"{config.exp.exp_name}_direction")
    if out.is_file():
        raise UserError(f"--out: expected a folder, found a file: {out}")
    report = interpret(config, args, out)
    first = next(part for part in report["shifts"] if part["n"] == report["n"])
    say(f"direction  {report['direction']}")
    say(f"AUC        {first['auc']:.4f}, on photos it was not made of {_shown(first['auc_held_out'], '.4f')}")
    say(f"stability  cosine {first['bootstrap_mean']:.3f} with photos drawn anew")
    say(f"light      {100 * report['light_share']:.0f} % of the difference between the folders")
    say(f"not light  {', '.join(first['content_words']) or 'nothing'}")
    say(f"look at    {out / 'report.html'}")
    return EXIT_OK


def interpret(config: TrainConfig, args: argparse.Namespace, out: Path) -> dict:
    """Analyse, and write report.html, report.json and direction.safetensors into `out`. Returns the content of report.json."""
    import numpy as np

    from common.files import write_text
    from common.provenance import provenance
    from metrics.direction import Vocabulary
    from training.directions import (
        built,
        check_guidance,
        describe,
        embed_folders,
        make_recipe,
        relit_guidance,
        save_direction,
    )
    from training.embeddings import embed_vocabulary, load_encoder
    from training.runtime import make_accelerator
    from training.validation import training_photos

    options = config.guidance
    check_guidance(options)
    listed = dict(zip(("backlit", "welllit"), training_photos(config.data), strict=True))
    device = make_accelerator(config.train.device, config.train.precision).device
    encoder = load_encoder(config.clip.guidance, config.clip, device).in_layers(options.layers)
    say(f"encoder    {encoder.name}")
    picked = None
    if encoder.vocabulary_kind:
        texts, whole = encoder.words()
        rows = (
            range(len(texts))
            if not args.tokens
            else sorted(set(np.linspace(0, len(texts) - 1, args.tokens).astype(int).tolist()))
        )
        tokens = _some(encoder, rows) if args.tokens else embed_vocabulary(encoder, config.exp.cache_dir)
        picked = Vocabulary([texts[i] for i in rows], [whole[i] for i in rows], tokens)
    # how much of the difference between the folders is light: measured on relit pairs, whatever the direction
    as_relit = config.model_copy(update={"guidance": options.model_copy(update={"direction": "relit"})})
    relit, _ = relit_guidance(as_relit, encoder, listed["backlit"], listed["welllit"])
    used = relit if "relit" in check_guidance(options) else None
    unshifted_options = options.model_copy(update={"remove_first_n_tokens": 0})
    recipe = make_recipe(unshifted_options, encoder, config.exp.cache_dir, used)
    if options.remove_first_n_tokens and not picked:
        raise UserError(f"guidance.remove_first_n_tokens: needs an encoder with a vocabulary, found {encoder.name}")
    recipe = dataclasses.replace(recipe, tokens=tokens if picked else None, n=options.remove_first_n_tokens)

    *embeddings, skipped = embed_folders(config, encoder, listed["backlit"], listed["welllit"])
    guidance = built(recipe, *embeddings)
    shifts = sorted({*args.n, recipe.n}) if picked else [0]
    if picked and len(tokens) < 2 * shifts[-1]:
        raise UserError(f"--tokens: expected at least twice the largest shift ({shifts[-1]}), found {len(tokens)}")
    sides = dict(zip(("welllit", "backlit"), embeddings, strict=True))
    readable = {side: _readable(listed[side], values) for side, values in sides.items()}
    unshifted = built(recipe, *embeddings, 0)
    residual = built(
        dataclasses.replace(recipe, weights={"folders": 1.0}, vectors={}, removed=recipe.removed[:0], n=0, relit=None),
        *embeddings,
    )
    thumbnails: dict[Path, str] = {}
    parts, pictures = [], []
    for n in shifts:
        part, photos = _part(n, recipe, sides, unshifted, picked, readable, args, config.exp.seed)
        parts.append(part)
        shown = {
            name: [{**photo, "uri": _thumbnail(photo.pop("path"), thumbnails)} for photo in row]
            for name, row in photos.items()
        }
        pictures.append({"photos": shown})
        part["photos"] = {
            name: [{key: photo[key] for key in ("name", "projection")} for photo in row] for name, row in shown.items()
        }
        say(f"n = {n:4}   AUC {part['auc']:.4f}, cosine with the unshifted {part['cosine_with_unshifted']:.3f}")
    report = {
        "direction": describe(options),
        "n": recipe.n,
        "encoder": encoder.name,
        "random_weights": config.clip.guidance.pretrained is None,
        "photos": {side: len(values) for side, values in sides.items()},
        "left_out": skipped,
        "means_cosine": float(unshifted.well_lit @ unshifted.backlit),
        "cosine_with_residual": float(guidance.vector @ residual.vector),
        "depends_on_photos": "folders" in recipe.weights,
        "light_share": float(residual.vector @ relit.vector) ** 2,
        "tokens": {
            "read": len(tokens) if picked else 0,
            "whole_words_only": args.whole_words,
            "kind": encoder.vocabulary_kind,
            "why_none": "" if picked else f"{encoder.name} has neither a text tower nor a classifier",
        },
        "shifts": parts,
        "config": {
            "guidance": options.model_dump(),
            "clip": config.clip.model_dump(),
            "data": config.data.model_dump(),
        },
        "provenance": provenance(),
    }
    for part, picture in zip(parts, pictures, strict=True):
        picture["histogram"] = _figure(_histogram, part, _limits(parts))
    curves = _figure(_stability, parts) if report["depends_on_photos"] else None
    page = _page(report, pictures, curves)
    save_direction(
        guidance, out / "direction.safetensors", options, encoder, (len(sides["backlit"]), len(sides["welllit"]))
    )
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "report.html", page)
    return report


def _part(
    n: int,
    recipe: "Recipe",
    sides: "dict[str, Tensor]",
    unshifted: "ResidualGuidance",
    vocabulary: "Vocabulary | None",
    paths: dict[str, list[Path]],
    args: argparse.Namespace,
    seed: int,
) -> tuple[dict, dict]:
    """Figures of the direction shifted by n, and the photos at its ends."""
    from metrics.direction import agreement, auc, bootstrap_cosines, held_out_auc, photos_needed
    from training.directions import built

    def build(well_lit: "Tensor", backlit: "Tensor") -> "Tensor":
        return built(recipe, well_lit, backlit, n).vector

    guidance = built(recipe, sides["welllit"], sides["backlit"], n)
    projections = {side: embeddings @ guidance.vector for side, embeddings in sides.items()}
    pair = sides["welllit"], sides["backlit"]
    several = min(map(len, pair)) > 1
    cosines = bootstrap_cosines(build, *pair, args.bootstrap, seed)
    curve = agreement(build, *pair, SIZES, 10, seed)
    ends = {"plus": False, "minus": True}
    tokens = {
        name: vocabulary.nearest(guidance.vector, args.top, whole_words=args.whole_words, farthest=far)
        if vocabulary
        else []
        for name, far in ends.items()
    }
    # words are judged wherever they stand among the pieces
    content = {
        name: [
            token.text
            for token in vocabulary.nearest(guidance.vector, args.top, whole_words=True, farthest=far)
            if token.kind == "content"
        ]
        if vocabulary
        else []
        for name, far in ends.items()
    }
    part = {
        "n": n,
        "set_point": guidance.target,
        "backlit_projection": guidance.start,
        "cosine_with_unshifted": float(guidance.vector @ unshifted.vector),
        "auc": auc(projections["welllit"], projections["backlit"]),
        "auc_held_out": held_out_auc(build, *pair, 10, seed) if several else None,
        "bootstrap_mean": float(cosines.mean()),
        "bootstrap_low": float(cosines.quantile(0.05)),
        "agreement": {str(size): round(value, 4) for size, value in curve.items()},
        "photos_needed": photos_needed(curve, AGREE),
        "content_plus": content["plus"],
        "content_minus": content["minus"],
        "tokens_plus": [dataclasses.asdict(token) for token in tokens["plus"]],
        "tokens_minus": [dataclasses.asdict(token) for token in tokens["minus"]],
        "content_words": sorted({*content["plus"], *content["minus"]}),
        "projections": {side: [round(value, 4) for value in values.tolist()] for side, values in projections.items()},
    }
    photos = {}
    for side, values in projections.items():
        order = values.argsort(descending=True).tolist()
        count = min(args.photos, len(order))
        for name, indices in (("highest", order[:count]), ("lowest", order[::-1][:count])):
            photos[f"{side}_{name}"] = [
                {"path": paths[side][i], "name": paths[side][i].name, "projection": round(float(values[i]), 3)}
                for i in indices
            ]
    return part, photos


def _some(encoder: "ClipEncoder", rows: list[int]) -> "Tensor":
    """Some of the vocabulary; not cached, whole ones are."""
    import torch

    texts, _ = encoder.words()
    with torch.no_grad():
        return encoder.embed_words([texts[i] for i in rows]).cpu()


def _readable(paths: list[Path], embeddings: "Tensor") -> list[Path]:
    """The photos that the embeddings (N,D) belong to: all, or those that can be read."""
    from data.images import ImageError, read_rgb8

    if len(paths) == len(embeddings):
        return paths
    found = []
    for path in paths:
        try:
            read_rgb8(path)
        except ImageError:
            continue
        found.append(path)
    return found


def _thumbnail(path: Path, made: dict[Path, str], height: int = 130) -> str:
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


def _stability(parts: list[dict]) -> "Figure":
    """Agreement of directions from k photos a side, one curve for each shift."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.0), layout="constrained")
    axes = figure.subplots()
    for part in parts:
        curve = {int(size): value for size, value in part["agreement"].items()}
        if curve:
            axes.plot(list(curve), list(curve.values()), "o-", ms=4, label=f"n = {part['n']}")
    axes.axhline(AGREE, color="k", ls="--", lw=1, label=f"{AGREE}: the same")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel="photos a side", ylabel="cosine of two\ndisjoint samples", ylim=(min(0, axes.get_ylim()[0]), 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _page(report: dict, pictures: list[dict], curves: str | None) -> str:
    """The HTML, every text escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = _shown
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    first = next(index for index, part in enumerate(report["shifts"]) if part["n"] == report["n"])
    sections = [{**part, **picture} for part, picture in zip(report["shifts"], pictures, strict=True)]
    return template.render(
        report=report, sections=sections, main=sections[first], curves=curves, agree=AGREE, colors=(BACKLIT, WELLLIT)
    )


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _natural(text: str) -> int:
    return _at_least(text, 0)


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _at_least(text: str, low: int) -> int:
    if not text.isdecimal() or int(text) < low:
        raise argparse.ArgumentTypeError(f"expected a whole number from {low} on, found '{text}'")
    return int(text)


if __name__ == "__main__":
    run(main)
