"""What one direction of guidance says and depends on:
the words nearest to it, its photos, how stable it is, for shifts of it.

`interpret` writes report.html (`training.direction_report`), report.json and direction.safetensors.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from common.console import say
from common.errors import UserError
from common.sequences import evenly
from configs.schema import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

    from losses.residual import ResidualGuidance
    from metrics.direction import Vocabulary
    from models.clip_encoder import ClipEncoder
    from training.directions import Recipe

SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # photos a side, whose directions are compared
AGREE = 0.95  # cosine from which two directions are called the same; of our own


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is looked at."""

    n: list[int]  # shifts, in tokens at each end
    tokens: int | None = None  # of the vocabulary that are read, spread evenly; None: all
    top: int = 15  # tokens listed at each end
    photos: int = 6  # photos shown at each end
    bootstrap: int = 100  # times that photos are drawn anew
    whole_words: bool = False  # list whole words that the encoder knows, no pieces of words


def interpret(config: TrainConfig, extent: Extent, out: Path) -> dict:
    """Analyse, and write report.html, report.json and direction.safetensors into `out`.

    Returns the content of report.json.
    """

    from common.files import write_text
    from common.provenance import provenance
    from metrics.direction import Vocabulary
    from training.direction_report import histogram, page, stability, thumbnail
    from training.directions import (
        describe,
        embed_folders,
        read_recipe,
        relit_guidance,
        save_direction,
        source_weights,
    )
    from training.embeddings import embed_vocabulary, load_encoder
    from training.photos import training_photos
    from training.runtime import make_accelerator

    options = config.guidance
    sources = source_weights(options)
    listed = dict(zip(("backlit", "welllit"), training_photos(config.data), strict=True))
    device = make_accelerator(config.train.device, config.train.precision).device
    encoder = load_encoder(config.clip.guidance, config.clip, device).in_layers(options.layers)
    say(f"encoder    {encoder.name}")
    picked = None
    if encoder.vocabulary_kind:
        texts, whole = encoder.words()
        rows = evenly(range(len(texts)), extent.tokens or len(texts))
        tokens = _some(encoder, rows) if extent.tokens else embed_vocabulary(encoder, config.exp.cache_dir)
        picked = Vocabulary([texts[i] for i in rows], [whole[i] for i in rows], tokens)
    # how much of the difference between the folders is light: measured on relit pairs, whatever the direction
    as_relit = config.model_copy(update={"guidance": options.model_copy(update={"direction": "relit"})})
    relit, _ = relit_guidance(as_relit, encoder, listed["backlit"], listed["welllit"])
    used = relit if "relit" in sources else None
    unshifted_options = options.model_copy(update={"remove_first_n_tokens": 0})
    recipe = read_recipe(unshifted_options, encoder, config.exp.cache_dir, used)
    if options.remove_first_n_tokens and not picked:
        raise UserError(f"guidance.remove_first_n_tokens: needs an encoder with a vocabulary, found {encoder.name}")
    recipe = dataclasses.replace(recipe, tokens=tokens if picked else None, n=options.remove_first_n_tokens)

    *embeddings, skipped = embed_folders(config, encoder, listed["backlit"], listed["welllit"])
    guidance = recipe.direction(*embeddings)
    shifts = sorted({*extent.n, recipe.n}) if picked else [0]
    if picked and len(tokens) < 2 * shifts[-1]:
        raise UserError(f"--tokens: expected at least twice the largest shift ({shifts[-1]}), found {len(tokens)}")
    sides = dict(zip(("welllit", "backlit"), embeddings, strict=True))
    readable = {side: _readable(listed[side], values) for side, values in sides.items()}
    unshifted = recipe.direction(*embeddings, 0)
    of_folders = {"weights": {"folders": 1.0}, "vectors": {}, "removed": recipe.removed[:0], "n": 0, "relit": None}
    residual = dataclasses.replace(recipe, **of_folders).direction(*embeddings)
    thumbnails: dict[Path, str] = {}
    parts, pictures = [], []
    for n in shifts:
        part, photos = _part(n, recipe, sides, unshifted, picked, readable, extent, config.exp.seed)
        parts.append(part)
        shown = {
            name: [{**photo, "uri": thumbnail(photo.pop("path"), thumbnails)} for photo in row]
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
        "subjects": _subjects(encoder, sides),
        "tokens": {
            "read": len(tokens) if picked else 0,
            "whole_words_only": extent.whole_words,
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
        picture["histogram"] = histogram(part, parts)
    curves = stability(parts, AGREE) if report["depends_on_photos"] else None
    html = page(report, pictures, curves, AGREE)
    save_direction(
        guidance, out / "direction.safetensors", options, encoder, (len(sides["backlit"]), len(sides["welllit"]))
    )
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "report.html", html)
    return report


def _part(
    n: int,
    recipe: "Recipe",
    sides: "dict[str, Tensor]",
    unshifted: "ResidualGuidance",
    vocabulary: "Vocabulary | None",
    paths: dict[str, list[Path]],
    extent: Extent,
    seed: int,
) -> tuple[dict, dict]:
    """Figures of the direction shifted by n, and the photos at its ends."""
    from metrics.direction import agreement, auc, bootstrap_cosines, held_out_auc, photos_needed

    def direction_of(well_lit: "Tensor", backlit: "Tensor") -> "Tensor":
        return recipe.direction(well_lit, backlit, n).vector

    guidance = recipe.direction(sides["welllit"], sides["backlit"], n)
    projections = {side: embeddings @ guidance.vector for side, embeddings in sides.items()}
    folders = sides["welllit"], sides["backlit"]
    several = min(map(len, folders)) > 1
    cosines = bootstrap_cosines(direction_of, *folders, extent.bootstrap, seed)
    curve = agreement(direction_of, *folders, SIZES, 10, seed)
    ends = {"plus": False, "minus": True}
    tokens = {
        name: vocabulary.nearest(guidance.vector, extent.top, whole_words=extent.whole_words, farthest=far)
        if vocabulary
        else []
        for name, far in ends.items()
    }
    # words are judged wherever they stand among the pieces
    content = {
        name: [
            token.text
            for token in vocabulary.nearest(guidance.vector, extent.top, whole_words=True, farthest=far)
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
        "auc_held_out": held_out_auc(direction_of, *folders, 10, seed) if several else None,
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
        count = min(extent.photos, len(order))
        for name, indices in (("highest", order[:count]), ("lowest", order[::-1][:count])):
            photos[f"{side}_{name}"] = [
                {"path": paths[side][i], "name": paths[side][i].name, "projection": round(float(values[i]), 3)}
                for i in indices
            ]
    return part, photos


def _subjects(encoder: "ClipEncoder", sides: "dict[str, Tensor]") -> dict | None:
    """Shares of subjects in each folder, and which each shows more of; None for an encoder without a classifier."""
    from metrics.subjects import apart, shares, subjects

    if encoder.vocabulary_kind != "classes":
        return None
    names, classes = encoder.vocabulary()
    found = {side: shares(subjects(embeddings.cpu(), names, classes.cpu())) for side, embeddings in sides.items()}
    more = {side: apart(found[side], found[other]) for side, other in (("welllit", "backlit"), ("backlit", "welllit"))}
    return {"shares": found, "more": more}


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
