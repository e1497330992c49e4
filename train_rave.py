"""Train the enhancement network with RAVE: python train_rave.py --cfg configs/train/rave.yaml"""

if __name__ == "__main__":  # before other imports: Ctrl-C in the middle of them is no traceback
    from common.interrupt import without_traceback

    without_traceback()

from common.cli import run


def main(argv: list[str]) -> int:
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
