"""The frozen CLIP encoder behind the losses, over open_clip and timm.

Shape letters: B images, D embedding size, P prompts, N texts, L context length, W text width.
Images enter as (B,3,H,W) RGB in [0, 1] of any size; resizing and normalisation are inside and
differentiable, so gradients flow from an embedding to the enhancement network.
"""

import difflib
import hashlib
import logging
import urllib.request
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import QuickGELU, Transformer
from torch import Tensor, nn

from common.errors import UserError
from models.checkpoints import load_matching, read_tensors

OUR_MODELS = Path(__file__).resolve().parent / "encoders"  # open_clip configs of this repository
IMAGE_ONLY_PREFIX = "timm/"
MAPS = 5  # stem, layer1..4


class ClipEncoder(nn.Module):
    """A frozen image encoder with, where there is one, its text tower. Always in eval mode.

    Built by `load_clip`. `embed_dim` D, `image_size` the square input side in pixels,
    `has_text` whether texts and prompts can be embedded, `name` what was loaded.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        image_size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        preprocess: str,
        tokenizer: Callable[[list[str]], Tensor] | None,
    ) -> None:
        if preprocess not in ("squash", "center_crop"):
            raise ValueError(f"preprocess: expected 'squash' or 'center_crop', found {preprocess!r}")
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.name = name
        self.image_size = image_size
        self.preprocess = preprocess
        self.has_text = tokenizer is not None
        self._tokenizer = tokenizer
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        with torch.no_grad():
            self.embed_dim = self._image_features(torch.zeros(1, 3, image_size, image_size)).shape[-1]

    def train(self, mode: bool = True) -> "ClipEncoder":
        """Frozen: stays in eval mode, whatever a surrounding module is set to."""
        return super().train(False)

    def embed_images(self, images: Tensor) -> Tensor:
        """(B,3,H,W) RGB in [0, 1] -> f(Φ(I)), (B,D) float32, unit norm. Raises ValueError on other shapes."""
        return F.normalize(self._image_features(self._prepare(images)).float(), dim=-1)

    def feature_maps(self, images: Tensor, count: int = MAPS) -> list[Tensor]:
        """(B,3,H,W) RGB in [0, 1] -> the first `count` of five maps Φ_l(I): stem (after its pool) and layer1..4, each (B,C,h,w).

        Neither the layers above nor the attention pool are computed. Raises UserError for an encoder without five such maps.
        """
        tower = self._tower_with_maps()
        # open_clip's ResNet leaves out the layers above where it is not asked to stop early, timm's where it is
        found = tower.forward_intermediates(
            self._prepare(images).to(self._dtype()),
            indices=None
            if count == MAPS
            else list(range(count)),  # None: all, of which a transformer has another number
            stop_early=not isinstance(tower, ModifiedResNet),
            intermediates_only=True,
        )
        return self._checked(found["image_intermediates"] if isinstance(found, dict) else found, count)

    def embed_with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`embed_images` and the five `feature_maps` of the same images, from one pass. Raises as they do."""
        tower = self._tower_with_maps()
        found = tower.forward_intermediates(self._prepare(images).to(self._dtype()))
        if isinstance(found, dict):
            features, maps = found["image_features"], found["image_intermediates"]
        else:  # timm: what its head takes, and the maps
            features, maps = tower.forward_head(found[0]), found[1]
        return F.normalize(features.float(), dim=-1), self._checked(maps, MAPS)

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
        """What the text tower starts from: N texts -> token embeddings (N,L,W), and the position (N,) at which each ends.

        With positional embeddings still to be added: the values that a learnable prompt starts from.
        Raises UserError for an encoder whose text tower does not take token embeddings.
        """
        text = self._text_tower()
        tokens = self._tokenizer(texts).to(self.mean.device)
        return text.token_embedding(tokens), _text_ends(text, tokens)

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
        projection = text.text_projection
        if projection is None:
            return x.float()
        return (projection(x) if isinstance(projection, nn.Module) else x @ projection).float()

    def fingerprint(self, *, text: bool = False) -> str:
        """Hash of the image tower's weights and the preprocessing (with `text`, of the whole model): a cache key for embeddings."""
        digest = hashlib.sha256(f"{self.image_size} {self.preprocess} {self._dtype()}".encode())
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
            f"clip.identity.model: expected a ResNet with five feature maps (stem, layer1..4), found {self.name}"
        )

    def _text_features(self, tokens: Tensor) -> Tensor:
        """Tokens (N,L) -> (N,D) float32, not normalised."""
        text = getattr(self.model, "text", self.model)
        if not _takes_token_embeddings(text) or text.attn_mask is None or _pool_type(text) not in ("argmax", "eos"):
            return self.model.encode_text(tokens).float()
        ends = _text_ends(text, tokens)
        tokens = tokens[:, : int(ends.max()) + 1]
        return self.embed_prompts(text.token_embedding(tokens), ends)

    def _text_tower(self) -> nn.Module:
        self._require_text()
        text = getattr(self.model, "text", self.model)  # CustomTextCLIP keeps the tower in .text, CLIP in itself
        if not _takes_token_embeddings(text):
            raise UserError(
                f"{self.name}: prompts are learned through open_clip's own text transformer, found {type(text).__name__}"
            )
        return text

    def _require_text(self) -> None:
        if not self.has_text:
            raise UserError(f"{self.name}: expected an encoder with a text tower, found an image-only one")


