"""Score weight files, a plain gamma and doing nothing on the same pairs: one table, one JSON.

python tools/compare_weights.py --backlit DIR --gt DIR [--list FILE] --weights FILE [FILE ...] [--json OUT.json]

Photos are enhanced at full size with the padding of inference; PSNR and SSIM by protocol `rgb`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from tqdm import tqdm

from configs.cli import EXIT_OK, ArgumentParser, run
from configs.provenance import provenance
from data.images import read_rgb8
from data.listing import list_images
from errors import UserError
from files import write_atomically

GAMMA = 2.2


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlit", required=True, metavar="DIR")
    parser.add_argument("--gt", required=True, metavar="DIR")
    parser.add_argument("--list", metavar="FILE", help="only the photos named in this text file, one name a line")
    parser.add_argument("--weights", nargs="*", default=[], metavar="FILE", help="UNet weights; NAME=FILE gives a row its name")
    parser.add_argument("--json", metavar="OUT.json")
    args = parser.parse_args(argv)
    for key in ("backlit", "gt"):
        list_images(getattr(args, key), f"--{key}")

    from metrics.pairing import pair, read_names
    from serving.enhancer import Enhancer

    pairs = pair(args.backlit, args.gt).pairs
    if args.list:
        wanted = read_names(args.list, "--list")
        pairs = [p for p in pairs if p.name in wanted]
    if not pairs:
        raise UserError("--backlit, --gt: expected photos of the same names, found none")
    photos = [(read_rgb8(p.enhanced), read_rgb8(p.truth)) for p in pairs]
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "untouched input": lambda photo: photo,
        f"gamma {GAMMA}": lambda photo: photo ** np.float32(1 / GAMMA),
    }
    for item in args.weights:
        name, _, file = item.rpartition("=")
        enhancer = Enhancer(file)
        methods[name or Path(file).stem] = lambda photo, enhancer=enhancer: enhancer.enhance(photo)[0]
    rows = {name: _score(method, photos, name) for name, method in methods.items()}
    print(f"\n{len(pairs)} pairs\n{'':28} {'PSNR / dB':>9} {'SSIM':>6} {'s/photo':>8}")
    for name, row in rows.items():
        print(f"{name:28} {row['psnr']:9.2f} {row['ssim']:6.3f} {row['seconds_per_photo']:8.2f}")
    if args.json:
        content = {"pairs": len(pairs), "protocol": "rgb", "rows": rows, **provenance()}
        write_atomically(args.json, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"))
    return EXIT_OK


def _score(method: Callable[[np.ndarray], np.ndarray], photos: list[tuple[np.ndarray, np.ndarray]], name: str) -> dict[str, float]:
    from metrics.full_reference import psnr_rgb, ssim_rgb

    psnr, ssim, seconds = [], [], 0.0
    for backlit, truth in tqdm(photos, desc=name, leave=False):
        start = time.perf_counter()
        result = method(backlit.astype(np.float32) / 255)
        seconds += time.perf_counter() - start
        result = np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8)
        psnr.append(psnr_rgb(result, truth))
        ssim.append(ssim_rgb(result, truth))
    return {
        "psnr": round(float(np.mean(psnr)), 4),
        "ssim": round(float(np.mean(ssim)), 4),
        "seconds_per_photo": round(seconds / len(photos), 3),
    }


if __name__ == "__main__":
    run(main)
