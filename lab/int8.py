"""How near int8 comes to fp32: post-training quantisation of the network by NNCF, in OpenVINO.

python -m lab.int8 --calibration FOLDER --photos FOLDER [--json docs/results/int8.json]

Needs OpenVINO and `pip install nncf`, which nothing else here does. Crops of the first folder calibrate, of the
second's measure; both whole networks, on one thread each, in turns.
"""

import argparse
import importlib.util
import json
import os
import statistics
from pathlib import Path

import numpy as np

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import write_text
from common.paths import REPO_ROOT, find_folder
from common.provenance import provenance
from configs.schema import InferenceModel
from data.images import read_rgb8
from data.listing import list_images
from lab.bench.clock import seconds_of

RESULTS = REPO_ROOT / "docs" / "results" / "int8.json"
CALIBRATION, MEASURED = 32, 12  # photos at most
CROP = 384  # pixels
HIGHER = {  # layers that stay in bf16
    "all layers": (),
    "all but the first and last": ("cond1", "cond_add1"),
    "those of 64 channels alone": (
        *("cond1", "ResidualBlock1", "ResidualBlock2", "PPM1", "ResidualBlock5", "ResidualBlock6", "cond_add1"),
    ),
}


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", required=True, metavar="FOLDER")
    parser.add_argument("--photos", required=True, metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--json", default=str(RESULTS), metavar="FILE", help="default: %(default)s")
    args = parser.parse_args(argv)
    if not all(map(importlib.util.find_spec, ("openvino", "nncf"))):
        raise UserError("lab.int8: expected the packages openvino and nncf (pip install nncf), found no such packages")
    os.environ["NNCF_CI"] = "1"  # NNCF tells nobody that it runs
    crops = [
        [_crop(path) for path in list_images(find_folder(folder, flag), flag)[:most]]
        for folder, flag, most in (
            (args.calibration, "--calibration", CALIBRATION),
            (args.photos, "--photos", MEASURED),
        )
    ]
    rows = _measure(*crops, args.repeats)
    for name, row in rows.items():
        say(f"{name:30} {row['median_db']} dB (lowest {row['lowest_db']}), {row['seconds']:.3f} s")
    results = {"rows": rows, "photos": len(crops[1]), "provenance": provenance()}
    write_text(Path(args.json), json.dumps(results, indent=2) + "\n")
    return EXIT_OK


def _crop(path: Path) -> np.ndarray:
    rgb = read_rgb8(path)
    top, left = (max(0, (side - CROP) // 2) for side in rgb.shape[:2])
    return rgb[top : top + CROP, left : left + CROP].transpose(2, 0, 1)[None].astype(np.float32) / 255


def _measure(calibration: list[np.ndarray], photos: list[np.ndarray], repeats: int) -> dict:
    import nncf
    import torch

    from models.checkpoints import load_unet
    from models.retinex import enhance
    from serving.openvino_network import WHOLE, core, openvino_model
    from serving.torch_network import parts

    torch.set_num_threads(1)
    unet = load_unet(REPO_ROOT / InferenceModel().checkpoint)

    def compiled(precision: str, higher: tuple[str, ...] | None):
        model = openvino_model(parts(unet, False)[WHOLE], (torch.zeros(1, 3, 8, 9),))
        if higher is not None:
            layers = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
            kept = [name for name in layers if any(f".{layer}" in name for layer in higher)]
            scope = nncf.IgnoredScope(names=kept) if kept else None
            model = nncf.quantize(
                model,
                nncf.Dataset(calibration),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(calibration),
                ignored_scope=scope,
            )
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
        return core().compile_model(model, "CPU", options)

    networks = {"fp32": compiled("f32", None), "bf16": compiled("bf16", None)}
    networks |= {f"int8, {name}": compiled("bf16", higher) for name, higher in HIGHER.items()}
    results = {name: [enhance(x, network([x])[0]) for x in photos] for name, network in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(repeats):
        for name, network in networks.items():
            seconds[name].append(seconds_of(lambda network=network: network([photos[0]])))
    rows = {}
    for name, its in results.items():
        errors = [float(np.mean((a - b) ** 2)) for a, b in zip(its, results["fp32"], strict=True)]
        db = [round(-10 * np.log10(error), 1) for error in errors if error]
        median, lowest = (statistics.median(db), min(db)) if db else (None, None)
        spent = statistics.median(seconds[name])
        ratio = statistics.median(seconds["fp32"]) / spent
        rows[name] = {"median_db": median, "lowest_db": lowest, "seconds": spent, "ratio": ratio}
    return rows


if __name__ == "__main__":
    run(main)