def _takes_token_embeddings(text: nn.Module) -> bool:
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask")
    # CoCa appends a token of its own; padding masks depend on the tokens, which a learned prompt has not
    return (
        all(hasattr(text, part) for part in parts)
        and getattr(text, "cls_emb", None) is None
        and not getattr(text, "use_pad_mask", False)
    )


def _pool_type(text: nn.Module) -> str:
    return getattr(text, "text_pool_type", None) or getattr(text, "pool_type", "argmax")


def _text_ends(text: nn.Module, tokens: Tensor) -> Tensor:
    """The position (N,) whose output stands for each text (N,L), as the tower pools."""
    pool = _pool_type(text)
    if pool == "argmax":  # the end token has the highest number
        return tokens.argmax(dim=-1)
    if pool == "eos":
        return (tokens == (getattr(text, "text_eos_id", None) or text.eos_id)).int().argmax(dim=-1)
    if pool in ("first", "last"):
        return torch.full((len(tokens),), 0 if pool == "first" else tokens.shape[1] - 1, device=tokens.device)
    raise UserError(f"text tower: expected one that takes a position as the text's embedding, found pooling '{pool}'")


def load_clip(
    model: str,
    pretrained: str | None,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    preprocess: str = "squash",
    seed: int = 0,
) -> ClipEncoder:
    """A frozen encoder.

    model: an open_clip name ("ViT-B-32", "RN101"), one of ours ("mini-rn", "mini-clip"), "timm/NAME" for an
        image-only trunk, or "auto" when `pretrained` is a file in OpenAI's state-dict naming.
    pretrained: an open_clip tag, a weight file (.safetensors, .npz, .pt), or None for random weights
        drawn from `seed`, batch-norm statistics taken on seeded noise.
    precision: "fp32" or "bf16" (weights and activations; embeddings are float32 either way).
    preprocess: "squash" to the square input, or "center_crop" (CLIP's own).

    Raises UserError for an unknown model or tag, and where weights cannot be had.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision: expected 'fp32' or 'bf16', found {precision!r}")
    file = (
        pretrained
        if pretrained is not None and (model == "auto" or Path(pretrained).suffix or Path(pretrained).is_file())
        else None
    )
    with torch.random.fork_rng(devices=[]):  # random weights must neither depend on nor disturb the caller's generator
        torch.manual_seed(seed)
        if model == "auto":
            network, settings = _from_openai_file(file)
        elif model.startswith(IMAGE_ONLY_PREFIX):
            network, settings = _from_timm(model, pretrained, file)
        else:
            network, settings = _from_open_clip(model, pretrained, file)
        if pretrained is None:
            _settle_batch_norm(network, settings["image_size"])
    _sequence_first(network)
    encoder = ClipEncoder(network, preprocess=preprocess, **settings)
    if precision == "bf16":
        encoder.model.to(torch.bfloat16)
    return encoder.to(device, memory_format=torch.channels_last)


def _from_openai_file(file: str | None) -> tuple[nn.Module, dict]:
    if file is None:
        raise UserError(
            "clip model 'auto': expected a weight file in OpenAI's naming as its pretrained value, found null"
        )
    tensors = read_tensors(file)
    image_names = {"visual.proj", "visual.attnpool.positional_embedding"}
    if not image_names & tensors.keys() or not {"text_projection", "ln_final.weight"} <= tensors.keys():
        raise UserError(f"{file}: expected OpenAI's CLIP state-dict naming, image and text tower, found other names")
    for name in (
        "input_resolution",
        "context_length",
        "vocab_size",
    ):  # numbers that OpenAI's files carry beside the weights
        tensors.pop(name, None)
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    network = open_clip.model.build_model_from_openai_state_dict(dict(tensors), cast_dtype=torch.float32).float()
    load_matching(
        network, tensors, file, "the CLIP model that its shapes describe"
    )  # the builder rounds to half precision
    _assert_quick_gelu(network, file)
    tokenizer = open_clip.SimpleTokenizer(context_length=network.context_length)
    return network, _open_clip_settings(network, f"auto:{Path(file).name}", tokenizer)


def _from_open_clip(model: str, pretrained: str | None, file: str | None) -> tuple[nn.Module, dict]:
    if model not in open_clip.list_models() and (OUR_MODELS / f"{model}.json").is_file():
        open_clip.add_model_config(OUR_MODELS / f"{model}.json")
    if model not in open_clip.list_models():
        raise UserError(f"clip model '{model}': unknown to open_clip {open_clip.__version__}{_close_name(model)}")
    tensors = read_tensors(file) if file else {}
    if "input_resolution" in tensors:
        return _from_openai_file(file)  # OpenAI's own file: needs QuickGELU, whatever the name says
    tag = None if file else pretrained
    if tag is not None:
        _fetch(model, tag)
    logging.disable(logging.WARNING)  # it warns of random weights, which the caller asked for
    try:
        network = open_clip.create_model(model, pretrained=tag)
        tokenizer = open_clip.get_tokenizer(model)
    except (ImportError, OSError, RuntimeError) as error:  # text towers and tokenizers of other libraries
        reason = str(error).strip().splitlines()
        raise UserError(
            f"clip model '{model}': open_clip cannot build it here: {reason[0] if reason else type(error).__name__}"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    has_text = True
    if file:
        has_text = not all(name.startswith("visual.") for name in tensors)
        if has_text:
            load_matching(network, tensors, file, model)
        else:  # an image tower alone
            tower = {name.removeprefix("visual."): tensor for name, tensor in tensors.items()}
            load_matching(network.visual, tower, file, f"the image tower of {model}")
    if tag == "openai":
        _assert_quick_gelu(network, f"{model}/openai")
    return network, _open_clip_settings(network, f"{model}/{file or tag or 'random'}", tokenizer if has_text else None)


def _from_timm(model: str, pretrained: str | None, file: str | None) -> tuple[nn.Module, dict]:
    name = model.removeprefix(IMAGE_ONLY_PREFIX)
    if not timm.is_model(name):
        raise UserError(f"clip model '{model}': unknown to timm {timm.__version__}; timm.list_models() names all")
    tag = None if file else pretrained
    try:
        network = timm.create_model(name, pretrained=tag is not None, pretrained_cfg=tag, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_weights(model, tag, timm.models.get_pretrained_cfg(name).hf_hub_id, error) from None
    if file:
        load_matching(network, read_tensors(file), file, model)
    config = network.pretrained_cfg
    return network, {
        "name": f"{model}/{file or tag or 'random'}",
        "image_size": config["input_size"][-1],
        "mean": config["mean"],
        "std": config["std"],
        "tokenizer": None,
    }


def _open_clip_settings(network: nn.Module, name: str, tokenizer: Callable | None) -> dict:
    size = network.visual.image_size
    config = open_clip.get_model_preprocess_cfg(network)
    mean = config.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = config.get("std") or open_clip.OPENAI_DATASET_STD
    return {
        "name": name,
        "image_size": size if isinstance(size, int) else size[0],
        "mean": tuple(mean),
        "std": tuple(std),
        "tokenizer": tokenizer,
    }


def _fetch(model: str, tag: str) -> None:
    """Have the weights of an open_clip tag in the local cache, or say in one line why not."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        known = f"tags of {model}: {', '.join(tags)}" if tags else f"{model} has none; null gives random weights"
        raise UserError(f"clip model '{model}': unknown pretrained tag '{tag}', and no file of this name; {known}")
    config = open_clip.get_pretrained_cfg(model, tag)
    hub = config.get("hf_hub")
    try:
        if hub and not _is_cached(hub) and not huggingface_hub.is_offline_mode():
            # open_clip would try several file names, each five times, for a minute
            urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=10).close()
        open_clip.download_pretrained(config)
    except (OSError, RuntimeError, ValueError) as error:  # hub, urllib and checksum errors are all among these
        raise _no_weights(model, tag, hub or config.get("url"), error) from None


