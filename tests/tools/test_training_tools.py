"""Tools around training: kill and resume, the comparison of the three methods, the guidance cache."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from configs.load import load_config
from configs.schema import TrainConfig
from lab import guidance_cache
from tests import kill_and_resume
from tools import compare_methods

TINY = [
    "data.image_size=16",
    "train.val_iter=2",
    "unet_model.num_reconstruction_iters=2",
    "unet_model.batch_size=2",
    "unet_model.display_iter=2",
    "guidance_model.image_size=16",
    "guidance_model.batch_size=4",
    "guidance_model.num_pretrain_iters=4",
    "guidance_model.max_extensions=0",
    "guidance_model.nearest_tokens=0",
    "clip.guidance={model: mini-clip, pretrained: null}",
    "clip.identity={model: mini-rn, pretrained: null}",
    "clip.image_size=null",
    "guidance.layers=last",
    "train.precision=fp32",
]


def flags(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def test_differences_are_found_and_times_are_not(tmp_path):
    def write(name: str, seconds: float, weight: float, loss: float) -> None:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        torch.save(
            {"seconds": seconds, "modules": {"unet": {"w": torch.tensor([weight])}}, "scores": [1.0]},
            folder / "checkpoints/last.pt",
        )
        (folder / "metrics.jsonl").write_text(
            json.dumps({"iteration": 1, "loss": loss, "seconds_per_step": seconds}) + "\n"
        )

    write("a", 1.0, 0.5, 2.0)
    write("b", 9.0, 0.5, 2.0)
    write("c", 1.0, 0.6, 3.0)
    assert kill_and_resume.differences(tmp_path / "a", tmp_path / "b") == []
    assert kill_and_resume.differences(tmp_path / "a", tmp_path / "c") == ["state.modules.unet.w", "log[0].loss"]


@pytest.mark.slow
@pytest.mark.parametrize("cfg", ["clip_lit_quickstart.yaml", "clip_lit_latent_quickstart.yaml", "rave_quickstart.yaml"])
def test_ten_kills_change_nothing(cfg, photo_folders, tmp_path):
    backlit, welllit = photo_folders
    folders = (
        f"data.backlit_images_path={backlit}",
        f"data.welllit_images_path={welllit}",
        "data.val_backlit_path=null",
        "data.val_gt_path=null",
    )
    length = (
        "train.save_iter=5",
        "train.val_iter=50",
        "unet_model.num_round_iters=60",
        "guidance_model.num_refine_iters=60",
    )
    length += () if cfg.startswith("clip") else ("train.num_iters=200",)
    small = [o for o in TINY if "val_iter" not in o and "num_pretrain" not in o]
    overrides = flags(*small, *folders, *length, f"exp.cache_dir={tmp_path / 'cache'}")
    assert kill_and_resume.main(["--cfg", cfg, "--out", str(tmp_path / "runs"), *overrides]) == 0


def test_compared_methods_share_photos_and_network():
    """`make compare` compares what guides, and nothing else."""
    configs = [load_config(TrainConfig, cfg) for cfg in compare_methods.METHODS.values()]
    for section in ("data", "unet_model"):
        trees = [getattr(config, section).model_dump(exclude={"num_round_iters"}) for config in configs]
        assert trees[0] == trees[1] == trees[2]
    identity = [(config.clip.identity, config.clip.image_size) for config in configs]
    assert identity[0] == identity[1] == identity[2]
    assert configs[1].guidance.layers == configs[2].guidance.layers


def test_comparison_of_the_three_methods(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the quick-start photos and runs are made below the current folder
    lengths = [
        "train.preview_photos=0",
        "guidance_model.cached_augmentations=1",
        "unet_model.num_round_iters=2",
        "guidance_model.num_refine_iters=2",
        "train.num_iters=4",
    ]
    assert compare_methods.main([*flags(*TINY, *lengths), "--out", "out"]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["rows"]) == ["untouched input", "CLIP-LIT", "CLIP-LIT-Latent", "RAVE"]
    assert results["unet_iterations"] == 6
    assert results["speed"]["RAVE"] == 1
    for name in ("photos.png", "curves.png"):
        assert np.asarray(Image.open(tmp_path / "out" / name)).std() > 10
    assert "x RAVE" in capsys.readouterr().out
    with pytest.raises(UserError, match="same number of UNet iterations"):
        compare_methods.main([*flags(*TINY, *lengths, "train.num_iters=5"), "--out", "other"])


def test_cached_guidance_is_measured_beside_the_plain_one(photo_folders, tmp_path):
    backlit, welllit = photo_folders
    folders = flags(
        f"data.backlit_images_path={backlit}", f"data.welllit_images_path={welllit}", f"exp.cache_dir={tmp_path}"
    )
    arguments = ["--cfg", "clip_lit_latent_quickstart.yaml", *folders, *flags(*TINY)]
    assert guidance_cache.main([*arguments, "--augmentations", "0", "2", "--json", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["augmentations"] for row in rows] == [0, 2]
    assert all(0 <= row["guidance_accuracy"] <= 1 for row in rows)
    with pytest.raises(UserError, match="expected one with learned guidance, found 'rave'"):
        guidance_cache.main(["--cfg", "rave_quickstart.yaml"])
