"""A small enhancer."""

import pytest
import torch

from models.checkpoints import save_tensors
from models.unet import IlluminationUNet
from serving.enhancer import Enhancer


@pytest.fixture(scope="module")
def enhancer(tmp_path_factory) -> Enhancer:
    """Random weights whose map lies around 0.5: results are about twice as bright."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_tensors(IlluminationUNet(map_bias=0.5).state_dict(), path)
    return Enhancer(path, device="cpu", precision="fp32", backend="torch")
