"""CLIP-LIT's guidance by a learned pair of vectors: a backlit and a well-lit one.

Shape letters: B photos, D embedding size. `guidance` is (2,D): row 0 backlit (the negative prompt
t_n), row 1 well-lit (the positive prompt t_p). Any norms; cosines are taken inside.
"""

import torch.nn.functional as F
from torch import Tensor

LOGIT_SCALE = 100.0  # CLIP's own, and of the release; the paper has none. Small encoders need less, see `scale`


def guidance_logits(image_embeddings: Tensor, guidance: Tensor, scale: float = LOGIT_SCALE) -> Tensor:
    """scale · cos(Φ(I), [t_n, t_p]): (B,D), (2,D) -> (B,2). Raises ValueError on other shapes.

    scale: 100 for CLIP, all of whose images have similar embeddings. Where embeddings differ more, 100 saturates the
    softmax of every function below, and its gradient vanishes.
    """
    if guidance.ndim != 2 or len(guidance) != 2 or image_embeddings.shape[-1] != guidance.shape[-1]:
        raise ValueError(
            f"expected embeddings (B, D) and guidance (2, D), found {tuple(image_embeddings.shape)} and "
            f"{tuple(guidance.shape)}"
        )
    return scale * F.normalize(image_embeddings, dim=-1) @ F.normalize(guidance, dim=-1).T


def negative_similarity(image_embeddings: Tensor, guidance: Tensor, scale: float = LOGIT_SCALE) -> Tensor:
    """S(I) = softmax(scale · cos(Φ(I), [t_n, t_p]))[n]: how backlit a photo looks, (B,) in [0, 1] (CLIP-LIT, eq. 6)."""
    return guidance_logits(image_embeddings, guidance, scale).softmax(dim=-1)[:, 0]


def clip_guidance_loss(image_embeddings: Tensor, guidance: Tensor, scale: float = LOGIT_SCALE) -> Tensor:
    """L_clip: mean S over the enhanced batch, a scalar in [0, 1] (CLIP-LIT, section 3.1)."""
    return negative_similarity(image_embeddings, guidance, scale).mean()


def initialisation_loss(
    image_embeddings: Tensor, guidance: Tensor, labels: Tensor, scale: float = LOGIT_SCALE
) -> Tensor:
    """Cross-entropy of backlit (label 0) against well-lit (label 1):
    (B,D), (2,D), (B,) int -> scalar (CLIP-LIT, section 3.1).
    """
    return F.cross_entropy(guidance_logits(image_embeddings, guidance, scale), labels)
