"""The frozen CLIP encoder behind the losses, over open_clip and timm.

Shape letters: B images, D embedding size, P prompts, N texts, L context length, W text width.
Images enter as (B,3,H,W) RGB in [0, 1] of any size; resizing and normalisation are inside and
differentiable, so gradients flow from an embedding to the enhancement network.
"""

import copy
import hashlib
from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from common.errors import UserError
from models import efficientnet, mini_clip
from models.clip_networks import (
    Built,
    Wanted,
    from_open_clip,
    from_openai_file,
    from_timm,
    names_a_file,
    settle_batch_norm,
)
from models.frozen import attention_of, freeze, tokens_of
from models.stages import LAYERS, stages_vector
from models.text_tower import pool_type, project_text, takes_token_embeddings, text_ends
from models.vocabulary import class_directions, class_number, clip_tokens

MAPS = 5  # stem, layer1..4
# Who builds a model, by its name up to the first "/"; open_clip builds the rest.
BUILDERS = {
    "auto": from_openai_file,
    "timm": from_timm,
    efficientnet.NAME: efficientnet.from_package,
    mini_clip.NAME: mini_clip.from_file,
}


class ClipEncoder(nn.Module):
    """A frozen image encoder with, where there is one, its text tower. Always in eval mode.

    Built by `load_clip`. `embed_dim` D, `image_size` the square input side in pixels,
    `has_text` whether texts and prompts can be embedded, `vocabulary_kind` what its words are (CLIP's "tokens", "words"
    that its text tower was trained on, "classes" of its classifier, None where it has neither tower nor classifier),
    `name` what was loaded, `layers` what Φ is made of: "last" (the papers), or "stages", see `in_layers`.
    """

    layers = "last"

    def __init__(self, built: Built, *, preprocess: str = "squash", image_size: int | None = None) -> None:
        if preprocess not in ("squash", "center_crop"):
            raise ValueError(f"preprocess: expected 'squash' or 'center_crop', found {preprocess!r}")
        super().__init__()
        self.model = freeze(built.network)
        self.name = built.name
        self.image_size = image_size or built.image_size
        self._tokens = tokens_of(self._tower(), self.image_size)
        self.preprocess = preprocess
        self.has_text = built.tokenizer is not None
        self._tokenizer = built.tokenizer
        self._names, rows = built.classes or (built.words, torch.empty(0))
        self.register_buffer("_class_rows", rows.float(), persistent=False)
        of_texts = "words" if self._names else "tokens"
        self.vocabulary_kind = of_texts if self.has_text else "classes" if self._names else None
        self.register_buffer("mean", torch.tensor(built.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(built.std).view(1, 3, 1, 1), persistent=False)
        blank = torch.zeros(1, 3, self.image_size, self.image_size)
        try:
            with torch.no_grad():
                self.embed_dim = self._image_features(blank).shape[-1]
        except (AssertionError, RuntimeError):  # transformers and attention pools have positions for one size
            if self.image_size == built.image_size:
                raise
            raise UserError(
                f"clip.image_size: {self.name} takes images of {built.image_size} px alone, found {image_size}"
            ) from None

    def train(self, mode: bool = True) -> "ClipEncoder":
        """Frozen: stays in eval mode, whatever a surrounding module is set to."""
        return super().train(False)

    def in_layers(self, layers: str) -> "ClipEncoder":
        """The same network with another Φ: "last", or "stages", its feature maps as well (`stages_vector`, ours).

        Light shows in early layers, content in late ones. `embed_dim` grows; words stay what they are, directions of
        the last layer. Raises UserError for "stages" of an encoder without five maps.
        """
        if layers not in LAYERS:
            raise ValueError(f"layers: expected one of {', '.join(LAYERS)}, found {layers!r}")
        if layers == self.layers:
            return self
        other = copy.copy(self)
        other.layers, other.name = layers, self.name.removesuffix(f", {self.layers}")
        if layers != "last":
            other.name += f", {layers}"
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=self.mean.device)
        with torch.no_grad():
            other.embed_dim = other.embed_images(blank).shape[-1]
        return other

    def embed_images(self, images: Tensor) -> Tensor:
        """(B,3,H,W) RGB in [0, 1] -> f(Φ(I)), (B,D) float32, unit norm. Raises ValueError on other shapes."""
        if self.layers == "stages":
            return self.embed_with_maps(images)[0]
        return F.normalize(self._image_features(self._prepare(images)).float(), dim=-1)

    def feature_maps(self, images: Tensor, count: int = MAPS) -> list[Tensor]:
        """(B,3,H,W) RGB in [0, 1] -> the first `count` of five maps Φ_l(I), each (B,C,h,w).

        They are the stem (after its pool) and layer1..4. Neither the layers above nor the attention pool are computed.
        Raises UserError for an encoder without five such maps.
        """
        tower = self._tower_with_maps()
        # open_clip's ResNet leaves out the layers above where it is not asked to stop early, timm's where it is
        with attention_of(self._tokens, images.device):
            found = tower.forward_intermediates(
                self._prepare(images).to(self._dtype()),
                indices=None if count == MAPS else list(range(count)),  # of all, a transformer has another number
                stop_early=not isinstance(tower, ModifiedResNet),
                intermediates_only=True,
            )
        return self._checked(found["image_intermediates"] if isinstance(found, dict) else found, count)

    def embed_with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`embed_images` and the five `feature_maps` of the same images, from one pass. Raises as they do."""
        tower = self._tower_with_maps()
        with attention_of(self._tokens, images.device):
            found = tower.forward_intermediates(self._prepare(images).to(self._dtype()))
        if isinstance(found, dict):
            features, maps = found["image_features"], found["image_intermediates"]
        else:  # timm: what its head takes, and the maps
            features, maps = tower.forward_head(found[0]), found[1]
        maps = self._checked(maps, MAPS)
        return stages_vector(maps, features) if self.layers == "stages" else F.normalize(features.float(), dim=-1), maps

    def embed_texts(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """N texts -> (N,D) float32, unit norm. Raises UserError for an image-only encoder.

        Where attention is causal, what follows the end of a text cannot reach it: texts are batched by length and cut
        behind their longest, which makes single words many times faster and changes nothing.
        """
        self._require_text()
        if not texts:
            return torch.empty(0, self.embed_dim, device=self.mean.device)
        tokens = torch.cat([self._tokenizer(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)])
        order = (tokens != 0).sum(dim=1).argsort()
        batches = [tokens[rows].to(self.mean.device) for rows in order.split(batch_size)]
        embeddings = torch.cat([F.normalize(self._text_features(batch), dim=-1) for batch in batches])
        return embeddings[order.argsort().to(embeddings.device)]

    def embed_tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """N texts -> token embeddings (N,L,W), what the text tower starts from, and the position (N,) of each end.

        With positional embeddings still to be added: the values that a learnable prompt starts from.
        Raises UserError for an encoder whose text tower does not take token embeddings.
        """
        text = self._text_tower()
        tokens = self._tokenizer(texts).to(self.mean.device)
        return text.token_embedding(tokens), text_ends(text, tokens)

    def embed_prompts(self, token_embeddings: Tensor, eos_index: int | Tensor) -> Tensor:
        """Learnable prompts (P,L,W), L up to the context length (77) -> (P,D), not normalised (CLIP-LIT, section 3.2).

        Adds the positional embedding, runs the text transformer and the final LayerNorm, takes
        position `eos_index` (an int, or one per prompt) and projects.
        Raises UserError for an encoder whose text tower does not take token embeddings.
        """
        text = self._text_tower()
        length, dtype = token_embeddings.shape[1], text.positional_embedding.dtype
        mask = text.attn_mask if text.attn_mask is None else text.attn_mask[:length, :length]
        x = token_embeddings.to(dtype) + text.positional_embedding[:length]
        x = text.transformer(x, attn_mask=mask)
        x = text.ln_final(x)
        x = x[torch.arange(len(x), device=x.device), torch.as_tensor(eos_index, device=x.device).expand(len(x))]
        return project_text(text, x).float()

    def words(self) -> tuple[list[str], list[bool]]:
        """The texts of the vocabulary, and whether each is a whole word or name and no piece of one.

        Raises UserError for an encoder without a vocabulary.
        """
        if self.vocabulary_kind is None:
            raise UserError(f"{self.name}: expected an encoder with a text tower or a classifier, found neither")
        return clip_tokens() if self._names is None else (self._names, [True] * len(self._names))

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """The texts of the vocabulary and their directions (N,D) in embedding space, float32, unit norm.

        Of a text tower: every token (mini-clip: the words it was trained on), embedded as a text of its own. Of a
        classifier: its rows w_c, centred (what all classes have in common tells none of them), f(w_c − mean w).
        Raises UserError for an encoder without a vocabulary.
        """
        names, _ = self.words()
        if self.has_text:
            return names, self.embed_texts(names, 512)
        return names, class_directions(self._class_rows)

    def embed_words(self, texts: list[str]) -> Tensor:
        """Directions (N,D) of words of one's own, unit norm: texts embedded, or classes by name.

        Raises UserError for a name that is no class, and for an encoder without a vocabulary.
        """
        if self.has_text:
            return self.embed_texts(texts)
        names, vectors = self.vocabulary()
        try:
            return vectors[[class_number(text, names) for text in texts]]
        except ValueError as error:
            raise UserError(f"{self.name}: {error}") from None

    def fingerprint(self, *, text: bool = False) -> str:
        """Hash of the image tower's weights (with `text`, of all) and preprocessing: the cache key of embeddings."""
        layers = "" if self.layers == "last" else f" {self.layers}"
        digest = hashlib.sha256(f"{self.image_size} {self.preprocess} {self._dtype()}{layers}".encode())
        for name, tensor in (self.model if text else self._tower()).state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def _tower(self) -> nn.Module:
        return getattr(self.model, "visual", self.model)

    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def to_input_size(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,3,S,S), S = image_size, as `preprocess` says; values stay in [0, 1]. Differentiable."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W), found {tuple(images.shape)}")
        side = self.image_size
        if self.preprocess == "squash":
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        else:
            height, width = images.shape[-2:]
            scale = side / min(height, width)
            size = (max(side, round(height * scale)), max(side, round(width * scale)))
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
            top, left = (size[0] - side) // 2, (size[1] - side) // 2
            images = images[..., top : top + side, left : left + side]
        return images

    def _prepare(self, images: Tensor) -> Tensor:
        return (self.to_input_size(images) - self.mean) / self.std

    def _image_features(self, prepared: Tensor) -> Tensor:
        with attention_of(self._tokens, prepared.device):
            features = self._tower()(prepared.to(self._dtype()))
        return features[0] if isinstance(features, tuple) else features  # CoCa gives its tokens beside

    def _tower_with_maps(self) -> nn.Module:
        tower = self._tower()
        if not hasattr(tower, "forward_intermediates"):
            raise self._no_maps()
        return tower

    def _checked(self, maps: list[Tensor], count: int) -> list[Tensor]:
        if len(maps) != count or any(m.ndim != 4 for m in maps):
            raise self._no_maps()
        return maps

    def _no_maps(self) -> UserError:
        return UserError(
            "expected an encoder with five feature maps (stem, layer1..4), such as a ResNet or efficientnet-lite0, "
            f"found {self.name}"
        )

    def _text_features(self, tokens: Tensor) -> Tensor:
        """Tokens (N,L) -> (N,D) float32, not normalised."""
        text = getattr(self.model, "text", self.model)
        if not takes_token_embeddings(text) or text.attn_mask is None or pool_type(text) not in ("argmax", "eos"):
            return self.model.encode_text(tokens).float()
        ends = text_ends(text, tokens)
        tokens = tokens[:, : int(ends.max()) + 1]
        return self.embed_prompts(text.token_embedding(tokens), ends)

    def _text_tower(self) -> nn.Module:
        self._require_text()
        text = getattr(self.model, "text", self.model)  # CustomTextCLIP keeps the tower in .text, CLIP in itself
        if not takes_token_embeddings(text):
            raise UserError(
                f"{self.name}: prompts are learned through open_clip's own text transformer, "
                f"found {type(text).__name__}"
            )
        return text

    def _require_text(self) -> None:
        if not self.has_text:
            raise UserError(f"{self.name}: expected an encoder with a text tower, found an image-only one")


