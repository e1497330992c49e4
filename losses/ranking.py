"""Guidance refinement: margin ranking of how backlit each stage looks (CLIP-LIT, section 3.2)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor


class Margins(Protocol):
    """What each step from more to less backlit has to be worth."""

    m0: float
    m1: float
    m2: float


def refinement_loss(scores: Sequence[Tensor], margins: Margins | Mapping[str, float]) -> Tensor:
    """Ranking loss on negative similarities S, ordered from most backlit to most well-lit.

    With R(a, b, m) = mean max(0, b − a + m):
      [S_b, S_w]                 R(S_b, S_w, 1.0)
      [S_b, S_t, S_w]            R(S_b, S_w, m0) + R(S_b, S_t, m0) + R(S_t, S_w, 0.2)
      [S_b, S_{t−1}, S_t, S_w]   R(S_b, S_w, m0) + R(S_b, S_{t−1}, m0) + R(S_{t−1}, S_t, m2) + R(S_t, S_w, m1)

    scores: two to four tensors (B,) in [0, 1]. margins: `m0`, `m1`, `m2`, as attributes or keys (paper 0.9, 0.2, 0.2;
    release 0.9, 0.1, 0.1; 1.0 and 0.2 of the first two forms are fixed in the release).
    Returns a scalar. Raises ValueError for another number of scores.
    """
    if not 2 <= len(scores) <= 4:
        raise ValueError(f"scores: expected two to four tensors, found {len(scores)}")
    m0, m1, m2 = (margins[m] if isinstance(margins, Mapping) else getattr(margins, m) for m in ("m0", "m1", "m2"))
    backlit, *enhanced, well_lit = scores
    if not enhanced:
        return _rank(backlit, well_lit, 1.0)
    loss = _rank(backlit, well_lit, m0) + _rank(backlit, enhanced[0], m0)
    if len(enhanced) == 1:
        return loss + _rank(enhanced[0], well_lit, 0.2)
    return loss + _rank(enhanced[0], enhanced[1], m2) + _rank(enhanced[1], well_lit, m1)


def _rank(higher: Tensor, lower: Tensor, margin: float) -> Tensor:
    return (lower - higher + margin).clamp(min=0).mean()
