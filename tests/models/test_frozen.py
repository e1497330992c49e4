"""Frozen encoders made fast: the same values and gradients as PyTorch's own layers, up to rounding."""

import copy

import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import Bottleneck
from torch import nn

from models.frozen import attention_of, freeze, tokens_of


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b).norm() / b.norm())


def block() -> Bottleneck:
    """With norms that do something."""
    torch.manual_seed(0)
    made = Bottleneck(16, 8, stride=2)
    for norm in (module for module in made.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return made


def value_and_gradient(network: nn.Module, x: torch.Tensor, autocast: bool) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = network(x)
    return result.detach(), torch.autograd.grad(result.float().square().sum(), x)[0]


def test_fused_norms_round_no_more_than_apart_and_change_nothing_in_float32():
    plain = block().requires_grad_(False).eval()
    fused, x = freeze(copy.deepcopy(plain)), torch.rand(2, 16, 12, 12)
    exact = value_and_gradient(plain, x, False)
    assert all(torch.equal(a, b) for a, b in zip(value_and_gradient(fused, x, False), exact, strict=True))
    for found, apart, true in zip(
        value_and_gradient(fused, x, True), value_and_gradient(plain, x, True), exact, strict=True
    ):
        assert relative(found, true) < 1.2 * relative(apart, true) < 0.05
    assert fused.state_dict().keys() == plain.state_dict().keys()


def test_fused_weights_follow_what_is_loaded():
    fused, x = freeze(block()), torch.rand(1, 16, 8, 8)
    before = value_and_gradient(fused, x, True)[0]
    fused.load_state_dict({name: 2 * tensor for name, tensor in fused.state_dict().items()})
    after, exact = value_and_gradient(fused, x, True)[0], value_and_gradient(fused, x, False)[0]
    assert relative(after, exact) < 0.05 < relative(after, before.float())


@pytest.mark.parametrize(("side", "bias"), [(32, False), (37, True)])  # 37: what is left over is cut off
def test_patches_as_a_product_equal_the_convolution(side, bias):
    torch.manual_seed(0)
    plain, x = nn.Conv2d(3, 10, 8, stride=8, bias=bias), torch.rand(2, 3, side, side)
    fast = freeze(copy.deepcopy(plain))
    assert type(fast) is not nn.Conv2d
    for found, expected in zip(value_and_gradient(fast, x, False), value_and_gradient(plain, x, False), strict=True):
        assert relative(found, expected) < 1e-5


@pytest.mark.parametrize(("patch", "tokens"), [(8, 785), (32, 50)])
def test_tokens_are_counted_by_the_patches(patch, tokens):
    assert tokens_of(freeze(nn.Conv2d(3, 4, patch, stride=patch)), 224) == tokens


def test_short_attention_equals_that_for_long_sequences():
    q, k, v = torch.randn(3, 2, 4, 50, 16)
    with attention_of(50, q.device):
        found = F.scaled_dot_product_attention(q, k, v)
    assert relative(found, F.scaled_dot_product_attention(q, k, v)) < 1e-5
