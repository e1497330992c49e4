"""The learned guidance of CLIP-LIT: a pair of prompts, or of latent vectors, for "backlit" and "well-lit".

Both are called with the frozen encoder and give (2,D), row 0 backlit (t_n), row 1 well-lit (t_p), as the
losses in `losses.guidance` and `losses.ranking` take them. The encoder is not part of them: what is
trained, saved and loaded is one tensor.

Shape letters: D embedding size, L context length, W text width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.parse import parse_json
from models.checkpoints import read_tensors, save_tensors
from models.clip_encoder import ClipEncoder
from models.weight_files import read_metadata

KINDS = {
    "prompts": "prompt_embedding",
    "latents": "guidance_embeddings",
}  # kind -> name of its tensor (the releases' names)


class PromptPair(nn.Module):
    """Two learnable prompts: token embeddings that go through CLIP's text tower (CLIP-LIT, section 3.2).

    prompt_embedding (2,L,W): all positions are learnable, start, end and padding too.
    ends (2,): the position of each prompt whose output stands for it.
    """

    kind = "prompts"

    def __init__(self, prompt_embedding: Tensor, ends: Sequence[int]) -> None:
        super().__init__()
        self.prompt_embedding = nn.Parameter(prompt_embedding.detach().float().clone())
        self.ends = tuple(int(end) for end in ends)

    def forward(self, encoder: ClipEncoder) -> Tensor:
        """(2,D) text embeddings, not normalised."""
        return encoder.embed_prompts(self.prompt_embedding, torch.tensor(self.ends))


class LatentPair(nn.Module):
    """Two learnable vectors in CLIP space (CLIP-LIT-Latent): guidance_embeddings (2,D). Needs no text tower."""

    kind = "latents"

    def __init__(self, guidance_embeddings: Tensor) -> None:
        super().__init__()
        self.guidance_embeddings = nn.Parameter(guidance_embeddings.detach().float().clone())

    def forward(self, encoder: ClipEncoder) -> Tensor:
        """(2,D), any norm; the encoder is not used."""
        return self.guidance_embeddings


def new_guidance(
    kind: str, encoder: ClipEncoder, length_prompt: int = 16, texts: Sequence[str] | None = None
) -> PromptPair | LatentPair:
    """An untrained pair, on the encoder's device.

    kind: "prompts": they start as `texts`, one for backlit and one for well-lit photos, or without them both as
        "X X ... X", `length_prompt` times (CLIP-LIT);
        "latents": both drawn from N(0, 1) with torch's global generator (CLIP-LIT-Latent).
    Raises UserError where prompts are asked of an encoder without a fitting text tower, ValueError for another kind.
    """
    device = encoder.mean.device
    if kind == "latents":
        return LatentPair(torch.randn(2, encoder.embed_dim)).to(device)
    if kind != "prompts":
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    embeddings, ends = encoder.embed_tokens(list(texts or [" ".join(["X"] * length_prompt)] * 2))
    return PromptPair(embeddings, ends.tolist()).to(device)


def save_guidance(pair: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a pair as `.safetensors`, atomically; `metadata` says where it comes from."""
    about = {
        "kind": pair.kind,
        **({"ends": json.dumps(pair.ends)} if pair.kind == "prompts" else {}),
        **(metadata or {}),
    }
    save_tensors(pair.state_dict(), path, about)


def load_guidance(
    path: str | Path, kind: str, encoder: ClipEncoder, length_prompt: int = 16
) -> PromptPair | LatentPair:
    """A pair from our `.safetensors` or the releases' `.pth`, with or without `module.` before its name.

    length_prompt: of the releases' prompts, whose files do not say where they end.
    Raises UserError where the file holds another kind, does not fit the encoder, or is not finite.
    """
    tensors = read_tensors(path)
    name = KINDS[kind]
    if list(tensors) != [name]:
        other = next((k for k, n in KINDS.items() if n in tensors), None)
        found = f"a pair of {other}" if other else f"{len(tensors)} tensors (such as '{next(iter(tensors), 'none')}')"
        raise UserError(f"{path}: expected a pair of {kind} ('{name}'), found {found}")
    pair = new_guidance(kind, encoder, length_prompt)
    expected = pair.state_dict()[name].shape
    if tensors[name].shape != expected:
        raise UserError(
            f"{path}: '{name}': expected shape {tuple(expected)} for {encoder.name}, found {tuple(tensors[name].shape)}"
        )
    if not torch.isfinite(tensors[name]).all():
        raise UserError(f"{path}: expected finite guidance, found NaN or infinity (a training that diverged?)")
    pair.load_state_dict(tensors)
    if kind == "prompts":
        pair.ends = _ends(path, pair)
    return pair


def _ends(path: str | Path, pair: PromptPair) -> tuple[int, ...]:
    """Where the two prompts of a file end; earlier versions of ours wrote one number for both, the releases none."""
    metadata = read_metadata(path)
    if not {"ends", "eos_index"} & set(metadata):
        return pair.ends
    try:
        ends = parse_json(metadata.get("ends") or f"[{metadata['eos_index']}, {metadata['eos_index']}]")
        if len(ends) == 2 and all(type(end) is int and 0 <= end < pair.prompt_embedding.shape[1] for end in ends):
            return tuple(ends)
    except (ValueError, TypeError):
        ends = None
    raise UserError(f"{path}: expected two positions within the prompts as their ends, found {ends}")
