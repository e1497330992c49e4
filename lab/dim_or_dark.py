"""Whether guidance tells what is dim on purpose from what is too dark by mistake, where both are equally bright.

python -m lab.dim_or_dark --backlit DIR --gt DIR --list FILE [...] --well-lit DIR --well-lit-list FILE [...]
    --json docs/results/dim_or_dark.json

Dim on purpose: the darkest parts of well-exposed photos. Too dark: parts of under-exposed photos. All have a mean of
`MEANS`. Both kinds come from each of two sources, so that nothing but the light tells them apart: photos and the same
photos darkened; ground truths and their under-exposed photos. Directions: RAVE's residual vector r of whole photos, and
the one fitted to the task, the difference of both kinds' means. Both are made without the photos that the lists name;
these are ranked by their cosine with it, and the AUC says how often one that is dim on purpose comes before one that is
too dark, of those pairs whose means differ by less than `ALIKE`. 0.5 is chance.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.files import write_text
from common.provenance import provenance
from data.backlight import linear_to_srgb, srgb_to_linear
from data.images import read_rgb8
from data.listing import list_images, named
from data.low_key import darkest_part
from metrics.pairing import pair, read_names
from models.clip_encoder import ClipEncoder, load_clip

SIDE = 128  # pixels of what is embedded
LARGEST = 481  # pixels of a photo's longer side, that of BSDS500, so that both sources are equally sharp
SIDES = (0.35, 0.5, 0.7)  # of a part, of the photo's
MEANS = (0.1, 0.26)
ALIKE = 0.02  # of full scale
STOPS = np.arange(0, 8, 0.05)
ENCODERS = (("efficientnet-lite0", "last"), ("efficientnet-lite0", "stages"))
Kinds = dict[str, list[Tensor]]  # "dim", "dark": parts (3,SIDE,SIDE); "well-lit", "backlit": whole photos


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlit", required=True, metavar="DIR")
    parser.add_argument("--gt", required=True, metavar="DIR")
    parser.add_argument("--list", nargs="+", required=True, metavar="FILE", help="pairs to rank")
    parser.add_argument("--well-lit", required=True, metavar="DIR")
    parser.add_argument("--well-lit-list", nargs="+", required=True, metavar="FILE", help="photos to rank")
    parser.add_argument("--json", required=True, metavar="OUT.json")
    args = parser.parse_args(argv)
    held_pairs = {name for file in args.list for name in read_names(file, "--list")}
    held_photos = {name for file in args.well_lit_list for name in read_names(file, "--well-lit-list")}
    pairs = [(named(Path(p.name), held_pairs), p.enhanced, p.truth) for p in pair(args.backlit, args.gt).pairs]
    photos = [(named(Path(p.name), held_photos), p) for p in list_images(args.well_lit, "--well-lit")]
    rng = np.random.default_rng(0)
    sources = {
        held: {
            "photos and the same darkened": _of_photos((p for h, p in photos if h == held), rng),
            "ground truths and their photos": _of_pairs(((b, t) for h, b, t in pairs if h == held), rng),
        }
        for held in (False, True)
    }
    rows = {}
    for name, layers in ENCODERS:
        encoder = load_clip(name, "imagenet").in_layers(layers)
        for direction, vector in directions(encoder, sources[False]).items():
            rows[f"{name}, {layers}: {direction}"] = {
                source: auc(
                    *((embed(encoder, kinds[kind]) @ vector).numpy() for kind in ("dim", "dark")),
                    alike=np.abs(_means(kinds["dim"])[:, None] - _means(kinds["dark"])[None]) < ALIKE,
                )
                for source, kinds in sources[True].items()
            }
    for row, values in rows.items():
        say(f"{row:50}" + "".join(f" {value:.2f}" for value in values.values()))
    counts = {source: {kind: len(kinds[kind]) for kind in ("dim", "dark")} for source, kinds in sources[True].items()}
    content = {"rows": rows, "ranked": counts, **provenance()}
    write_text(args.json, json.dumps(content, indent=2) + "\n")
    return EXIT_OK


def directions(encoder: ClipEncoder, sources: dict[str, Kinds]) -> dict[str, Tensor]:
    """Unit vectors (D,) that point to what should stay: r, and the one fitted to both kinds of parts."""
    mean = {
        kind: torch.stack([embed(encoder, kinds[kind]).mean(dim=0) for kinds in sources.values() if kind in kinds])
        for kind in ("well-lit", "backlit", "dim", "dark")
    }
    found = {
        "residual vector r": mean["well-lit"].mean(dim=0) - mean["backlit"].mean(dim=0),
        "fitted to the task": mean["dim"].mean(dim=0) - mean["dark"].mean(dim=0),
    }
    return {name: F.normalize(vector, dim=0) for name, vector in found.items()}


@torch.no_grad()
def embed(encoder: ClipEncoder, images: list[Tensor], batch: int = 16) -> Tensor:
    """(N,D), of unit length."""
    parts = [encoder.embed_images(torch.stack(images[i : i + batch])) for i in range(0, len(images), batch)]
    return F.normalize(torch.cat(parts), dim=1)


def auc(first: np.ndarray, second: np.ndarray, alike: np.ndarray) -> float:
    """How often a value of `first` (N,) is above one of `second` (M,), of the pairs that `alike` (N,M) marks."""
    above = (first[:, None] > second[None]) + 0.5 * (first[:, None] == second[None])
    return round(float(above[alike].mean()), 3)


def _of_photos(paths: Iterator[Path], rng: np.random.Generator) -> Kinds:
    kinds: Kinds = {"dim": [], "dark": [], "well-lit": []}
    for path in paths:
        photo = _read(path)
        kinds["well-lit"].append(_resized(photo))
        kinds["dim"] += _darkest_parts(photo)
        kinds["dark"] += [_resized(_darkened(part, rng.uniform(*MEANS))) for part in _parts(photo, rng, 1)]
    return kinds


def _of_pairs(paths: Iterator[tuple[Path, Path]], rng: np.random.Generator) -> Kinds:
    kinds: Kinds = {"dim": [], "dark": [], "backlit": []}
    for backlit, truth in paths:
        photo = _read(backlit)
        kinds["backlit"].append(_resized(photo))
        kinds["dim"] += _darkest_parts(_read(truth))
        kinds["dark"] += [_resized(part) for part in _parts(photo, rng, 3) if _in_range(part)]
    return kinds


def _darkest_parts(photo: Tensor) -> list[Tensor]:
    return [_resized(part) for part in (darkest_part(photo, sides) for sides in SIDES) if _in_range(part)]


def _parts(photo: Tensor, rng: np.random.Generator, count: int) -> Iterator[Tensor]:
    """Parts (3,h,w) of a photo (3,H,W) at random places, with sides of `SIDES`."""
    for _ in range(count):
        sides = rng.choice(SIDES)
        height, width = (round(sides * side) for side in photo.shape[1:])
        top, left = (
            int(rng.integers(0, whole - part + 1)) for whole, part in zip(photo.shape[1:], (height, width), strict=True)
        )
        yield photo[:, top : top + height, left : left + width]


def _darkened(photo: Tensor, mean: float) -> Tensor:
    """Under-exposed until its mean is `mean`, or as it is where it is darker; (3,H,W), at 8 bits."""
    linear = srgb_to_linear(photo)
    stops = next((s for s in STOPS if linear_to_srgb(linear * 2.0**-s).mean() <= mean), STOPS[-1])
    return (linear_to_srgb(linear * 2.0**-stops) * 255).round() / 255


def _in_range(part: Tensor) -> bool:
    return MEANS[0] < float(part.mean()) < MEANS[1]


def _means(images: list[Tensor]) -> np.ndarray:
    return np.array([float(image.mean()) for image in images])


def _read(path: Path) -> Tensor:
    """(3,H,W) in [0, 1], the longer side at most `LARGEST`."""
    photo = torch.from_numpy(read_rgb8(path)).permute(2, 0, 1)[None].float() / 255
    scale = min(1.0, LARGEST / max(photo.shape[2:]))
    size = [round(scale * side) for side in photo.shape[2:]]
    return F.interpolate(photo, size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _resized(photo: Tensor) -> Tensor:
    return F.interpolate(photo[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0].clamp(0, 1)


if __name__ == "__main__":
    run(main)
