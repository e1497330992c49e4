"""The direction that guides a RAVE training, as `guidance:` of a config says: built, saved and read back.

RAVE's residual of two folders, that of photos and their relit selves, a pair of texts, a saved direction or learned
pair, or a weighted sum of these; then shifted by n tokens; then without the words of `guidance.remove`.
All are `ResidualGuidance`.

Shape letters: N photos, K words, T tokens, D embedding size.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from common.paths import find_file
from common.provenance import provenance
from configs.schema import Guidance, TrainConfig
from data.backlight import BacklightRanges, darkening, lifting
from losses.residual import (
    ResidualGuidance,
    between,
    in_space,
    remove,
    residual_guidance,
    shift,
    weighted_sum,
)
from models.checkpoints import read_tensors, save_tensors
from models.clip_encoder import ClipEncoder
from models.guidance import KINDS, load_guidance
from models.weight_files import read_metadata
from training.embeddings import embed_photos, embed_vocabulary

RELIT = {
    "welllit": "residual of well-lit photos and the same darkened",
    "backlit": "residual of backlit photos and the same lifted",
    "both": "residual of well-lit photos and the same darkened, backlit photos and the same lifted",
}
SOURCES = ("folders", "texts", "saved", "relit")


@dataclass(frozen=True)
class Recipe:
    """How guidance is made of the embeddings of two folders; everything that does not depend on photos is at hand.

    weights: of the sources that are used, "folders" among them where the residual is.
    vectors: (D,) of each other source.
    relit: guidance of relit pairs, where they are used; its set points then take the place of the folders'.
    removed (K,D): words to project out. tokens (T,D): the vocabulary, where something is shifted by it.
    n: tokens to shift by.
    """

    weights: dict[str, float]
    vectors: dict[str, Tensor]
    removed: Tensor
    tokens: Tensor | None
    n: int
    relit: ResidualGuidance | None = None

    @property
    def needs_folders(self) -> bool:
        """Whether the guidance depends on the embeddings of the two folders at all."""
        return self.relit is None or "folders" in self.weights

    def direction(self, well_lit: Tensor | None, backlit: Tensor | None, n: int | None = None) -> ResidualGuidance:
        """Guidance of these photos' embeddings (N,D) and (N',D), None where it needs no folders.

        n: tokens to shift by, in place of its own. Raises UserError, which names the keys, where no direction exists or
        is left.
        """
        try:
            folders = residual_guidance(well_lit, backlit) if self.needs_folders else None
        except ValueError as error:
            raise UserError(f"data.backlit_images_path, data.welllit_images_path: {error}") from None
        try:
            return self._combined(folders, self.n if n is None else n)
        except ValueError as error:
            raise UserError(f"guidance: {error}") from None

    def _combined(self, folders: ResidualGuidance | None, n: int) -> ResidualGuidance:
        guidance = self.relit or folders
        if self.weights.keys() - {"folders"}:
            vectors = dict(self.vectors)
            if folders:
                vectors["folders"] = folders.vector
            guidance = guidance.with_vector(
                weighted_sum([vectors[name].to(guidance.vector) for name in self.weights], list(self.weights.values()))
            )
        if n and self.tokens is None:
            raise ValueError("a shift needs the embeddings of the vocabulary")
        return remove(shift(guidance, self.tokens, n) if n else guidance, self.removed)


def source_weights(options: Guidance) -> dict[str, float]:
    """Of the sources that `guidance.direction` uses: name -> weight.

    Raises UserError for keys that do not go together.
    """
    if options.direction != "sum":
        weights = {options.direction: 1.0}
    else:
        weights = {name: getattr(options.weights, name) for name in SOURCES if getattr(options.weights, name) != 0}
        if not weights:
            raise UserError(
                "guidance.weights: expected a weight other than 0 (guidance.direction is 'sum'), found none"
            )
    if "saved" in weights:
        if options.saved is None:
            raise UserError(
                "guidance.saved: expected a file with a direction or a learned pair (guidance.direction uses it), "
                "found nothing (null)"
            )
        find_file(options.saved, "guidance.saved")
    return weights


def read_recipe(
    options: Guidance, encoder: ClipEncoder, cache_dir: str | Path, relit: ResidualGuidance | None = None
) -> Recipe:
    """The recipe of a config: texts embedded, files read, the vocabulary embedded only if something is shifted by it.

    relit: of `relit_guidance`, where the config uses it.

    Raises UserError where texts are asked of an image-only encoder, or a file does not fit it.
    """
    weights = source_weights(options)
    for key, needed, had, what in (
        ("texts", "texts" in weights, encoder.has_text, "a text tower"),
        ("remove", options.remove, encoder.vocabulary_kind, "words (a text tower, or a classifier)"),
        (
            "remove_first_n_tokens",
            options.remove_first_n_tokens,
            encoder.vocabulary_kind,
            "a vocabulary (a text tower, or a classifier)",
        ),
    ):
        if needed and not had:
            raise UserError(f"guidance.{key}: needs an encoder with {what}, found {encoder.name}")
    vectors = {}
    with torch.no_grad():
        removed = encoder.embed_words(options.remove).cpu() if options.remove else torch.empty(0, encoder.embed_dim)
        if "texts" in weights:
            try:
                vectors["texts"] = in_space(between(encoder.embed_texts(options.texts)).cpu(), encoder.embed_dim)
            except ValueError as error:
                raise UserError(f"guidance.texts: '{options.texts[0]}', '{options.texts[1]}': {error}") from None
        if "saved" in weights:
            vectors["saved"] = load_direction(find_file(options.saved, "guidance.saved"), encoder)
    if relit:
        vectors["relit"] = relit.vector
    n = options.remove_first_n_tokens
    return Recipe(weights, vectors, removed, embed_vocabulary(encoder, cache_dir) if n else None, n, relit)


def relit_guidance(
    config: TrainConfig, encoder: ClipEncoder, backlit: list[Path], well_lit: list[Path]
) -> tuple[ResidualGuidance | None, list[str]]:
    """The residual of photos and their relit selves with its set points, and why photos were left out. Ours.

    Content is the same on both sides, so it cancels in the difference of means, and r can only mean light.
    None where the config does not use it. Raises UserError for photos that give no direction.
    """
    if "relit" not in source_weights(config.guidance):
        return None, []
    options, cache, batch = config.guidance.relit, config.exp.cache_dir, config.guidance.embed_batch_size
    names = ("foreground_stops", "background_stops", "foreground_share")
    darken = darkening(BacklightRanges(**{name: tuple(getattr(options, name)) for name in names}))
    limits = config.data.limits
    lit, dark, skipped = [], [], []
    for side, paths in (("welllit", well_lit), ("backlit", backlit)):
        key = f"data.{side}_images_path"
        if options.photos not in (side, "both"):
            continue
        change = darken if side == "welllit" else lifting(options.gamma)
        as_they_are, reasons = embed_photos(paths, encoder, cache, batch, key, limits)
        relit, _ = embed_photos(paths, encoder, cache, batch, key, limits, change)
        lit.append(as_they_are if side == "welllit" else relit)
        dark.append(relit if side == "welllit" else as_they_are)
        skipped += reasons
    try:
        return residual_guidance(torch.cat(lit), torch.cat(dark)), skipped
    except ValueError as error:
        raise UserError(f"guidance.relit: photos and their relit selves: {error}") from None


def embed_folders(
    config: TrainConfig, encoder: ClipEncoder, backlit: list[Path], well_lit: list[Path]
) -> tuple[Tensor, Tensor, list[str]]:
    """Embeddings (N,D) of the well-lit and (N',D) of the backlit folder, and why photos were left out.

    Raises UserError.
    """
    cache, batch = config.exp.cache_dir, config.guidance.embed_batch_size
    limits = config.data.limits
    (well_lit_embeddings, skipped_well_lit), (backlit_embeddings, skipped_backlit) = (
        embed_photos(paths, encoder, cache, batch, f"data.{name}_images_path", limits)
        for name, paths in (("welllit", well_lit), ("backlit", backlit))
    )
    return well_lit_embeddings, backlit_embeddings, skipped_well_lit + skipped_backlit


def run_direction(
    config: TrainConfig, encoder: ClipEncoder, backlit: list[Path], well_lit: list[Path]
) -> tuple[ResidualGuidance, list[str]]:
    """The guidance of a config, and why photos were left out.

    Raises UserError for photos, files or words that give no direction.
    """
    relit, skipped = relit_guidance(config, encoder, backlit, well_lit)
    recipe = read_recipe(config.guidance, encoder, config.exp.cache_dir, relit)
    if not recipe.needs_folders:
        return recipe.direction(None, None), skipped
    *embeddings, skipped_too = embed_folders(config, encoder, backlit, well_lit)
    return recipe.direction(*embeddings), list(dict.fromkeys(skipped + skipped_too))


def describe(options: Guidance) -> str:
    """The direction of a config in one line, for the console and reports."""
    parts = {
        "folders": "residual of the two folders",
        "texts": f"'{options.texts[0]}' → '{options.texts[1]}'",
        "saved": f"saved in {options.saved}",
        "relit": RELIT[options.relit.photos],
    }
    weights = source_weights(options)
    text = " + ".join(
        (f"{weight:g} × " if options.direction == "sum" else "") + parts[name] for name, weight in weights.items()
    )
    if options.layers != "last":
        text += f", in the encoder's {options.layers}"
    if options.remove_first_n_tokens:
        text += f", shifted by {options.remove_first_n_tokens} tokens"
    return text + (f", without {', '.join(map(repr, options.remove))}" if options.remove else "")


def save_direction(
    guidance: ResidualGuidance, path: str | Path, options: Guidance, encoder: ClipEncoder, photos: tuple[int, int]
) -> None:
    """Write guidance as `.safetensors`, atomically: its four tensors (D,), and as metadata where they come from.

    photos: how many backlit and well-lit ones.
    """
    source = provenance()
    about = {
        "kind": "direction",
        "direction": describe(options),
        "guidance": json.dumps(options.model_dump()),
        "set_point": repr(guidance.target),
        "set_point_difference": repr(guidance.step),
        "encoder": encoder.name,
        "encoder_fingerprint": encoder.fingerprint(),
        "backlit_photos": str(photos[0]),
        "welllit_photos": str(photos[1]),
        "command": source["command"],
        "commit": str(source["commit"]),
    }
    names = ("vector", "well_lit", "backlit", "difference")
    save_tensors({name: getattr(guidance, name) for name in names}, path, about)


def load_direction(path: str | Path, encoder: ClipEncoder) -> Tensor:
    """The direction (D,), unit norm, of a file: one of `save_direction`,
    or the way from backlit to well-lit of a learned pair.

    Raises UserError where the file holds neither, or is of another encoder.
    """
    tensors = read_tensors(path)
    kind = next((kind for kind, name in KINDS.items() if name in tensors), None)
    if kind:
        with torch.no_grad():
            pair = load_guidance(path, kind, encoder)(encoder).cpu().float()
        try:
            return in_space(between(pair), encoder.embed_dim)
        except ValueError as error:
            raise UserError(f"guidance.saved: {path}: {error}") from None
    if "vector" not in tensors:
        names = ", ".join(["vector", *KINDS.values()])
        raise UserError(
            f"guidance.saved: {path}: expected one of the tensors {names}, found '{next(iter(tensors), 'none')}'"
        )
    vector, about = tensors["vector"], read_metadata(path)
    made_with = about.get("encoder_fingerprint", encoder.fingerprint())
    if vector.shape != (encoder.embed_dim,) or made_with != encoder.fingerprint():
        found = f"one of {about.get('encoder', 'another')}, shape {tuple(vector.shape)}"
        raise UserError(
            f"guidance.saved: {path}: expected a direction of the encoder {encoder.name}, "
            f"shape ({encoder.embed_dim},), found {found}"
        )
    if not torch.isfinite(vector).all() or not vector.norm() > 1e-6:
        raise UserError(f"guidance.saved: {path}: expected a finite direction, found zeros, NaN or infinity")
    return torch.nn.functional.normalize(vector.float(), dim=0)
