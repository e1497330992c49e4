"""What one direction of guidance says and depends on:
the words nearest to it, its photos, how stable it is, for shifts of it.

`interpret` gathers and analyses (`training.direction_analysis`), and writes report.html (`training.direction_report`),
report.json and direction.safetensors.
"""

import json
from dataclasses import asdict
from pathlib import Path

from common.console import say
from common.files import write_text
from common.provenance import provenance
from configs.schema import TrainConfig
from metrics.direction import noise, photos_needed
from metrics.subjects import apart, shares, subjects
from training.direction_analysis import Analysis, Extent, Material, analyse, gather, shifts
from training.direction_report import histogram, page, stability, thumbnail
from training.directions import describe, save_direction

AGREE = 0.95  # cosine from which two directions are called the same; of our own


def interpret(config: TrainConfig, extent: Extent, out: Path) -> dict:
    """Analyse, and write report.html, report.json and direction.safetensors into `out`.

    Returns the content of report.json. Raises UserError for photos, encoders, words or files that give no direction,
    and for shifts by more tokens than are read.
    """
    material = gather(config, extent)
    analyses = []
    for n in shifts(material, extent):
        found = analyse(material, n, extent, config.exp.seed)
        say(f"n = {n:4}   AUC {found.auc:.4f}, cosine with the unshifted {found.cosine_with_unshifted:.3f}")
        analyses.append(found)
    report = _report(config, extent, material, analyses)
    html = _page(report, analyses)
    backlit, well_lit = (report["photos"][side] for side in ("backlit", "welllit"))
    file = out / "direction.safetensors"
    save_direction(material.direction(), file, config.guidance, material.encoder, (backlit, well_lit))
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "report.html", html)
    return report


def _report(config: TrainConfig, extent: Extent, material: Material, analyses: list[Analysis]) -> dict:
    """The content of report.json."""
    encoder, direction = material.encoder, material.direction()
    residual, unshifted = material.residual(), material.direction(0)
    return {
        "direction": describe(config.guidance),
        "n": material.recipe.n,
        "encoder": encoder.name,
        "random_weights": config.clip.guidance.pretrained is None,
        "photos": {side: len(folder.embeddings) for side, folder in material.folders.items()},
        "left_out": material.skipped,
        "means_cosine": float(unshifted.well_lit @ unshifted.backlit),
        "cosine_with_residual": float(direction.vector @ residual.vector),
        "depends_on_photos": "folders" in material.recipe.weights,
        "light_share": float(residual.vector @ material.relit.vector) ** 2,
        "subjects": _subjects(material),
        "tokens": {
            "read": material.read,
            "whole_words_only": extent.whole_words,
            "kind": encoder.vocabulary_kind,
            "noise": noise(len(direction.vector)),
            "why_none": "" if material.vocabulary else f"{encoder.name} has neither a text tower nor a classifier",
        },
        "shifts": [_figures(analysis) for analysis in analyses],
        "config": {name: getattr(config, name).model_dump() for name in ("guidance", "clip", "data")},
        "provenance": provenance(),
    }


def _figures(analysis: Analysis) -> dict:
    """What report.json says of one shift."""
    guidance, plus, minus = analysis.guidance, analysis.plus, analysis.minus
    return {
        "n": analysis.n,
        "set_point": guidance.target,
        "backlit_projection": guidance.start,
        "cosine_with_unshifted": analysis.cosine_with_unshifted,
        "auc": analysis.auc,
        "auc_held_out": analysis.auc_held_out,
        "bootstrap_mean": float(analysis.bootstrap.mean()),
        "bootstrap_low": float(analysis.bootstrap.quantile(0.05)),
        "agreement": {str(size): round(value, 4) for size, value in analysis.curve.items()},
        "photos_needed": photos_needed(analysis.curve, AGREE),
        "content_plus": plus.content,
        "content_minus": minus.content,
        "tokens_plus": [asdict(token) for token in plus.tokens],
        "tokens_minus": [asdict(token) for token in minus.tokens],
        "content_words": sorted({*plus.content, *minus.content}),
        "projections": {
            side: [round(value, 4) for value in values.tolist()] for side, values in analysis.projections.items()
        },
        "photos": {
            end: [{"name": path.name, "projection": value} for path, value in row] for end, row in analysis.ends.items()
        },
    }


def _subjects(material: Material) -> dict | None:
    """Shares of subjects in each folder, and which each shows more of; None for an encoder without a classifier."""
    if material.encoder.vocabulary_kind != "classes":
        return None
    names, classes = material.encoder.vocabulary()
    found = {
        side: shares(subjects(folder.embeddings.cpu(), names, classes.cpu()))
        for side, folder in material.folders.items()
    }
    more = {side: apart(found[side], found[other]) for side, other in (("welllit", "backlit"), ("backlit", "welllit"))}
    return {"shares": found, "more": more}


def _page(report: dict, analyses: list[Analysis]) -> str:
    """report.html: what report.json holds, with its curves drawn and its photos as thumbnails."""
    parts, made = report["shifts"], {}
    pictures = []
    for part, analysis in zip(parts, analyses, strict=True):
        photos = {
            end: [{"name": path.name, "projection": value, "uri": thumbnail(path, made)} for path, value in row]
            for end, row in analysis.ends.items()
        }
        pictures.append({"photos": photos, "histogram": histogram(part, parts)})
    curves = stability(parts, AGREE) if report["depends_on_photos"] else None
    return page(report, pictures, curves, AGREE)
