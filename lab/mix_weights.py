"""Mix weights: a fine-tuned network with the one it started from, or several that started from one.

python -m lab.mix_weights A.safetensors B.safetensors [...] [--shares 0.7 0.3] --output FILE.safetensors

Each tensor is the sum of share · that tensor; shares default to equal ones, and are divided by their sum. Between a
network and a fine-tuned one the average often does better on new photos than either (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022). Do not mix networks from different starts: their channels mean different
things. FILE's metadata has each part's share, SHA-256 and own metadata. `compare-weights` scores the result.
"""

import argparse
import json
import math
from pathlib import Path

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import file_digest
from common.paths import find_weights
from common.provenance import provenance
from common.written import check_no_input


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", metavar="FILE", help="two weight files or more, of any format")
    parser.add_argument("--shares", nargs="+", type=float, metavar="S", help="one for each file (default: equal)")
    parser.add_argument("--output", required=True, metavar="FILE")
    args = parser.parse_args(argv)
    if len(args.weights) < 2:
        raise UserError(f"weights: expected two files or more, found {len(args.weights)}")
    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise UserError(f"--output: expected a name that ends in .safetensors, found {args.output}")
    files = [find_weights(file, "weights") for file in args.weights]
    check_no_input(output, files, "--output")
    shares = _shares(args.shares, len(files))
    average(files, shares, output)
    parts = " + ".join(f"{share:.4g} x {file}" for file, share in zip(files, shares, strict=True))
    say(f"{output}: {parts}")
    return EXIT_OK


def average(files: list[Path], shares: list[float], output: Path) -> None:
    """Write Σ share · weights to `output`, whole, with where they come from.

    Raises UserError for files that do not hold the illumination UNet, and where the average enhances nothing.
    """
    from models.checkpoints import load_unet, refuse_unusable, save_unet
    from models.weight_files import read_metadata

    networks = [load_unet(file) for file in files]
    parts = [network.state_dict() for network in networks]
    mean = networks[0]
    mean.load_state_dict(
        {
            name: sum(share * part[name].double() for share, part in zip(shares, parts, strict=True)).float()
            for name in parts[0]
        }
    )
    refuse_unusable(mean, "the average of these files", must_enhance=True)
    made_of = [
        {"file": file.name, "sha256": file_digest(file), "share": share, "made_by": read_metadata(file)}
        for file, share in zip(files, shares, strict=True)
    ]
    save_unet(mean, output, {"average": json.dumps(made_of), "commit": str(provenance()["commit"])})


def _shares(given: list[float] | None, count: int) -> list[float]:
    """Shares that add up to 1. Raises UserError where they are not one positive number for each file."""
    shares = given or [1.0] * count
    if len(shares) != count:
        raise UserError(f"--shares: expected {count} numbers, one for each file, found {len(shares)}")
    if bad := [share for share in shares if not 0 < share < math.inf]:
        raise UserError(f"--shares: expected numbers above 0, found {bad[0]:g}")
    if math.isinf(total := sum(shares)):
        raise UserError(f"--shares: expected numbers with a finite sum, found {' '.join(f'{s:g}' for s in shares)}")
    return [share / total for share in shares]


if __name__ == "__main__":
    run(main)
