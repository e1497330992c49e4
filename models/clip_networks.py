"""Networks for the frozen encoder: built by open_clip or timm, or after the shapes in a weight file."""

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import open_clip
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError, reason_of
from common.files import file_digest
from common.paths import is_file
from models.checkpoints import load_matching, read_tensors
from models.clip_weights import (
    cached,
    known_config,
    no_weights,
    openai_archives,
    reach_hub,
    tag_config,
    tag_file,
    weights_of,
)
from models.weight_files import LARGEST_WEIGHTS, is_archive

OUR_MODELS = Path(__file__).resolve().parent / "encoders"  # open_clip configs of this repository
IMAGE_ONLY_PREFIX = "timm/"
QUICK = "-quickgelu"  # how open_clip names the kinds of its models that were trained with QuickGELU
OPENAI_NUMBERS = {"input_resolution", "context_length", "vocab_size"}  # in OpenAI's own files beside the weights


@dataclass(frozen=True)
class Wanted:
    """What a builder is asked for: a model by name, with the weights of a tag or of a file; neither: random ones.

    quick_gelu, trusted: see `models.clip_encoder.load_clip`. others: models of other builders, for the hint that a
    misspelt name is answered with.
    """

    model: str
    tag: str | None = None
    file: str | None = None
    quick_gelu: bool | Literal["auto"] = "auto"
    trusted: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Model and weights, for messages."""
        return f"{self.model}/{self.file or self.tag or 'random'}"

    def tensors(self) -> dict[str, Tensor]:
        """What `file` holds. Raises UserError where it cannot be read."""
        return read_tensors(self.file, archives=openai_archives() | self.trusted)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a builder gives: a network, and what `ClipEncoder` has to know of it.

    network: gives (B,D) embeddings of prepared images, by itself or by its part `visual`.
    image_size: side of its square input in pixels. mean, std: of its RGB input in [0, 1].
    tokenizer: N texts -> (N,L) tokens; None for an image-only network.
    words: texts to read the space of a text tower by; None: every token of CLIP's vocabulary.
    classes: names of the N classes of the network's classifier, and its rows (N,D); None where it has no classifier.
    """

    network: nn.Module
    name: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tokenizer: Callable[[list[str]], Tensor] | None = None
    words: list[str] | None = None
    classes: tuple[list[str], Tensor] | None = None


def from_openai_file(wanted: Wanted) -> Built:
    """The CLIP model that the shapes of a file in OpenAI's naming describe. Raises UserError for other files."""
    file = wanted.file
    if file is None:
        raise UserError(
            "clip model 'auto': expected a weight file in OpenAI's naming as its pretrained value, found null"
        )
    tensors = wanted.tensors()
    image_names = {"visual.proj", "visual.attnpool.positional_embedding"}
    if not image_names & tensors.keys() or not {"text_projection", "ln_final.weight"} <= tensors.keys():
        raise UserError(f"{file}: expected OpenAI's CLIP state-dict naming, image and text tower, found other names")
    quick_gelu = _activation_of_file(wanted, tensors)
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name not in OPENAI_NUMBERS
    }
    network = open_clip.model.build_model_from_openai_state_dict(
        dict(tensors), quick_gelu is not False, cast_dtype=torch.float32
    ).float()
    # the builder rounds to half precision
    load_matching(network, tensors, file, "the CLIP model that its shapes describe")
    tokenizer = open_clip.SimpleTokenizer(context_length=network.context_length)
    return _built_by_open_clip(network, f"auto:{Path(file).name}", tokenizer)


