"""What limits the score on exposure pairs: how far the results would get if something about each photo were known.

python -m lab.limits --backlit DIR --gt DIR --list FILE [...] [--weights FILE] --json docs/results/limits.json

Full size, protocol `rgb`. Rows: the results; the same, each multiplied by the one gain that brings it nearest to its
ground truth (the exposure is then known); the best map of one channel, fitted in windows of 17 x 17 pixels; the same
for every pixel by itself, the most that a network of this kind could give.
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
from common.files import write_text
from common.provenance import provenance
from data.images import read_rgb8
from data.listing import named
from metrics.full_reference import psnr_rgb, ssim_rgb
from metrics.pairing import pair, read_names
from metrics.scores import to_uint8
from models.retinex import enhance
from serving.enhancer import Enhancer

GAINS = np.arange(0.5, 2.001, 0.05)
SMOOTH = 17  # pixels, the side of the window


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlit", required=True, metavar="DIR")
    parser.add_argument("--gt", required=True, metavar="DIR")
    parser.add_argument("--list", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--weights", default=None, metavar="FILE", help="default: the shipped ones")
    parser.add_argument("--json", required=True, metavar="OUT.json")
    args = parser.parse_args(argv)
    names = {name for file in args.list for name in read_names(file, "--list")}
    pairs = [p for p in pair(args.backlit, args.gt).pairs if named(Path(p.name), names)]
    enhancer = Enhancer(args.weights)
    scores: dict[str, list[tuple[float, float]]] = {}
    for p in pairs:
        backlit, truth = read_rgb8(p.enhanced), read_rgb8(p.truth)
        result = enhancer.enhance(backlit.astype(np.float32) / 255)[0]
        candidates = [to_uint8(result * gain) for gain in GAINS]
        best_gain = max(candidates, key=lambda photo: psnr_rgb(photo, truth))
        photo, target = (torch.from_numpy(a).permute(2, 0, 1)[None].float() / 255 for a in (backlit, truth))
        found = {
            "results": to_uint8(result),
            "exposure known": best_gain,
            "best smooth map": _pixels(enhance(photo, best_map(photo, target, SMOOTH))),
            "best map": _pixels(enhance(photo, best_map(photo, target, 1))),
        }
        for name, pixels in found.items():
            scores.setdefault(name, []).append((psnr_rgb(pixels, truth), ssim_rgb(pixels, truth)))
    rows = {name: [round(float(v), 3) for v in np.mean(values, axis=0)] for name, values in scores.items()}
    for name, (psnr, ssim) in rows.items():
        say(f"{name:20} {psnr:6.2f} dB  {ssim:.3f}")
    write_text(args.json, json.dumps({"pairs": len(pairs), "rows": rows, **provenance()}, indent=2) + "\n")
    return EXIT_OK


def best_map(photo: Tensor, truth: Tensor, window: int) -> Tensor:
    """The M for which photo / M is nearest to the truth in each window (least squares in 1 / M).

    photo, truth (1,3,H,W) RGB in [0, 1]; window: the side, odd. Returns (1,1,H,W).
    """
    own, cross = (photo * photo).sum(1, keepdim=True), (photo * truth).sum(1, keepdim=True)
    edge = (window // 2,) * 4
    own, cross = (F.avg_pool2d(F.pad(x, edge, mode="reflect"), window, 1) for x in (own, cross))
    return own / (cross + 1e-6)


def _pixels(photo: Tensor) -> np.ndarray:
    return to_uint8(photo[0].permute(1, 2, 0).numpy())


if __name__ == "__main__":
    run(main)