def _is_cached(hub: str) -> bool:
    repository, _, file = hub.rpartition("/")
    files = [file] if file else [open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME]
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in files)


def _no_weights(model: str, tag: str | None, source: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()
    hub = huggingface_hub.constants
    return UserError(
        f"CLIP weights {model}/{tag} could not be had: looked in {hub.HF_HUB_CACHE} "
        f"and at {source if '://' in source else f'{hub.ENDPOINT}/{source}'} "
        f"({type(error).__name__}: {reason[0][:120] if reason else 'no reason given'}). "
        "Two ways out: give a local file (--set clip.guidance.pretrained=FILE, --set clip.identity.pretrained=FILE; "
        "for files in OpenAI's naming also --set clip.guidance.model=auto), "
        "or train offline with --cfg rave_quickstart.yaml"
    )


def _settle_batch_norm(network: nn.Module, side: int) -> None:
    """Give a network of random weights the batch-norm statistics of its own activations on noise.

    Untouched, a random ResNet shrinks its activations layer by layer until biases are all that is
    left, and every photo embeds alike: with mini-rn the mean embeddings of backlit and well-lit
    photos have cosine 0.9999; with statistics of their own, 0.64 to 0.85. No photos are needed.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        nn.init.ones_(norm.weight)  # residual branches start at zero, which is for training
    sizes = [size for size in (2, 4, 8, 16, 32) if size < side]
    layers = [F.interpolate(torch.randn(16, 3, size, size), (side, side), mode="bicubic") / size**0.5 for size in sizes]
    noise = torch.stack(layers).sum(dim=0)  # weaker at finer scales, as photos are
    noise = noise / noise.std(dim=(1, 2, 3), keepdim=True)
    brightness = torch.rand(16, 1, 1, 1) * 0.8 + 0.1
    network.train()
    with torch.no_grad():
        getattr(network, "visual", network)(((brightness * (1 + 0.5 * noise)).clamp(0, 1) - 0.5) / 0.25)
    network.eval()


def _sequence_first(network: nn.Module) -> None:
    """Let open_clip's transformers work on (L,N,D) instead of (N,L,D); what goes in and comes out stays as it is.

    Between the two, attention is handed a transposed view, which PyTorch multiplies with frozen weights position by position:
    ViT-B/32 with the gradient of four images takes 1.45 s that way and 1.0 s this way on one core.
    """
    for transformer in network.modules():
        if type(transformer) is Transformer:
            transformer.batch_first = False
            for attention in transformer.modules():
                if isinstance(attention, nn.MultiheadAttention):
                    attention.batch_first = False


def _assert_quick_gelu(network: nn.Module, source: str) -> None:
    """OpenAI's weights were trained with QuickGELU; with GELU they load without complaint and embed wrongly."""
    if any(type(module) is nn.GELU for module in network.modules()) or not any(
        isinstance(module, QuickGELU) for module in network.modules()
    ):
        raise UserError(
            f"{source}: OpenAI's weights need QuickGELU, found GELU; use the 'openai' tag or a '-quickgelu' model name"
        )


def _close_name(model: str) -> str:
    known = open_clip.list_models() + [path.stem for path in OUR_MODELS.glob("*.json")]
    close = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
