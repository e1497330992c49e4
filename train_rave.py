"""Train the enhancement network with RAVE: python train_rave.py --cfg configs/train/rave.yaml"""

from common.cli import run
from training.stop import leaving_at_once


def main(argv: list[str]) -> int:
    with leaving_at_once():
        from training.command import train_command

    return train_command(
        argv,
        script="train_rave.py",
        description=(
            "Train the enhancement network with RAVE (ECCV 2024), from a folder of backlit and a "
            "folder of well-lit photos."
        ),
        default_cfg="configs/train/rave.yaml",
    )


if __name__ == "__main__":
    run(main)
