"""Report what guides a RAVE training: its words, photos and possible bias.

python -m tools interpret-residual --cfg train.yaml [--set KEY=VALUE] [--out DIR]

Writes report.html, one file that opens anywhere, and report.json.

For the direction of the config (`guidance:`) and for shifts of it by n tokens: the vocabulary's nearest and farthest
tokens, words among them that may be data bias, how well it separates the two folders, the photos at its ends, and how
much it depends on which photos it was made of. The direction itself is written beside, as direction.safetensors (for
`guidance.saved`).
"""

import argparse
import dataclasses
from pathlib import Path

from common.cli import EXIT_OK, make_parser, run
from common.console import say
from common.errors import UserError
from common.pages import shown
from common.paths import find_folders
from common.written import check_replaceable
from configs.load import load_config
from configs.schema import TrainConfig
from data.outputs import kind_of_folder


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
        help="times that photos are resampled (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    config = load_config(TrainConfig, args.cfg, args.overrides)
    find_folders({f"data.{key}": getattr(config.data, key) for key in ("backlit_images_path", "welllit_images_path")})
    out = Path(args.out or Path(config.exp.save_dir) / f"{config.exp.exp_name}_direction")
    if out.is_dir() and (kind := kind_of_folder({path.name for path in out.iterdir()})):
        raise UserError(f"--out: expected a folder of its own, found {kind}: {out}")
    check_replaceable(out / "report.json", "--out", mark='"cosine_with_residual"')
    check_replaceable(out / "report.html", "--out")
    from training.interpretation import Extent, interpret  # torch: after a user's mistakes were told

    extent = Extent(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Extent)})
    report = interpret(config, extent, out)
    first = next(part for part in report["shifts"] if part["n"] == report["n"])
    say(f"direction  {report['direction']}")
    say(f"AUC        {first['auc']:.4f}, on photos it was not made of {shown(first['auc_held_out'], '.4f')}")
    say(f"stability  cosine {first['bootstrap_mean']:.3f} with resampled photos")
    say(f"light      {100 * report['light_share']:.0f} % of the difference between the folders")
    say(f"not light  {', '.join(first['content_words']) or 'nothing'}")
    say(f"look at    {out / 'report.html'}")
    return EXIT_OK


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
