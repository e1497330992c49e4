"""Every loss over device and dtype: its shape, finite values, and the gradient of finite differences."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.guidance import clip_guidance_loss, initialisation_loss, negative_similarity
from losses.identity import identity_loss
from losses.pixel import pixel_loss, white_loss
from losses.ranking import refinement_loss
from losses.residual import ResidualGuidance, residual_guidance, residual_loss

B, D = 3, 6
MARGINS = {"m0": 0.9, "m1": 0.1, "m2": 0.1}
WEIGHTS = [1.0, 0.5]
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def guidance(like: Tensor) -> ResidualGuidance:
    return residual_guidance(random(5, D, seed=8).to(like), random(4, D, seed=9).to(like))


def maps(flat: Tensor) -> list[Tensor]:
    """Two feature maps (B,2,4,4) and (B,4,2,2) out of (B,48)."""
    return [flat[:, :32].reshape(-1, 2, 4, 4), flat[:, 32:].reshape(-1, 4, 2, 2)]


@dataclass(frozen=True)
class Case:
    """A loss as a function of what it has gradients for, an input to it, and what it refuses."""

    loss: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    refused: Callable[[Tensor], Tensor]
    found: str
    per_photo: bool = False


def pair(x: Tensor) -> Tensor:
    return random(2, D, seed=7).to(x)


CASES = {
    "identity": Case(
        lambda x: identity_loss(maps(x), maps(random(B, 48, seed=1).to(x)), WEIGHTS, "mean"),
        (B, 48),
        lambda x: identity_loss(maps(x), maps(x)[:1], WEIGHTS),
        "as many maps as weights",
    ),
    "negative similarity": Case(
        lambda x: negative_similarity(x, pair(x), 5.0),
        (B, D),
        lambda x: negative_similarity(x, pair(x)[:1]),
        r"guidance \(2, D\)",
        per_photo=True,
    ),
    "clip": Case(
        lambda x: clip_guidance_loss(x, pair(x), 5.0),
        (B, D),
        lambda x: clip_guidance_loss(x[:, 1:], pair(x)),
        r"embeddings \(B, D\)",
    ),
    "initialisation": Case(
        lambda x: initialisation_loss(x, pair(x), torch.tensor([0, 1, 1], device=x.device), 5.0),
        (B, D),
        lambda x: initialisation_loss(x[:, 1:], pair(x), torch.tensor([0, 1, 1], device=x.device)),
        r"embeddings \(B, D\)",
    ),
    "ranking": Case(
        lambda x: refinement_loss(list(x), MARGINS),
        (4, B),
        lambda x: refinement_loss([*x, x[0]], MARGINS),
        "two to four tensors, found 5",
    ),
    "residual": Case(
        lambda x: residual_loss(x, guidance(x)),
        (B, D),
        lambda x: residual_guidance(x, x),
        "no residual",
    ),
    "residual, set point per photo": Case(
        lambda x: residual_loss(x, guidance(x), random(B, seed=3).to(x)),
        (B, D),
        lambda x: residual_guidance(x[:0], x),
        "at least one photo on each side",
    ),
    "pixel": Case(
        lambda x: pixel_loss(x, random(1, 3, 12, 12, seed=2).to(x)),
        (1, 3, 12, 12),
        lambda x: pixel_loss(x, x[:, :1]),
        "of one shape",
    ),
    "white": Case(
        lambda x: white_loss(3 * x, random(1, 3, 12, 12, seed=2).to(x)),
        (1, 3, 12, 12),
        lambda x: white_loss(x, x[:, :1]),
        "of one shape",
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("name", CASES)
def test_shape_device_and_value(name, device, dtype):
    case = CASES[name]
    x = random(*case.shape).to(device, dtype).requires_grad_()
    value = case.loss(x)
    assert value.shape == ((B,) if case.per_photo else ()) and value.device == x.device
    assert torch.isfinite(value).all()
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    exact = case.loss(random(*case.shape).to(device)).double()
    assert torch.allclose(value.double(), exact, rtol=tolerance, atol=tolerance)
    value.sum().backward()
    assert x.grad.dtype == dtype and torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in CASES if name != "identity"])
def test_gradient_is_that_of_finite_differences(name):
    x = random(*CASES[name].shape).requires_grad_()
    assert torch.autograd.gradcheck(CASES[name].loss, [x], fast_mode=True)


def test_gradient_of_identity_in_closed_form():
    """It computes in float32, too coarse for finite differences: 2 α (a − b) / elements of each map."""
    x, other = random(B, 48).requires_grad_(), random(B, 48, seed=1)
    CASES["identity"].loss(x).backward()
    sizes = torch.tensor([2 * weight / (size * B) for weight, size in zip(WEIGHTS, (32, 16), strict=True)])
    expected = torch.cat([sizes[:1].expand(32), sizes[1:].expand(16)]) * (x.detach() - other)
    assert torch.allclose(x.grad, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_refused(name):
    case = CASES[name]
    with pytest.raises(ValueError, match=case.found):
        case.refused(random(*case.shape))


@pytest.mark.parametrize("name", ["negative similarity", "clip", "initialisation", "residual"])
def test_embeddings_of_any_norm(name):
    loss, x = CASES[name].loss, random(B, D)
    assert torch.allclose(loss(x), loss(F.normalize(x, dim=-1)))
