"""What the network and the division give on random weights stays what it was: pixels recorded at commit 2812fc0."""

import json

import numpy as np
import torch

from common.paths import REPO_ROOT
from models.retinex import enhance
from models.unet import IlluminationUNet


def test_enhanced_pixels_are_those_recorded():
    generator = np.random.default_rng(0)
    tensors = IlluminationUNet(map_bias=0.5).state_dict()
    state = {
        name: torch.from_numpy(generator.normal(0, 0.12, tuple(tensors[name].shape)).astype(np.float32))
        for name in sorted(tensors)
    }
    state["cond_add1.bias"] += 0.6
    unet = IlluminationUNet("reflect").eval()
    unet.load_state_dict(state)
    photo = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    images = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        result = enhance(images, unet(images))[0].permute(1, 2, 0).numpy()
    found = np.rint(result * 255)[::5, ::7].astype(int)
    expected = json.loads((REPO_ROOT / "tests/golden/enhanced_pixels.json").read_text(encoding="utf-8"))
    assert np.abs(found - np.array(expected)).max() <= 1  # processors round differently
