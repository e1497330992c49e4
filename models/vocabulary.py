"""Words to read an embedding space by: the tokens of CLIP's text tower, or the classes of a classifier."""

import difflib
from collections.abc import Sequence
from functools import cache

import torch.nn.functional as F
from torch import Tensor


@cache
def clip_tokens() -> tuple[list[str], list[bool]]:
    """The text of each of CLIP's 49,408 tokens, and whether it is a whole word of two letters or more.

    Tokens that are parts of a character read "\ufffd".
    """
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    raw = [tokenizer.decoder[i] for i in range(len(tokenizer.decoder))]  # bytes spelt as letters; `</w>` ends a word
    texts = [
        bytes(tokenizer.byte_decoder[c] for c in token.removesuffix("</w>")).decode("utf-8", errors="replace")
        for token in raw
    ]
    words = {
        text
        for text, token in zip(texts, raw, strict=True)
        if token.endswith("</w>") and text.isalpha() and len(text) > 1
    }
    return texts, [text in words for text in texts]


def class_directions(rows: Tensor) -> Tensor:
    """Rows w_c (N,D) of a classifier -> f(w_c − mean w) (N,D): what all classes have in common tells none of them."""
    return F.normalize(rows - rows.mean(dim=0), dim=-1)


def class_number(text: str, names: Sequence[str]) -> int:
    """The class of that name, in capitals or not. Raises ValueError, with names like it, where there is none."""
    known, wanted = [name.lower() for name in names], text.lower()
    if wanted in known:
        return known.index(wanted)
    alike = [name for name in known if wanted in name.split()]
    alike += [name for name in difflib.get_close_matches(wanted, known, n=3, cutoff=0.6) if name not in alike]
    hint = f"; did you mean {' or '.join(alike[:3])}?" if alike else ""
    raise ValueError(f"expected one of the {len(names)} classes, its only words, found '{text}'{hint}")
