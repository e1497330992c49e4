"""Networks for the frozen encoder: built by open_clip or timm, or after the shapes in a weight file."""

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from common.errors import UserError
from models.checkpoints import load_matching, read_tensors
from models.clip_weights import fetch, no_weights

OUR_MODELS = Path(__file__).resolve().parent / "encoders"  # open_clip configs of this repository
IMAGE_ONLY_PREFIX = "timm/"


@dataclass(frozen=True)
class Wanted:
    """What a builder is asked for: a model by name, with the weights of a tag or of a file; neither: random ones."""

    model: str
    tag: str | None = None
    file: str | None = None

    @property
    def name(self) -> str:
        """Model and weights, for messages."""
        return f"{self.model}/{self.file or self.tag or 'random'}"


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a builder gives: a network, and what `ClipEncoder` has to know of it.

    network: gives (B,D) embeddings of prepared images, by itself or by its part `visual`.
    image_size: side of its square input in pixels. mean, std: of its RGB input in [0, 1].
    tokenizer: N texts -> (N,L) tokens; None for an image-only network.
    classes: names of the N classes of the network's classifier, and its rows (N,D); None where it has no classifier.
    """

    network: nn.Module
    name: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tokenizer: Callable[[list[str]], Tensor] | None = None
    classes: tuple[list[str], Tensor] | None = None


def from_openai_file(wanted: Wanted) -> Built:
    """The CLIP model that the shapes of a file in OpenAI's naming describe. Raises UserError for other files."""
    file = wanted.file
    if file is None:
        raise UserError(
            "clip model 'auto': expected a weight file in OpenAI's naming as its pretrained value, found null"
        )
    tensors = read_tensors(file)
    image_names = {"visual.proj", "visual.attnpool.positional_embedding"}
    if not image_names & tensors.keys() or not {"text_projection", "ln_final.weight"} <= tensors.keys():
        raise UserError(f"{file}: expected OpenAI's CLIP state-dict naming, image and text tower, found other names")
    for name in ("input_resolution", "context_length", "vocab_size"):  # numbers that OpenAI's files hold too
        tensors.pop(name, None)
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    network = open_clip.model.build_model_from_openai_state_dict(dict(tensors), cast_dtype=torch.float32).float()
    # the builder rounds to half precision
    load_matching(network, tensors, file, "the CLIP model that its shapes describe")
    _assert_quick_gelu(network, file)
    tokenizer = open_clip.SimpleTokenizer(context_length=network.context_length)
    return _built_by_open_clip(network, f"auto:{Path(file).name}", tokenizer)


def from_open_clip(wanted: Wanted) -> Built:
    """A model of open_clip, or of ours in its format. Raises UserError where it or its weights cannot be had."""
    model, tag, file = wanted.model, wanted.tag, wanted.file
    if model not in open_clip.list_models() and (OUR_MODELS / f"{model}.json").is_file():
        open_clip.add_model_config(OUR_MODELS / f"{model}.json")
    if model not in open_clip.list_models():
        raise UserError(f"clip model '{model}': unknown to open_clip {open_clip.__version__}{_close_name(model)}")
    tensors = read_tensors(file) if file else {}
    if "input_resolution" in tensors:
        return from_openai_file(wanted)  # OpenAI's own file: needs QuickGELU, whatever the name says
    if tag is not None:
        fetch(model, tag)
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
    return _built_by_open_clip(network, wanted.name, tokenizer if has_text else None)


def from_timm(wanted: Wanted) -> Built:
    """An image-only trunk of timm, named "timm/NAME". Raises UserError where it or its weights cannot be had."""
    model, tag, file = wanted.model, wanted.tag, wanted.file
    name = model.removeprefix(IMAGE_ONLY_PREFIX)
    if not timm.is_model(name):
        raise UserError(f"clip model '{model}': unknown to timm {timm.__version__}; timm.list_models() names all")
    try:
        network = timm.create_model(name, pretrained=tag is not None, pretrained_cfg=tag, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise no_weights(model, tag, timm.models.get_pretrained_cfg(name).hf_hub_id, error) from None
    if file:
        load_matching(network, read_tensors(file), file, model)
    config = network.pretrained_cfg
    return Built(
        network=network,
        name=wanted.name,
        image_size=config["input_size"][-1],
        mean=config["mean"],
        std=config["std"],
    )


def _built_by_open_clip(network: nn.Module, name: str, tokenizer: Callable | None) -> Built:
    size = network.visual.image_size
    config = open_clip.get_model_preprocess_cfg(network)
    return Built(
        network=network,
        name=name,
        image_size=size if isinstance(size, int) else size[0],
        mean=tuple(config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(config.get("std") or open_clip.OPENAI_DATASET_STD),
        tokenizer=tokenizer,
    )


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


def settle_batch_norm(network: nn.Module, side: int) -> None:
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