def load_clip(
    model: str,
    pretrained: str | None,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    preprocess: str = "squash",
    seed: int = 0,
    image_size: int | None = None,
    quick_gelu: bool | Literal["auto"] = "auto",
    trusted: Collection[str] = (),
) -> ClipEncoder:
    """A frozen encoder.

    model: an open_clip name ("ViT-B-32", "RN101"), one of ours ("mini-rn", "mini-clip"), "efficientnet-lite0" (weights
        by pip, tag "imagenet"), "timm/NAME" for an image-only trunk, or "auto" when `pretrained` is a file in
        OpenAI's state-dict naming.
    pretrained: a tag of the model, a weight file (.safetensors, .npz, .pt, OpenAI's own archives), or None for random
        weights drawn from `seed`, batch-norm statistics taken on seeded noise.
    precision: "fp32" or "bf16" (weights and activations; embeddings are float32 either way).
    preprocess: "squash" to the square input, or "center_crop" (CLIP's own).
    image_size: side of the square input in place of the encoder's own, for networks that take any (convolutional ones).
    quick_gelu: whether the weights were trained with QuickGELU. "auto": as open_clip's entry of the tag says; for a
        file, as its SHA-256 or the model's name says.
    trusted: SHA-256 (64 hexadecimal digits) of TorchScript archives in OpenAI's naming to open beside OpenAI's own;
        opening one runs what is in it, so all others are refused.

    Raises UserError for an unknown model or tag, where weights cannot be had, and for a file of which nothing tells
    the activation.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision: expected 'fp32' or 'bf16', found {precision!r}")
    by_file = names_a_file(model, pretrained)
    builder = BUILDERS.get(model.split("/")[0], from_open_clip)
    if quick_gelu != "auto" and builder not in (from_open_clip, from_openai_file):
        raise UserError(f"clip model '{model}': its name tells the activation, expected quick_gelu: auto")
    wanted = Wanted(
        model,
        tag=None if by_file else pretrained,
        file=pretrained if by_file else None,
        quick_gelu=quick_gelu,
        trusted=frozenset(trusted),
        others=tuple(BUILDERS),
    )
    with torch.random.fork_rng(devices=[]):  # random weights must neither depend on nor disturb the caller's generator
        torch.manual_seed(seed)
        built = builder(wanted)
        if pretrained is None:
            settle_batch_norm(built.network, built.image_size)
    encoder = ClipEncoder(built, preprocess=preprocess, image_size=image_size)
    if precision == "bf16":
        encoder.model.to(torch.bfloat16)
    return encoder.to(device, memory_format=torch.channels_last)