def from_open_clip(wanted: Wanted) -> Built:
    """A model of open_clip, or of ours in its format. Raises UserError where it or its weights cannot be had."""
    model = wanted.model
    if model not in open_clip.list_models() and (OUR_MODELS / f"{model}.json").is_file():
        open_clip.add_model_config(OUR_MODELS / f"{model}.json")
    if model not in open_clip.list_models():
        raise UserError(f"clip model '{model}': unknown to open_clip {open_clip.__version__}{_close_name(wanted)}")
    if wanted.quick_gelu is False and model.endswith(QUICK):
        raise UserError(f"clip model '{model}': named for its QuickGELU, expected no quick_gelu: false beside it")
    if wanted.tag is not None:
        return _with_tag(wanted)
    if wanted.file is None:
        network, tokenizer = _open_clip_network(model, wanted.quick_gelu)
        return _built_by_open_clip(network, wanted.name, tokenizer)
    tensors = wanted.tensors()
    network, tokenizer = _open_clip_network(model, _activation_of_file(wanted, tensors))
    tensors = {name: tensor for name, tensor in tensors.items() if name not in OPENAI_NUMBERS}
    if all(name.startswith("visual.") for name in tensors):  # an image tower alone
        tower = {name.removeprefix("visual."): tensor for name, tensor in tensors.items()}
        load_matching(network.visual, tower, wanted.file, f"the image tower of {model}")
        tokenizer = None
    else:
        load_matching(network, tensors, wanted.file, model)
    return _built_by_open_clip(network, wanted.name, tokenizer)


def from_timm(wanted: Wanted) -> Built:
    """An image-only trunk of timm, named "timm/NAME"; of a classifier's weights, all but its head.

    Raises UserError where it or its weights cannot be had.
    """
    model, tag, file = wanted.model, wanted.tag, wanted.file
    name = model.removeprefix(IMAGE_ONLY_PREFIX)
    if not timm.is_model(name):
        raise UserError(f"clip model '{model}': unknown to timm {timm.__version__}; timm.list_models() names all")
    try:
        if tag is not None:
            _reach_hub_for_timm(name, tag)
        network = timm.create_model(name, pretrained=tag is not None, pretrained_cfg=tag, num_classes=0)
    except Exception as error:  # timm passes on the errors of the hub's client and of readers
        raise no_weights(wanted.name, timm.models.get_pretrained_cfg(name).hf_hub_id, error) from None
    if file:
        expected = network.state_dict()
        head = network.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{part}." for part in ((head,) if isinstance(head, str) else head))
        tensors = {k: v for k, v in wanted.tensors().items() if k in expected or not k.startswith(heads)}
        load_matching(network, tensors, file, model)
    return built_by_timm(network, wanted.name)


def built_by_timm(network: nn.Module, name: str, classes: tuple[list[str], Tensor] | None = None) -> Built:
    """A network of timm with the input that timm's own config gives it; classes: see `Built`."""
    config = network.pretrained_cfg
    return Built(
        network=network,
        name=name,
        image_size=config["input_size"][-1],
        mean=config["mean"],
        std=config["std"],
        classes=classes,
    )


def names_a_file(model: str, pretrained: str | None) -> bool:
    """Whether `pretrained` is a weight file, there or not, and no tag."""
    return pretrained is not None and (model == "auto" or bool(Path(pretrained).suffix) or is_file(pretrained))


def is_here(model: str, pretrained: str | None) -> bool:
    """Whether `load_clip` needs no download: all but tags of a hub that are not in its cache. The network is not asked.

    Raises UserError for a tag that a model of open_clip does not have. What else is wrong, `load_clip` tells.
    """
    if pretrained is None or names_a_file(model, pretrained):
        return True
    if model.startswith(IMAGE_ONLY_PREFIX):
        name = model.removeprefix(IMAGE_ONLY_PREFIX)
        config = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
        return config is None or cached(str(config.hf_hub_id), ("model.safetensors", "pytorch_model.bin")) is not None
    return model not in open_clip.list_models() or tag_file(model, pretrained) is not None


