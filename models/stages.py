"""An embedding of all stages of an encoder beside its last layer (ours): light shows early, content late."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS = ("last", "stages")


def stages_vector(maps: Sequence[Tensor], last: Tensor) -> Tensor:
    """Feature maps (B,C_l,h_l,w_l) and the last vector (B,D) -> (B, Σ C_l + D), unit norm.

    The channel means of each map and the last vector, each of unit norm, side by side, divided by √(how many they are).
    """
    parts = [F.normalize(m.float().mean(dim=(2, 3)), dim=-1) for m in maps] + [F.normalize(last.float(), dim=-1)]
    return torch.cat(parts, dim=-1) / len(parts) ** 0.5
