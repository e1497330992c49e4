"""What differs between the text towers that open_clip builds."""

import torch
from torch import Tensor, nn

from common.errors import UserError


def takes_token_embeddings(text: nn.Module) -> bool:
    """Whether prompts can be learned through it."""
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask")
    # CoCa appends a token of its own; padding masks depend on the tokens, which a learned prompt has not
    return (
        all(hasattr(text, part) for part in parts)
        and getattr(text, "cls_emb", None) is None
        and not getattr(text, "use_pad_mask", False)
    )


def pool_type(text: nn.Module) -> str:
    """How the outputs of all positions become one embedding."""
    return getattr(text, "text_pool_type", None) or getattr(text, "pool_type", "argmax")


def text_ends(text: nn.Module, tokens: Tensor) -> Tensor:
    """The position (N,) whose output stands for each text (N,L), as the tower pools."""
    pool = pool_type(text)
    if pool == "argmax":  # the end token has the highest number
        return tokens.argmax(dim=-1)
    if pool == "eos":
        return (tokens == (getattr(text, "text_eos_id", None) or text.eos_id)).int().argmax(dim=-1)
    if pool in ("first", "last"):
        return torch.full((len(tokens),), 0 if pool == "first" else tokens.shape[1] - 1, device=tokens.device)
    raise UserError(f"text tower: expected one that takes a position as the text's embedding, found pooling '{pool}'")


def project_text(text: nn.Module, x: Tensor) -> Tensor:
    """Text features (N,W) -> (N,D) through the tower's last projection, where it has one."""
    projection = text.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
