"""Identity loss: the result must keep the content of the photo."""

from collections.abc import Sequence

import torch
from torch import Tensor


def identity_loss(
    maps_result: Sequence[Tensor], maps_input: Sequence[Tensor], weights: Sequence[float], reduction: str = "sum"
) -> Tensor:
    """L_id = Σ_l α_l · MSE(Φ_l(I_b), Φ_l(I_t))  (CLIP-LIT, section 3.1; RAVE, section 3).

    As in the authors' release: the papers write a norm, weighted by 0.9 in the guided phase; the release has the mean
    square, and the weights are in the config.

    maps_result, maps_input: feature maps (B,C_l,h_l,w_l) of the result and of the photo, l = stem,
        layer1..4; weights: α_l, one per map.
    reduction: over the batch, "sum" (the authors' release: the loss grows with the batch size) or
        "mean". Each photo's MSE is a mean over channels and positions either way.

    Returns a scalar. Raises ValueError where numbers of maps, shapes or the reduction do not fit.
    """
    if not len(maps_result) == len(maps_input) == len(weights):
        raise ValueError(
            f"expected as many maps as weights, found {len(maps_result)}, {len(maps_input)} maps and "
            f"{len(weights)} weights"
        )
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction: expected 'sum' or 'mean', found {reduction!r}")
    per_photo = 0.0
    for result, source, weight in zip(maps_result, maps_input, weights, strict=True):
        if result.shape != source.shape:
            raise ValueError(f"expected maps of one shape, found {tuple(result.shape)} and {tuple(source.shape)}")
        per_photo = per_photo + weight * (result.float() - source.float()).square().flatten(1).mean(dim=1)
    per_photo = torch.as_tensor(per_photo)
    return per_photo.sum() if reduction == "sum" else per_photo.mean()
