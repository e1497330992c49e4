"""What is computed stays what it was: losses and pixels that were recorded at an earlier commit, on random weights.

A change that means to alter them records anew, with its reason in the commit: python -m tests.test_recorded COMMIT
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.load import load_config
from configs.schema import TrainConfig
from models.checkpoints import save_tensors
from models.unet import IlluminationUNet
from serving.enhancer import Enhancer

RECORDED = Path(__file__).resolve().parent / "recorded" / "results.json"
CONFIGS = ("rave_quickstart.yaml", "clip_lit_quickstart.yaml", "clip_lit_latent_quickstart.yaml")
SETTINGS = [
    "data.image_size=16",
    "data.val_backlit_path=null",
    "data.val_gt_path=null",
    "train.device=cpu",
    "train.precision=fp32",
    "train.num_iters=8",
    "train.val_iter=4",
    "train.num_workers=0",
    "train.preview_photos=0",
    "unet_model.batch_size=2",
    "unet_model.display_iter=1",
    "unet_model.num_reconstruction_iters=4",
    "unet_model.num_round_iters=4",
    "unet_model.max_extensions=0",
    "guidance_model.image_size=16",
    "guidance_model.batch_size=4",
    "guidance_model.num_pretrain_iters=4",
    "guidance_model.num_refine_iters=4",
    "guidance_model.max_extensions=0",
    "guidance_model.nearest_tokens=0",
    "guidance_model.cached_augmentations=0",
    "clip.identity={model: mini-rn, pretrained: null}",
]


def losses(cfg: str, folder: Path) -> list[float]:
    """Of each iteration of a short training with seeded random encoders."""
    from training.loop import train

    generator = np.random.default_rng(0)
    for side, count, level in (("backlit", 6, 0.25), ("welllit", 8, 1.0)):
        (folder / side).mkdir(exist_ok=True)
        for number in range(count):
            coarse = Image.fromarray((generator.random((5, 7, 3)) * level * 255).astype(np.uint8))
            coarse.resize((56, 40), Image.Resampling.BICUBIC).save(folder / side / f"{number}.png")
    texts = cfg.startswith("clip_lit_quickstart")
    settings = [
        *([s for s in SETTINGS if not s.startswith("train.num_iters")] if cfg.startswith("clip") else SETTINGS),
        f"clip.guidance={{model: {'mini-clip' if texts else 'mini-rn'}, pretrained: null}}",
        f"data.backlit_images_path={folder / 'backlit'}",
        f"data.welllit_images_path={folder / 'welllit'}",
        f"exp.save_dir={folder / 'runs'}",
        f"exp.cache_dir={folder / 'cache'}",
    ]
    run = train(load_config(TrainConfig, cfg, settings))
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def pixels(folder: Path) -> np.ndarray:
    """(40,56,3) uint8: noise, enhanced with random weights."""
    generator = np.random.default_rng(0)
    tensors = IlluminationUNet(map_bias=0.5).state_dict()
    state = {
        name: torch.from_numpy(generator.normal(0, 0.12, tuple(tensors[name].shape)).astype(np.float32))
        for name in sorted(tensors)
    }
    state["cond_add1.bias"] += 0.6
    save_tensors(state, folder / "net.safetensors", {})
    photo = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    enhancer = Enhancer(folder / "net.safetensors", device="cpu", backend="torch", precision="fp32")
    return enhancer.enhance(photo)[0]


@pytest.mark.parametrize("cfg", CONFIGS)
def test_seeded_losses_are_those_recorded(cfg, tmp_path):
    expected = json.loads(RECORDED.read_text(encoding="utf-8"))["losses"][cfg]
    assert losses(cfg, tmp_path) == pytest.approx(expected, rel=1e-2)  # processors round differently


def test_enhanced_pixels_are_those_recorded(tmp_path):
    expected = json.loads(RECORDED.read_text(encoding="utf-8"))["pixels"]
    found = pixels(tmp_path)[::5, ::7].astype(int)
    assert np.abs(found - np.array(expected)).max() <= 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        values = {"commit": sys.argv[1], "losses": {}}
        for config in CONFIGS:
            (Path(temporary) / config).mkdir()
            values["losses"][config] = losses(config, Path(temporary) / config)
        values["pixels"] = pixels(Path(temporary))[::5, ::7].tolist()
    RECORDED.write_text(json.dumps(values) + "\n", encoding="utf-8")
