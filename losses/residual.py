"""RAVE's guidance: one residual vector from backlit to well-lit, and the pull towards its set point.

Every other direction of light is the same object with another vector: `ResidualGuidance.with_vector`.

Shape letters: N photos, T tokens, K words, D embedding size. f(v) = v / ‖v‖.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ResidualGuidance:
    """What guides a RAVE training.

    vector: r (D,), unit norm: the residual of two sides (folders, or photos and their relit selves), or another
        direction. target: the set point τ = v_well · r, a float.
    well_lit, backlit: v_well, v_back (D,), unit norm, of the two sides, whatever the direction.
    difference: mean_i f(Φ(I_w^i)) − mean_i f(Φ(I_b^i)) (D,), of which Δ is the part along r; None: `step` is unknown.
    """

    vector: Tensor
    target: float
    well_lit: Tensor
    backlit: Tensor
    difference: Tensor | None = None

    def to(self, device: torch.device | str) -> "ResidualGuidance":
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def with_vector(self, vector: Tensor) -> "ResidualGuidance":
        """Guidance of the same two sides along another direction (D,), any norm, with its own set points.

        Raises ValueError where the vector is zero, not finite or of another size.
        """
        if vector.shape != self.vector.shape:
            raise ValueError(f"expected a direction of shape {tuple(self.vector.shape)}, found {tuple(vector.shape)}")
        vector = vector.to(self.well_lit)
        if not torch.isfinite(vector).all() or not vector.norm() > 1e-6:
            raise ValueError("no direction is left (a vector of zeros, or values that are not finite)")
        vector = _unit(vector)
        return replace(self, vector=vector, target=float(self.well_lit @ vector))

    @property
    def start(self) -> float:
        """v_back · r: where the projection of backlit photos stands; training pulls it from here to `target`."""
        return float(self.backlit @ self.vector)

    @property
    def step(self) -> float:
        """Δ: mean projection of well-lit photos minus mean projection of backlit ones.

        Raises ValueError where `difference` is not known.
        """
        if self.difference is None:
            raise ValueError("difference: expected the difference of the two sides, found None")
        return float(self.difference @ self.vector)


def residual_guidance(well_lit_embeddings: Tensor, backlit_embeddings: Tensor) -> ResidualGuidance:
    """v = f(mean_i f(Φ(I^i))) of each side; r = f(v_well − v_back); τ = v_well · r  (RAVE, section 3).

    Embeddings (N,D) of well-lit and of backlit photos, any norm. Raises ValueError where a side is
    empty or both means are the same, so that no direction exists.
    """
    if (
        well_lit_embeddings.ndim != 2
        or backlit_embeddings.ndim != 2
        or well_lit_embeddings.shape[1] != backlit_embeddings.shape[1]
    ):
        found = f"{tuple(well_lit_embeddings.shape)} and {tuple(backlit_embeddings.shape)}"
        raise ValueError(f"expected (N, D) and (N', D), found {found}")
    if len(well_lit_embeddings) == 0 or len(backlit_embeddings) == 0:
        raise ValueError("expected at least one photo on each side")
    means = [_unit(embeddings).mean(dim=0) for embeddings in (well_lit_embeddings, backlit_embeddings)]
    well_lit, backlit = (_unit(mean) for mean in means)
    if not (well_lit - backlit).norm() > 1e-7:
        raise ValueError(
            "well-lit and backlit photos have the same mean embedding: no residual (the same folder twice?)"
        )
    vector = _unit(well_lit - backlit)
    return ResidualGuidance(vector, float(well_lit @ vector), well_lit, backlit, means[0] - means[1])


def residual_loss(image_embeddings: Tensor, guidance: ResidualGuidance, set_points: Tensor | None = None) -> Tensor:
    """L_res = mean_b (cos(Φ(I_t), r) − τ)²  (RAVE, section 3): a squared pull to the set point, no maximisation.

    image_embeddings (B,D) of enhanced photos, any norm. set_points (B,): one for each photo in place of τ (ours).
    Returns a scalar, >= 0.
    """
    projection = _unit(image_embeddings) @ guidance.vector
    return (projection - (guidance.target if set_points is None else set_points)).square().mean()


def photo_set_points(input_embeddings: Tensor, guidance: ResidualGuidance, factor: float = 1.0) -> Tensor:
    """cos(Φ(I_b), r) + factor · Δ (B,): a set point for each photo (ours), in which its content,
    that r does not explain, cancels.

    input_embeddings (B,D) of the photos before enhancement, any norm.
    """
    return _unit(input_embeddings) @ guidance.vector + factor * guidance.step


def shift(guidance: ResidualGuidance, token_embeddings: Tensor, n: int) -> ResidualGuidance:
    """The residual without the meaning of its n nearest and n farthest tokens (RAVE, "shifted residual").

    Tokens (T,D') are ranked by c = cos(token, r). Each end gives a mean of its n unit embeddings
    weighted by c (so the lowest enter reversed), normalised; u = f(sum of the two);
    r ← f(r − (u·r) u), τ recomputed. n = 0 returns the guidance as it is. D' < D: see `in_space`.

    Raises ValueError for n < 0, or fewer than 2n tokens.
    """
    if n == 0:
        return guidance
    if n < 0 or len(token_embeddings) < 2 * n:
        raise ValueError(f"n: expected 0 to half of the {len(token_embeddings)} tokens, found {n}")
    tokens = _unit(token_embeddings)
    cosines = tokens @ guidance.vector[-tokens.shape[1] :]
    order = cosines.argsort(descending=True)
    means = [_unit((cosines[end, None] * tokens[end]).mean(dim=0)) for end in (order[:n], order[-n:])]
    direction = in_space(_unit(means[0] + means[1]), len(guidance.vector))
    return guidance.with_vector(guidance.vector - (direction @ guidance.vector) * direction)


def in_space(vectors: Tensor, dim: int) -> Tensor:
    """Vectors (...,D') of an encoder's last layer in a space (...,D) that ends with it: zeros stand before them.

    Words have no place in the earlier stages, so they neither speak of them nor change them.
    """
    return F.pad(vectors, (dim - vectors.shape[-1], 0))


def between(pair: Tensor) -> Tensor:
    """The direction f(f(to) − f(from)) (D,) of a pair (2,D), row 0 backlit, row 1 well-lit:
    two texts, or learned guidance.

    Raises ValueError for another shape, or where both are the same.
    """
    if pair.ndim != 2 or len(pair) != 2:
        raise ValueError(f"expected a pair (2, D), found {tuple(pair.shape)}")
    backlit, well_lit = _unit(pair)
    if not (well_lit - backlit).norm() > 1e-6:
        raise ValueError("both have the same embedding: no direction")
    return _unit(well_lit - backlit)


def weighted_sum(directions: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """f(Σ_k w_k f(r_k)) (D,) of directions (D,) of any norm. Raises ValueError where they cancel."""
    total = sum(weight * _unit(direction) for direction, weight in zip(directions, weights, strict=True))
    if not total.norm() > 1e-6:
        raise ValueError("the weighted directions cancel: no direction is left")
    return _unit(total)


def remove(guidance: ResidualGuidance, embeddings: Tensor) -> ResidualGuidance:
    """The direction without the meaning of words: orthogonal to each of their embeddings (K,D'), τ recomputed.

    Like `shift`, with words of one's own and each projected out by itself. No words: the guidance as it is.
    Raises ValueError where the words span the direction, so that nothing is left.
    """
    if len(embeddings) == 0:
        return guidance
    embeddings = in_space(embeddings, len(guidance.vector))
    basis, size, _ = torch.linalg.svd(_unit(embeddings).double().T, full_matrices=False)
    basis = basis[:, size > 1e-5 * size.max()]  # words of one meaning (synonyms, capitals) span less than their number
    vector = guidance.vector.double()
    for _ in range(2):  # the second pass takes what rounding left
        vector = vector - basis @ (basis.T @ vector)
    return guidance.with_vector(vector)


def _unit(v: Tensor) -> Tensor:
    return F.normalize(v.float(), dim=-1) if v.dtype != torch.float64 else F.normalize(v, dim=-1)