def _with_tag(wanted: Wanted) -> Built:
    """A model of open_clip with the weights of a tag, and the activation that the tag's own entry asks for."""
    model, tag = wanted.model, wanted.tag
    file = weights_of(model, tag, wanted.trusted)
    network, tokenizer = _open_clip_network(model, activation_of_tag(wanted), tag_config(model, tag))
    if is_archive(file):
        tensors = Wanted(model, file=str(file), trusted=wanted.trusted).tensors()
        tensors = {name: tensor for name, tensor in tensors.items() if name not in OPENAI_NUMBERS}
        load_matching(network, tensors, file, model)
    else:
        try:
            open_clip.load_checkpoint(network, str(file))  # translates what other trainers name otherwise
        except Exception as error:  # readers meet damaged files with every kind of exception
            raise UserError(
                f"{file}: expected the weights of {model}/{tag}, found {type(error).__name__}: {reason_of(error)}; "
                "if the file is damaged, remove it and it is downloaded again"
            ) from None
    return _built_by_open_clip(network, wanted.name, tokenizer)


def _open_clip_network(
    model: str, quick_gelu: bool | Literal["auto"], preprocess: dict | None = None
) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    """A network of random weights, with the activation of its name where `quick_gelu` is "auto", and its tokenizer."""
    activation = {} if quick_gelu == "auto" else {"quick_gelu": quick_gelu}
    logging.disable(logging.WARNING)  # it warns of random weights, which the caller asked for
    try:
        network = open_clip.create_model(model, force_preprocess_cfg=preprocess, pretrained_text=False, **activation)
        return network, open_clip.get_tokenizer(model)
    except (ImportError, OSError, RuntimeError) as error:  # text towers and tokenizers of other libraries
        raise UserError(f"clip model '{model}': open_clip cannot build it here: {reason_of(error)}") from None
    finally:
        logging.disable(logging.NOTSET)


def activation_of_tag(wanted: Wanted) -> bool | Literal["auto"]:
    """Whether the weights of a tag were trained with QuickGELU; "auto": what the model's own config says.

    open_clip itself only warns where the two differ.
    """
    if wanted.quick_gelu == "auto" and tag_config(wanted.model, wanted.tag).get("quick_gelu"):
        return True
    return wanted.quick_gelu


def _activation_of_file(wanted: Wanted, tensors: Mapping[str, Tensor]) -> bool | Literal["auto"]:
    """Whether the weights of a file were trained with QuickGELU; "auto" where the model's name leaves no choice.

    Raises UserError where neither name nor file tells: with the wrong one weights load, and embed wrongly.
    """
    if wanted.quick_gelu != "auto":
        return wanted.quick_gelu
    if OPENAI_NUMBERS & tensors.keys():
        return True
    both_exist = f"{wanted.model}{QUICK}" in open_clip.list_models()
    if not both_exist and wanted.model != "auto":
        return "auto"
    config = known_config(file_digest(wanted.file, limit=LARGEST_WEIGHTS))
    if config:
        return bool(config.get("quick_gelu"))
    if both_exist:
        raise UserError(
            f"{wanted.file}: {wanted.model} exists with GELU and with QuickGELU, and the file does not tell which it "
            "was trained with. Two ways out: clip.guidance.quick_gelu or clip.identity.quick_gelu: true (weights of "
            f"OpenAI, MetaCLIP, DFN) or false (LAION-2B, DataComp); or the model name {wanted.model}{QUICK} for true"
        )
    return "auto"


def _reach_hub_for_timm(name: str, tag: str) -> None:
    config = timm.models.get_pretrained_cfg(f"{name}.{tag}")
    files = [config.hf_hub_filename, "model.safetensors", "pytorch_model.bin"] if config else []
    if config and config.hf_hub_id and not cached(config.hf_hub_id, [file for file in files if file]):
        reach_hub()


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


def _close_name(wanted: Wanted) -> str:
    known = [*open_clip.list_models(), *(path.stem for path in OUR_MODELS.glob("*.json")), *wanted.others]
    close = difflib.get_close_matches(wanted.model, known, n=3, cutoff=0.5)
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
