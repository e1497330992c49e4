"""Train the enhancement network with RAVE: python train_rave.py --cfg configs/train/rave.yaml"""

import os

from configs.cli import EXIT_OK, make_parser, run
from configs.load import dump_config, find_folder, load_config
from configs.schema import TrainConfig
from errors import UserError


def main(argv: list[str]) -> int:
    parser = make_parser(
        "Train the enhancement network with RAVE (ECCV 2024), from a folder of backlit and a folder of well-lit photos.",
        default_cfg="configs/train/rave.yaml",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run of this config, from its last saved state")
    parser.add_argument("--dry-run", action="store_true", help="check config and folders, print config and schedule, write nothing")
    args = parser.parse_args(argv)
    config = load_config(TrainConfig, args.cfg, args.overrides)
    if config.exp.mode != "rave":
        raise UserError(f"{args.cfg}: exp.mode: this version trains 'rave', found '{config.exp.mode}'")
    for key in ("backlit_images_path", "welllit_images_path"):
        find_folder(getattr(config.data, key), f"data.{key}")
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        print(dump_config(config))

    from training.loop import train_rave  # torch takes seconds to import: only once the config is known to be good

    train_rave(config, resume=args.resume, dry_run=args.dry_run)
    return EXIT_OK


if __name__ == "__main__":
    run(main)
