"""What a direction of guidance is made of, for shifts of it and its folders: gathered once (`gather`), then analysed
shift by shift (`analyse`). `training.interpretation` writes what is found.

Shape letters: N photos of a folder, T tokens, D embedding size.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from common.console import say
from common.errors import UserError
from common.sequences import evenly
from configs.schema import TrainConfig
from data.images import ImageError, read_rgb8
from losses.residual import ResidualGuidance
from metrics.direction import Token, Vocabulary, agreement, auc, bootstrap_cosines, held_out_auc, noise
from models.clip_encoder import ClipEncoder
from training.directions import Recipe, embed_folders, read_recipe, relit_guidance, source_weights
from training.embeddings import embed_vocabulary, load_encoder
from training.photos import training_photos
from training.runtime import make_accelerator

SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # photos a side, whose directions are compared
REPEATS = 10  # random halves of the folders, and pairs of samples of each size, that are averaged

Ends = dict[str, list[tuple[Path, float]]]  # such as "backlit_lowest" -> photos and their projections


@dataclass(frozen=True)
class Extent:
    """How much is looked at."""

    n: list[int]  # shifts, in tokens at each end
    tokens: int | None = None  # of the vocabulary that are read, spread evenly; None: all
    top: int = 15  # tokens listed at each end
    photos: int = 6  # photos shown at each end
    bootstrap: int = 100  # times that photos are resampled
    whole_words: bool = False  # list whole words that the encoder knows, no pieces of words


@dataclass(frozen=True)
class Folder:
    """The photos of a folder that can be read, and their embeddings (N,D), unit norm."""

    paths: list[Path]
    embeddings: Tensor


@dataclass(frozen=True)
class Material:
    """What is analysed.

    folders: "welllit", "backlit". recipe: how the config's direction is made of them. relit: the direction between
    photos and the same relit, whatever the config's. vocabulary: the words to read by; read: how many there are;
    None and 0 for an encoder without any. skipped: why photos were left out.
    """

    encoder: ClipEncoder
    folders: dict[str, Folder]
    recipe: Recipe
    relit: ResidualGuidance
    vocabulary: Vocabulary | None
    read: int
    skipped: list[str]

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """Embeddings of the well-lit (N,D) and the backlit photos (N',D), as recipes take them."""
        return self.folders["welllit"].embeddings, self.folders["backlit"].embeddings

    def direction(self, n: int | None = None) -> ResidualGuidance:
        """The config's direction, shifted by n tokens in place of its own number."""
        return self.recipe.direction(*self.sides, n)

    def residual(self) -> ResidualGuidance:
        """RAVE's own direction, between the means of the folders, whatever the config's."""
        plain = {"weights": {"folders": 1.0}, "vectors": {}, "removed": self.recipe.removed[:0], "n": 0, "relit": None}
        return replace(self.recipe, **plain).direction(*self.sides)


@dataclass(frozen=True)
class End:
    """What lies nearest to one end of a direction: tokens, and, wherever they stand among pieces of words, whole words
    that are not about light.
    """

    tokens: list[Token]
    content: list[str]


@dataclass(frozen=True)
class Analysis:
    """Figures of the direction shifted by n tokens.

    projections (N,): of each folder's photos; ends: the photos of the highest and the lowest. auc_held_out: on photos
    that the direction was not made of; None for a folder of one photo. bootstrap (B,): cosines with directions of
    resampled photos. curve: photos a side -> cosine of the directions of two disjoint samples.
    """

    n: int
    guidance: ResidualGuidance
    cosine_with_unshifted: float
    projections: dict[str, Tensor]
    ends: Ends
    auc: float
    auc_held_out: float | None
    bootstrap: Tensor
    curve: dict[int, float]
    plus: End
    minus: End


def gather(config: TrainConfig, extent: Extent) -> Material:
    """Load the encoder and embed photos and words. Raises UserError."""
    options = config.guidance
    wanted = source_weights(options)
    backlit, well_lit = training_photos(config.data)
    device = make_accelerator(config.train.device, config.train.precision).device
    encoder = load_encoder(config.clip.guidance, config.clip, device).in_layers(options.layers)
    say(f"encoder    {encoder.name}")
    vocabulary, tokens = _words(config, encoder, extent.tokens)
    # how much of the difference between the folders is light: measured on relit pairs, whatever the direction
    as_relit = config.model_copy(update={"guidance": options.model_copy(update={"direction": "relit"})})
    relit, _ = relit_guidance(as_relit, encoder, backlit, well_lit)
    unshifted = options.model_copy(update={"remove_first_n_tokens": 0})
    recipe = read_recipe(unshifted, encoder, config.exp.cache_dir, relit if "relit" in wanted else None)
    if options.remove_first_n_tokens and not vocabulary:
        raise UserError(f"guidance.remove_first_n_tokens: needs an encoder with a vocabulary, found {encoder.name}")
    recipe = replace(recipe, tokens=tokens, n=options.remove_first_n_tokens)
    *embeddings, skipped = embed_folders(config, encoder, backlit, well_lit)
    folders = {
        side: Folder(_readable(paths, values), values)
        for side, paths, values in zip(("welllit", "backlit"), (well_lit, backlit), embeddings, strict=True)
    }
    return Material(encoder, folders, recipe, relit, vocabulary, 0 if tokens is None else len(tokens), skipped)


def _words(config: TrainConfig, encoder: ClipEncoder, count: int | None) -> tuple[Vocabulary | None, Tensor | None]:
    """The encoder's vocabulary, or `count` tokens of it, spread evenly, and their embeddings (T,D)."""
    if not encoder.vocabulary_kind:
        return None, None
    texts, whole = encoder.words()
    rows = evenly(range(len(texts)), count or len(texts))
    if count:  # not cached, whole ones are
        with torch.no_grad():
            tokens = encoder.embed_words([texts[i] for i in rows]).cpu()
    else:
        tokens = embed_vocabulary(encoder, config.exp.cache_dir)
    return Vocabulary([texts[i] for i in rows], [whole[i] for i in rows], tokens), tokens


def _readable(paths: list[Path], embeddings: Tensor) -> list[Path]:
    """The photos that the embeddings (N,D) belong to: all, or those that can be read."""
    if len(paths) == len(embeddings):
        return paths
    found = []
    for path in paths:
        try:
            read_rgb8(path)
        except ImageError:
            continue
        found.append(path)
    return found


def shifts(material: Material, extent: Extent) -> list[int]:
    """Numbers of tokens to shift by: those asked for and the config's own, without a vocabulary 0 alone.

    Raises UserError where they are too many for the tokens that are read.
    """
    if not material.vocabulary:
        return [0]
    numbers = sorted({*extent.n, material.recipe.n})
    largest, most = numbers[-1], material.read // 2
    if largest > most and extent.tokens:
        raise UserError(f"--tokens: expected at least twice the largest shift ({largest}), found {material.read}")
    if largest > most:
        key = "--n" if largest in extent.n else "guidance.remove_first_n_tokens"
        raise UserError(f"{key}: expected at most {most}, half of the encoder's vocabulary, found {largest}")
    return numbers


def analyse(material: Material, n: int, extent: Extent, seed: int) -> Analysis:
    """Figures of the direction shifted by n tokens. seed: of the photos that are drawn."""

    def direction_of(well_lit: Tensor, backlit: Tensor) -> Tensor:
        return material.recipe.direction(well_lit, backlit, n).vector

    guidance, sides = material.direction(n), material.sides
    projections = {side: folder.embeddings @ guidance.vector for side, folder in material.folders.items()}
    several = min(map(len, sides)) > 1
    return Analysis(
        n=n,
        guidance=guidance,
        cosine_with_unshifted=float(guidance.vector @ material.direction(0).vector),
        projections=projections,
        ends=_ends(material, projections, extent.photos),
        auc=auc(projections["welllit"], projections["backlit"]),
        auc_held_out=held_out_auc(direction_of, *sides, REPEATS, seed) if several else None,
        bootstrap=bootstrap_cosines(direction_of, *sides, extent.bootstrap, seed),
        curve=agreement(direction_of, *sides, SIZES, REPEATS, seed),
        plus=_end(material.vocabulary, guidance.vector, extent, farthest=False),
        minus=_end(material.vocabulary, guidance.vector, extent, farthest=True),
    )


def _end(vocabulary: Vocabulary | None, vector: Tensor, extent: Extent, *, farthest: bool) -> End:
    if not vocabulary:
        return End([], [])
    where = {"farthest": farthest, "floor": noise(len(vector))}
    tokens = vocabulary.nearest(vector, extent.top, whole_words=extent.whole_words, **where)
    words = vocabulary.nearest(vector, extent.top, whole_words=True, **where)
    return End(tokens, [word.text for word in words if word.kind == "content"])


def _ends(material: Material, projections: dict[str, Tensor], count: int) -> Ends:
    """The photos of each folder with the highest and the lowest projections (N,), the utmost first."""
    ends = {}
    for side, values in projections.items():
        paths, order = material.folders[side].paths, values.argsort(descending=True).tolist()
        for name, indices in (("highest", order[:count]), ("lowest", order[::-1][:count])):
            ends[f"{side}_{name}"] = [(paths[i], round(float(values[i]), 3)) for i in indices]
    return ends
