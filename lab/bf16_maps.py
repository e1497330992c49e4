"""What bf16 does to the map, and what keeping its first and last convolution in float32 mends.

python -m lab.bf16_maps [--json docs/results/bf16_maps.json]

A grey ramp of 16 bits, 512 pixels wide, away from its border, and two photos taken against the sun. Rows: all layers in
bf16; all but the first and the last convolution, as PyTorch runs it here; OpenVINO in bf16, where it is installed; and
float32, in which photos of 16 bits are computed. Processor seconds are those of one thread, rows taking turns.
"""

import argparse
import copy
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from common.cli import EXIT_OK, ArgumentParser, run
from common.files import write_text
from common.paths import REPO_ROOT
from common.provenance import provenance
from configs.schema import InferenceModel
from data.images import read_rgb8

if TYPE_CHECKING:
    from torch import Tensor

RAMPS = {"0 to 1": (0.0, 1.0), "0 to 1/2": (0.0, 0.5), "1/2 to 1": (0.5, 1.0)}  # of white, over 512 pixels
WIDTH, HEIGHT, BORDER = 512, 64, 20  # pixels; HALO is 17
PHOTOS = ("seeding", "sunset")
TIMED = 384  # pixels to a side
TOP = 65535

Network = Callable[["Tensor"], "Tensor"]


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing (default: %(default)s)")
    args = parser.parse_args(argv)
    results = measure(args.repeats)
    for name, row in results["rows"].items():
        print(f"{name:30} {row}")
    if args.json:
        write_text(args.json, json.dumps(results, indent=2) + "\n")
    return EXIT_OK


def measure(repeats: int) -> dict:
    """The figures of all rows, and where they come from."""
    import torch

    torch.set_num_threads(1)
    networks = _networks()
    with torch.inference_mode():
        rows = {name: _figures(network, networks["float32"]) for name, network in networks.items()}
        for name, seconds in _seconds(networks, repeats).items():
            rows[name]["processor_seconds"] = round(seconds, 3)
    return {"rows": rows, "timed_pixels": TIMED * TIMED, "repeats": repeats, "provenance": provenance()}


def _networks() -> dict[str, Network]:
    import torch

    from models.checkpoints import load_unet
    from serving.openvino_network import OpenVinoNetwork

    def torch_network(unet) -> Network:
        unet = unet.to(memory_format=torch.channels_last)
        return lambda images: unet(images.contiguous(memory_format=torch.channels_last)).float()

    unet = load_unet(REPO_ROOT / InferenceModel().checkpoint)
    networks = {
        "float32": torch_network(unet),
        "bf16, all layers": torch_network(copy.deepcopy(unet).to(torch.bfloat16)),
        "bf16, but the first and last": torch_network(copy.deepcopy(unet).inner_to(torch.bfloat16)),
    }
    if importlib.util.find_spec("openvino"):
        converted = OpenVinoNetwork(lambda: unet, "bf16")
        networks["bf16 in OpenVINO"] = lambda images: torch.from_numpy(converted.whole(images))
    return networks


def _figures(network: Network, exact: Network) -> dict:
    """Of one network: values of the map near 1, steps back on each ramp, and agreement with float32 in dB."""
    import torch

    from models.retinex import enhance

    inner, row = slice(BORDER, -BORDER), {"near_1": {}, "steps_back": {}, "steps": WIDTH - 2 * BORDER - 1, "db": {}}
    for name, (low, high) in RAMPS.items():
        levels = np.rint(np.linspace(low * TOP, high * TOP, WIDTH)).astype(np.float32) / TOP
        images = torch.from_numpy(levels).expand(1, 3, HEIGHT, WIDTH)
        maps = network(images)
        result = (enhance(images, maps)[0, 0, HEIGHT // 2, inner] * TOP).round()
        row["near_1"][name] = maps[..., inner][(maps[..., inner] - 1).abs() < 0.01].unique().numel()
        row["steps_back"][name] = int((result.diff() < 0).sum())
        row["db"][name] = _db(enhance(images, maps), enhance(images, exact(images)))
    for name in PHOTOS:
        images = torch.from_numpy(read_rgb8(REPO_ROOT / f"docs/photos/{name}.jpg")).permute(2, 0, 1)[None] / 255
        row["db"][name] = _db(enhance(images, network(images)), enhance(images, exact(images)))
    return row


def _db(result: "Tensor", expected: "Tensor") -> float | None:
    """PSNR in dB; None where both are the same."""
    mse = (result - expected).double().square().mean().item()
    return round(float(-10 * np.log10(mse)), 1) if mse else None


def _seconds(networks: dict[str, Network], repeats: int) -> dict[str, float]:
    import torch

    images, spent = torch.rand(1, 3, TIMED, TIMED), {name: [] for name in networks}
    for _ in range(repeats):
        for name, network in networks.items():
            start = time.process_time()
            network(images)
            spent[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


if __name__ == "__main__":
    run(main)
