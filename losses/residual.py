"""RAVE's guidance: one residual vector from backlit to well-lit, and the pull towards its set point.

Shape letters: N photos, T tokens, D embedding size. f(v) = v / ‖v‖.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ResidualGuidance:
    """What guides a RAVE training.

    vector: r (D,), unit norm. target: the set point τ = v_well · r, a float.
    well_lit, backlit: v_well, v_back (D,), unit norm.
    """

    vector: Tensor
    target: float
    well_lit: Tensor
    backlit: Tensor

    def to(self, device: torch.device | str) -> "ResidualGuidance":
        return ResidualGuidance(self.vector.to(device), self.target, self.well_lit.to(device), self.backlit.to(device))


def residual_guidance(well_lit_embeddings: Tensor, backlit_embeddings: Tensor) -> ResidualGuidance:
    """v = f(mean_i f(Φ(I^i))) of each folder; r = f(v_well − v_back); τ = v_well · r  (RAVE, section 3).

    Embeddings (N,D) of well-lit and of backlit photos, any norm. Raises ValueError where a side is
    empty or both means are the same, so that no direction exists.
    """
    if well_lit_embeddings.ndim != 2 or backlit_embeddings.ndim != 2 or well_lit_embeddings.shape[1] != backlit_embeddings.shape[1]:
        raise ValueError(f"expected (N, D) and (N', D), found {tuple(well_lit_embeddings.shape)} and {tuple(backlit_embeddings.shape)}")
    if len(well_lit_embeddings) == 0 or len(backlit_embeddings) == 0:
        raise ValueError("expected at least one photo on each side")
    well_lit = _unit(_unit(well_lit_embeddings).mean(dim=0))
    backlit = _unit(_unit(backlit_embeddings).mean(dim=0))
    difference = well_lit - backlit
    if not difference.norm() > 1e-7:
        raise ValueError("well-lit and backlit photos have the same mean embedding: no residual (the same folder twice?)")
    vector = _unit(difference)
    return ResidualGuidance(vector, float(well_lit @ vector), well_lit, backlit)


def residual_loss(image_embeddings: Tensor, guidance: ResidualGuidance) -> Tensor:
    """L_res = mean_b (cos(Φ(I_t), r) − τ)²  (RAVE, section 3): a squared pull to the set point, no maximisation.

    image_embeddings (B,D) of enhanced photos, any norm. Returns a scalar, >= 0.
    """
    projection = _unit(image_embeddings) @ guidance.vector
    return (projection - guidance.target).square().mean()


def shift(guidance: ResidualGuidance, token_embeddings: Tensor, n: int) -> ResidualGuidance:
    """The residual without the meaning of its n nearest and n farthest tokens (RAVE, "shifted residual").

    Tokens (T,D) are ranked by c = cos(token, r). Each end gives a mean of its n unit embeddings
    weighted by c (so the lowest enter reversed), normalised; u = f(sum of the two);
    r ← f(r − (u·r) u), τ anew. n = 0 returns the guidance as it is.

    Raises ValueError for n < 0, or fewer than 2n tokens.
    """
    if n == 0:
        return guidance
    if n < 0 or len(token_embeddings) < 2 * n:
        raise ValueError(f"n: expected 0 to half of the {len(token_embeddings)} tokens, found {n}")
    tokens = _unit(token_embeddings)
    cosines = tokens @ guidance.vector
    order = cosines.argsort(descending=True)
    means = [_unit((cosines[end, None] * tokens[end]).mean(dim=0)) for end in (order[:n], order[-n:])]
    direction = _unit(means[0] + means[1])
    vector = _unit(guidance.vector - (direction @ guidance.vector) * direction)
    return ResidualGuidance(vector, float(guidance.well_lit @ vector), guidance.well_lit, guidance.backlit)


def _unit(v: Tensor) -> Tensor:
    return F.normalize(v.float(), dim=-1) if v.dtype != torch.float64 else F.normalize(v, dim=-1)
