"""Train the enhancement network with CLIP-LIT or CLIP-LIT-Latent: python train.py --cfg configs/train/clip_lit.yaml"""

if __name__ == "__main__":  # before other imports: Ctrl-C in the middle of them is no traceback
    from common.interrupt import without_traceback

    without_traceback()

from common.cli import run


def main(argv: list[str]) -> int:
    from training.command import train_command

    return train_command(
        argv,
        script="train.py",
        description="Train the enhancement network with CLIP-LIT (ICCV 2023; exp.mode: clip_lit) or "
        "CLIP-LIT-Latent (clip_lit_latent),\n"
        "from a folder of backlit and a folder of well-lit photos.",
        default_cfg="configs/train/clip_lit.yaml",
    )


if __name__ == "__main__":
    run(main)
