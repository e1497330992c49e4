"""bf16 near the identity map: the gradients that a step in bf16 follows, beside those of float32."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.clip_encoder import load_clip
from models.unet import IlluminationUNet
from tests.helpers import config
from training.phases import rave_schedule
from training.unet_task import Batch, UNetTask


@pytest.fixture(scope="module")
def encoder():
    return load_clip("mini-clip", "pretrained_models/mini-clip.safetensors")


def identity_gradients(wanted, encoder, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the identity loss at a map of about 0.99: that of the map and that of the weights, as a training has them."""
    torch.manual_seed(1)
    unet, kept = IlluminationUNet("zeros", map_bias=0.99), []

    class Watched(nn.Module):
        def forward(self, photos):
            kept.append(unet(photos))
            kept[0].retain_grad()
            return kept[0]

    task = UNetTask.__new__(UNetTask)  # without photos and optimiser, which a loss does not need
    task.config, task.module = wanted, Watched()
    task.guidance_encoder = task.identity_encoder = encoder
    autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")  # noqa: E731
    task.accelerator = SimpleNamespace(autocast=autocast, num_processes=1)
    torch.manual_seed(0)
    photos = 0.6 * F.interpolate(torch.rand(2, 3, 8, 8), size=(64, 64), mode="bicubic").clamp(0, 1)
    terms, measures = task.losses(rave_schedule(wanted, 6)[0], Batch(photos))
    assert measures["mean_illumination"] == pytest.approx(0.99, abs=0.02)
    terms["identity"].backward()
    return kept[0].grad.flatten(), torch.cat([parameter.grad.flatten() for parameter in unet.parameters()])


def test_gradients_of_the_identity_loss_agree_with_float32(overrides, encoder):
    exact = identity_gradients(config(overrides, "train.precision=fp32"), encoder, "fp32")
    found = identity_gradients(config(overrides, "train.precision=bf16"), encoder, "bf16")
    fastest = identity_gradients(config(overrides, "train.precision=fastest"), encoder, "bf16")
    cosines = [
        [F.cosine_similarity(a, b, dim=0).item() for a, b in zip(way, exact, strict=True)] for way in (found, fastest)
    ]
    assert min(cosines[0]) > 0.995
    assert cosines[1][0] < 0.99  # why the identity encoder stays in float32
    assert cosines[1][1] > 0.98  # what the weights follow is a sum over pixels, in which rounding errors cancel
