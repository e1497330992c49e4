"""What limits the score on exposure pairs: how far the results would get if something about each photo were known.

python -m lab.limits --backlit DIR --gt DIR --list FILE [...] [--weights FILE] --json docs/results/limits.json

Full size, protocol `rgb`. Rows: the results; the same, each multiplied by the one gain that brings it nearest to its
ground truth (the exposure is then known); by a gain guessed from the result's brightness, and from its content, by a
ridge regression over all other pairs of the folders; the best map of one channel, fitted in windows of 17 x 17 pixels;
the same for every pixel by itself, the most that a network of this kind could give.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import write_text
from common.provenance import provenance
from data.images import read_rgb8
from data.images.photo import to_integers
from data.listing import named
from metrics.full_reference import psnr_rgb, ssim_rgb
from metrics.pairing import pair, read_names
from models.clip_encoder import load_clip
from models.retinex import enhance
from models.shipped import find_weights
from serving.enhancer import Enhancer

GAINS = np.arange(0.5, 2.001, 0.05)
SMOOTH = 17  # pixels, the side of the window
RIDGE = 1.0  # beside features of unit variance, their products divided by how many they are
QUANTILES = np.linspace(0.02, 0.98, 13)  # of the luminance, what "brightness" is


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlit", required=True, metavar="DIR")
    parser.add_argument("--gt", required=True, metavar="DIR")
    parser.add_argument("--list", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--weights", default=None, metavar="FILE", help="default: the shipped ones")
    parser.add_argument("--json", required=True, metavar="OUT.json")
    args = parser.parse_args(argv)
    names = {name for file in args.list for name in read_names(file, "--list")}
    pairs = pair(args.backlit, args.gt).pairs
    held = np.array([named(Path(p.name), names) for p in pairs], bool)
    if not held.sum() > 1 or held.all():
        raise UserError(
            f"--list: expected the names of two pairs or more, and not of all, found {held.sum()} of {len(pairs)}"
        )
    enhancer = Enhancer(args.weights and find_weights(args.weights, "--weights"))
    encoder = load_clip("efficientnet-lite0", "imagenet")
    results, gains, brightness, content = [], [], [], []
    for p in pairs:
        result = enhancer.enhance(read_rgb8(p.enhanced).astype(np.float32) / 255)[0]
        truth = read_rgb8(p.truth)
        gains.append(float(max(GAINS, key=lambda gain: psnr_rgb(to_integers(result * gain, np.uint8), truth))))
        brightness.append(np.quantile(result.mean(axis=2), QUANTILES))
        content.append(encoder.embed_images(torch.from_numpy(result).permute(2, 0, 1)[None])[0].numpy())
        results.append(to_integers(result, np.uint8))
    stops = np.log2(gains)
    guesses = {name: guess(np.array(x), stops, held) for name, x in (("brightness", brightness), ("content", content))}
    told = {
        name: round(float(1 - np.mean((guessed - stops[held]) ** 2) / stops[held].var()), 3)
        for name, guessed in guesses.items()
    }
    scores: dict[str, list[tuple[float, float]]] = {}
    for row, number in enumerate(np.flatnonzero(held)):
        backlit, truth = read_rgb8(pairs[number].enhanced), read_rgb8(pairs[number].truth)
        photo, target = (torch.from_numpy(a).permute(2, 0, 1)[None].float() / 255 for a in (backlit, truth))
        result = results[number].astype(np.float32) / 255
        found = {
            "results": results[number],
            **{
                f"exposure guessed from {name}": to_integers(result * 2 ** guesses[name][row], np.uint8)
                for name in guesses
            },
            "exposure known": to_integers(result * gains[number], np.uint8),
            "best smooth map": _pixels(enhance(photo, best_map(photo, target, SMOOTH))),
            "best map": _pixels(enhance(photo, best_map(photo, target, 1))),
        }
        for name, pixels in found.items():
            scores.setdefault(name, []).append((psnr_rgb(pixels, truth), ssim_rgb(pixels, truth)))
    rows = {name: [round(float(v), 3) for v in np.mean(values, axis=0)] for name, values in scores.items()}
    for name, (psnr, ssim) in rows.items():
        say(f"{name:20} {psnr:6.2f} dB  {ssim:.3f}")
    write_text(
        args.json, json.dumps({"pairs": int(held.sum()), "rows": rows, "told": told, **provenance()}, indent=2) + "\n"
    )
    return EXIT_OK


def guess(features: np.ndarray, values: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Values of the rows that are held back, by ridge regression over the others: (N,F), (N,), (N,) bool -> (M,)."""
    known = features[~held]
    features = (features - known.mean(axis=0)) / (known.std(axis=0) + 1e-9)
    known, mean = features[~held], values[~held].mean()
    alike = known @ known.T / known.shape[1] + RIDGE * np.eye(len(known))
    return features[held] @ known.T / known.shape[1] @ np.linalg.solve(alike, values[~held] - mean) + mean


def best_map(photo: Tensor, truth: Tensor, window: int) -> Tensor:
    """The M for which photo / M is nearest to the truth in each window (least squares in 1 / M).

    photo, truth (1,3,H,W) RGB in [0, 1]; window: the side, odd. Returns (1,1,H,W).
    """
    own, cross = (photo * photo).sum(1, keepdim=True), (photo * truth).sum(1, keepdim=True)
    edge = (window // 2,) * 4
    own, cross = (F.avg_pool2d(F.pad(x, edge, mode="reflect"), window, 1) for x in (own, cross))
    return own / (cross + 1e-6)


def _pixels(photo: Tensor) -> np.ndarray:
    return to_integers(photo[0].permute(1, 2, 0).numpy(), np.uint8)


if __name__ == "__main__":
    run(main)
