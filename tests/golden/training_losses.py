"""Seeded losses of short trainings of the three methods, to compare with those recorded before a change.

python -m tests.golden.training_losses              records them again (tests/golden/training_losses.json)
python -m tests.golden.training_losses FOLDER MODE... trains on the photos in FOLDER/MODE, as one of several processes
may
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from configs.load import load_config
from configs.schema import TrainConfig
from training.loop import train
from training.tracking import read_metrics

FILE = Path(__file__).with_suffix(".json")
MODES = ("rave", "clip_lit", "clip_lit_latent")
TIMES = ("seconds", "photos_per_second", "seconds_per_step")
SETTINGS = {
    "data.image_size": "32",
    "exp.exp_name": "golden",
    "train.num_iters": "6",
    "train.num_rounds": "2",
    "train.val_iter": "4",
    "train.device": "cpu",
    "unet_model.batch_size": "2",
    "unet_model.display_iter": "1",
    "unet_model.num_reconstruction_iters": "3",
    "unet_model.num_round_iters": "3",
    "guidance_model.batch_size": "4",
    "guidance_model.cached_augmentations": "2",
    "guidance_model.display_iter": "1",
    "guidance_model.image_size": "32",
    "guidance_model.logit_scale": "20",
    "guidance_model.nearest_tokens": "0",
    "guidance_model.num_pretrain_iters": "3",
    "guidance_model.num_refine_iters": "3",
    "guidance_model.thr_loss": "1000",
    "clip.guidance": "{model: mini-rn, pretrained: null}",
    "clip.identity": "{model: mini-rn, pretrained: null}",
    "clip.image_size": "null",
    "guidance.layers": "last",
    "loss.identity_guided": "0.3",
    "train.precision": "fp32",
    "unet_model.adam_beta1": "0.9",
    "unet_model.ema": "null",
    "unet_model.grad_clip": "1.0",
    "unet_model.lr": "1e-4",
}
OF_RAVE = {
    "clip.seed": "3",
    "guidance.set_point": "mean",
    "loss.residual": "10",
}


def make_photos(folder: Path) -> None:
    """Five dark and six bright pictures of smooth random colours, in two folders."""
    generator = np.random.default_rng(7)
    for name, count, level in (("backlit", 5, 0.25), ("welllit", 6, 1.0)):
        (folder / name).mkdir()
        for number in range(count):
            coarse = Image.fromarray((generator.random((5, 7, 3)) * level * 255).astype(np.uint8))
            coarse.resize((56, 40), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")


def log_of(mode: str, folder: Path) -> list[dict]:
    """The log of a short training on the photos in `folder`."""
    settings = {
        "data.backlit_images_path": folder / "backlit",
        "data.welllit_images_path": folder / "welllit",
        "data.val_backlit_path": folder / "backlit",
        "data.val_gt_path": folder / "backlit",
        "exp.save_dir": folder / "runs",
        "exp.cache_dir": folder / "cache",
        **SETTINGS,
        **(OF_RAVE if mode == "rave" else {}),
    }
    config = load_config(TrainConfig, f"{mode}_quickstart.yaml", [f"{key}={value}" for key, value in settings.items()])
    return read_log(train(config))


def read_log(run: Path) -> list[dict]:
    """The log of a run folder, without times."""
    lines = read_metrics(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def main() -> None:
    if folders := [Path(sys.argv[1]) / mode for mode in sys.argv[2:]]:
        for folder in folders:
            log_of(folder.name, folder)
        return
    recorded = {}
    for mode in MODES:
        with tempfile.TemporaryDirectory() as temporary:
            make_photos(Path(temporary))
            recorded[mode] = log_of(mode, Path(temporary))
    FILE.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
