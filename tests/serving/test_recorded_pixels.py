"""What the network and the division give on random weights stays what it was: pixels recorded at commit 2812fc0."""

import json

import numpy as np
import torch

from common.paths import REPO_ROOT
from models.checkpoints import save_tensors
from models.unet import IlluminationUNet
from serving.enhancer import Enhancer


def test_enhanced_pixels_are_those_recorded(tmp_path):
    generator = np.random.default_rng(0)
    tensors = IlluminationUNet(map_bias=0.5).state_dict()
    state = {
        name: torch.from_numpy(generator.normal(0, 0.12, tuple(tensors[name].shape)).astype(np.float32))
        for name in sorted(tensors)
    }
    state["cond_add1.bias"] += 0.6
    save_tensors(state, tmp_path / "net.safetensors", {})
    photo = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    enhancer = Enhancer(tmp_path / "net.safetensors", device="cpu", backend="torch", precision="fp32")
    found = enhancer.enhance(photo)[0][::5, ::7].astype(int)
    expected = json.loads((REPO_ROOT / "tests/golden/enhanced_pixels.json").read_text(encoding="utf-8"))
    assert np.abs(found - np.array(expected)).max() <= 1  # processors round differently
