"""What a direction of light is worth, and what it means: separation, stability, and the tokens nearest to it.

`direction_of` below is any function that makes a unit direction (D,) of the embeddings of well-lit and backlit photos.

Shape letters: N photos, T tokens, D embedding size.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DirectionOf = Callable[[Tensor, Tensor], Tensor]

ALIKE = 20  # tokens with one embedding; from so many on, the encoder does not know them, and they mean nothing

# Words about how a photo is lit, exposed or rendered: what a direction of light should be made of. All other
# words near it may be content. Stems, so that "bright" also stands for "brightness".
_LIGHT = """
light bright dark shad shadow sun sunset sunris expos glow dusk dawn night silhouet contre lumin illumin radian
shine shini shiny glar flash dim black white gray grey pale fade faded haz fog mist murk gloom washed burnt
blown contrast vivid vibran satur colorful colourful tone tonal hdr nois grain clear crisp sharp blur backlit
twilight overcast lit brilliant dull drab flat even normal natural unnatural visib dazzl gleam glimmer lamp
lantern
"""
LIGHT_STEMS = tuple(_LIGHT.split())
_SHORT = "lit dim haz fog sun hdr shad tone even flat pale nois fade glar mist dull"
SHORT_STEMS = frozenset(_SHORT.split())
# words that name nothing: small words, judgements, and "a photo of"
_FILLERS = """
a an the of in on at to by for with without from and or not no is are was be been that this it its
as too very more most less nearly strongly strong good bad badly well wrong wrongly great best
better worse nice out over under un re against low high so such foreground background photo photos photography picture
pictures pic pics image images shot camera jour free
"""
FILLERS = frozenset(_FILLERS.split())


@dataclass(frozen=True)
class Token:
    """A token near a direction. kind: "light", "content", "faint" (content, but not near enough to tell), "filler",
    "sub-word" or "unknown" (means nothing to the encoder).
    """

    text: str
    cosine: float
    kind: str
    alike: int
    """Tokens with this very embedding, itself among them (other spellings, or words unknown to the encoder)."""


class Vocabulary:
    """Tokens to read a direction by; those that embed alike are one.

    texts: T texts. whole_words: whether each is a word. embeddings (T,D), unit norm.
    """

    def __init__(self, texts: Sequence[str], whole_words: Sequence[bool], embeddings: Tensor) -> None:
        _, group, counts = torch.unique(
            (embeddings * 1e4).round().to(torch.int16), dim=0, return_inverse=True, return_counts=True
        )
        # what stands for each group: a whole word if there is one, the shortest, the first
        best: dict[int, tuple[tuple, int]] = {}  # group -> rank, index of the token
        for index, number in enumerate(group.tolist()):
            rank = (not whole_words[index], len(texts[index]), texts[index].lower() != texts[index], index)
            if number not in best or rank < best[number][0]:
                best[number] = (rank, index)
        self._index = [best[number][1] for number in range(len(counts))]
        self._alike = counts.tolist()
        self._texts, self._whole_words = texts, whole_words
        self._embeddings = embeddings[self._index]

    def nearest(
        self,
        vector: Tensor,
        count: int,
        *,
        whole_words: bool = False,
        farthest: bool = False,
        floor: float = -math.inf,
    ) -> list[Token]:
        """The `count` tokens with the highest cosine to `vector` (D',), or with `farthest` to its opposite;
        optionally only whole words. floor: the cosine up to which what is no light is faint, such as `noise(D')`.

        D' > D: of a space that ends with that of the tokens, such as all stages of an encoder.
        """
        cosines = self._embeddings.to(vector) @ vector[-self._embeddings.shape[1] :]
        found = []
        for row in cosines.argsort(descending=not farthest).tolist():
            index = self._index[row]
            if whole_words and (not self._whole_words[index] or self._alike[row] >= ALIKE):
                continue
            text, alike = self._texts[index], self._alike[row]
            kind = "unknown" if alike >= ALIKE else word_kind(text) if self._whole_words[index] else "sub-word"
            if kind == "content" and (-1 if farthest else 1) * cosines[row] <= floor:
                kind = "faint"
            found.append(Token(text, cosines[row].item(), kind, alike))
            if len(found) == count:
                break
        return found


def noise(size: int) -> float:
    """The cosine up to which a word may be near a direction (D,) by chance: 3/√D, three standard deviations of a fixed
    unit vector's cosine with a random one. size: D.
    """
    return 3 / math.sqrt(size)


def word_kind(word: str) -> str:
    """ "light": about how a photo is lit or rendered; "filler": names nothing;
    "content": everything else, so possibly data bias. Several words ("too bright") are content where one of them is.
    """
    word = word.lower()
    if len(parts := re.findall(r"[^\W\d_]+", word)) > 1:
        kinds = {word_kind(part) for part in parts}
        return next(kind for kind in ("content", "light", "filler") if kind in kinds)
    if word in FILLERS:
        return "filler"
    if any(word.startswith(stem) and (stem not in SHORT_STEMS or len(word) <= len(stem) + 2) for stem in LIGHT_STEMS):
        return "light"
    return "light" if word.endswith(("lit", "light", "lights", "lighting")) else "content"


def auc(high: Tensor, low: Tensor) -> float:
    """Probability that a value of `high` (N,) exceeds one of `low` (N',), ties counted half.

    Raises ValueError where one is empty.
    """
    if len(high) == 0 or len(low) == 0:
        raise ValueError("expected at least one value on each side")
    differences = high.double()[:, None] - low.double()[None]
    return float((differences > 0).double().mean() + 0.5 * (differences == 0).double().mean())


def held_out_auc(direction_of: DirectionOf, well_lit: Tensor, backlit: Tensor, repeats: int, seed: int) -> float:
    """Mean AUC on the half of the photos that the direction was not made of, over random halves.

    Embeddings (N,D), N >= 2.
    """
    generator, values = torch.Generator().manual_seed(seed), []
    for _ in range(repeats):
        (made_w, held_w), (made_b, held_b) = (_halves(e, generator) for e in (well_lit, backlit))
        vector = direction_of(made_w, made_b)
        values.append(auc(held_w @ vector, held_b @ vector))
    return sum(values) / len(values)


def bootstrap_cosines(direction_of: DirectionOf, well_lit: Tensor, backlit: Tensor, repeats: int, seed: int) -> Tensor:
    """Cosines (repeats,) of the direction with those of photos resampled with replacement, on both sides.

    Embeddings (N,D).
    """
    generator, vector, cosines = torch.Generator().manual_seed(seed), direction_of(well_lit, backlit), []
    for _ in range(repeats):
        drawn = [e[torch.randint(len(e), (len(e),), generator=generator)] for e in (well_lit, backlit)]
        cosines.append(direction_of(*drawn) @ vector)
    return torch.stack(cosines)


def agreement(
    direction_of: DirectionOf, well_lit: Tensor, backlit: Tensor, sizes: Iterable[int], repeats: int, seed: int
) -> dict[int, float]:
    """Mean cosine between the directions of two disjoint samples of k photos a side,
    for each k up to half of the smaller set.
    """
    generator, found = torch.Generator().manual_seed(seed), {}
    for size in sizes:
        if 2 * size > min(len(well_lit), len(backlit)):
            continue
        cosines = []
        for _ in range(repeats):
            orders = [torch.randperm(len(e), generator=generator) for e in (well_lit, backlit)]
            first, second = (
                direction_of(*(e[order[i : i + size]] for e, order in zip((well_lit, backlit), orders, strict=True)))
                for i in (0, size)
            )
            cosines.append(float(first @ second))
        found[size] = sum(cosines) / repeats
    return found


def photos_needed(curve: dict[int, float], wanted: float = 0.95) -> int | None:
    """Photos a side from which two samples agree by a cosine of `wanted`;
    None where they would not even with very many.

    curve: of `agreement`. Beyond its end the noise of a mean is taken to fall as 1/k (Spearman and Brown's formula).
    """
    for size, value in sorted(curve.items()):
        if value >= wanted:
            return size
    if not curve:
        return None
    size = max(curve)
    if curve[size] <= 0:
        return None
    needed = size * (wanted / (1 - wanted)) * (1 - curve[size]) / curve[size]
    return round(needed) if needed < 1e6 else None


def _halves(embeddings: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    order, middle = torch.randperm(len(embeddings), generator=generator), (len(embeddings) + 1) // 2
    return embeddings[order[:middle]], embeddings[order[middle:]]
