"""Weights into networks, and ours onto disk: which part of a checkpoint is meant, whether it fits and is of use."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.files import writing
from models.retinex import enhance
from models.unet import IlluminationUNet
from models.weight_files import read_content

UNET = "the illumination UNet"  # for errors
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")  # what DDP, torch.compile and trainers put before names
# what trainers call averaged weights, which are preferred to the last ones beside them
AVERAGED = ("params_ema", "ema", "model_ema", "state_dict_ema", "ema_model")


def read_tensors(path: str | Path, *, archives: Collection[str] = ()) -> dict[str, Tensor]:
    """The state dict in a `.safetensors`, `.npz` or PyTorch file, on the CPU, without what wraps its names.

    Of a training's checkpoint: the best weights, else averaged ones, else the largest set (`state_dict`, `model` ...).
    archives: SHA-256 of the TorchScript archives that may be opened. Never executes pickled code.
    Raises UserError where the file is missing, is none of these, or holds other than dense tensors.
    """
    tensors = _state_dicts(read_content(path, archives=archives), path)[0][1]
    while tensors and (prefix := _common_prefix(tensors)):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load_matching(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, what: str) -> None:
    """`module.load_state_dict`, with names, shapes and kinds that do not fit named in one line (UserError)."""
    if misfit := _misfit(module.state_dict(), tensors, what):
        raise UserError(f"{source}: {misfit}")
    module.load_state_dict(dict(tensors))


def load_unet(
    path: str | Path,
    padding_mode: str = "reflect",
    device: str | torch.device = "cpu",
    *,
    must_enhance: bool = False,
) -> IlluminationUNet:
    """The enhancement network with the weights in a file, in eval mode.

    The file: a published `.pth`, our `.safetensors` or `last.pt` (its best weights), or another training's checkpoint
    that holds the network under whatever names, alone or beside others.
    must_enhance: also refuse weights whose map is zero everywhere, as after a training that collapsed or never ran.
    Raises UserError where the file is missing, unreadable, not this network, or of no use: not finite, all zero, or
    overflowing on a picture.
    """
    unet = IlluminationUNet(padding_mode)
    expected = unet.state_dict()
    candidates = [
        (where, tensors)
        for where, found in _state_dicts(read_content(path), path)
        for tensors in _below_each_prefix(found, next(iter(expected)))
    ]
    tensors = next((its for _, its in candidates if not _misfit(expected, its, UNET)), None)
    if tensors is None:
        place, closest = candidates[0]
        raise UserError(f"{path}: {f'in {place!r}: ' if place else ''}{_misfit(expected, closest, UNET)}")
    unet.load_state_dict(tensors)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(f"{path}: expected finite weights, found NaN or infinity (a training that diverged?)")
    if not any(tensor.any() for tensor in tensors.values()):
        raise UserError(f"{path}: expected weights, found zeros everywhere")
    _refuse_unusable(unet.eval(), path, must_enhance)
    return unet.to(device)


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as `.safetensors`, atomically; `metadata` says where the weights come from."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path, durable=True) as temporary:
        safetensors.torch.save_file(tensors, temporary, dict(metadata or {}))


def _state_dicts(content: object, path: str | Path) -> list[tuple[str, dict[str, Tensor]]]:
    """The sets of named tensors in a checkpoint, with the keys that lead to each; the one to prefer first.

    Raises UserError where there is none, or where the preferred one holds other than dense tensors.
    """
    found = sorted(_walk(content, ()), key=lambda item: (_rank(item[0]), -len(item[1])))
    if not found:
        raise UserError(f"{path}: expected a state dict of tensors, found {_described(content)}")
    for name, tensor in found[0][1].items():
        if kind := _odd_kind(tensor):
            raise UserError(f"{path}: '{name}': expected a dense tensor, found a {kind} one")
    return [("/".join(keys), tensors) for keys, tensors in found]


def _walk(content: object, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    if not isinstance(content, Mapping) or len(keys) > 4:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key.replace("_orig_mod.", ""): value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield keys, tensors
    for key, value in named.items():
        yield from _walk(value, (*keys, key))


def _rank(keys: tuple[str, ...]) -> int:
    return 0 if "best" in keys else 1 if any(key in AVERAGED for key in keys) else 2


def _described(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    return f"none under {', '.join(map(repr, list(content)[:5]))}" if content else "an empty one"


def _odd_kind(tensor: Tensor) -> str | None:
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "sparse" if "sparse" in str(tensor.layout) else "nested"
    return "meta" if tensor.is_meta else None


def _common_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    return next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in tensors)), None)


def _below_each_prefix(tensors: Mapping[str, Tensor], first: str) -> list[dict[str, Tensor]]:
    """The parts of a state dict below each prefix at which the network's first tensor is; averaged weights first."""
    prefixes = [name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")]
    prefixes.sort(key=lambda prefix: (prefix != "", "ema" not in prefix))
    return [
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in prefixes or [""]
    ]


def _misfit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> str | None:
    """Why tensors are not those that are expected, in one line; None where they are."""
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        parts = [
            f"{len(names)} {word} (such as '{names[0]}')"
            for names, word in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        return f"expected the {len(expected)} tensors of {what}, found {len(tensors)}: {', '.join(parts)}"
    for name, tensor in tensors.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape:
            return f"'{name}': expected shape {tuple(wanted.shape)} of {what}, found {tuple(tensor.shape)}"
        if wanted.is_floating_point() != tensor.is_floating_point():
            return f"'{name}': expected numbers like {wanted.dtype} of {what}, found {tensor.dtype}"
        if kind := _odd_kind(tensor):
            return f"'{name}': expected a dense tensor of {what}, found a {kind} one"
    return None


def _refuse_unusable(unet: IlluminationUNet, path: str | Path, must_enhance: bool) -> None:
    """Raise UserError where a fixed small picture comes out as no picture."""
    ramp = torch.linspace(0, 1, 24)
    picture = torch.stack([ramp.expand(24, 24), ramp[:, None].expand(24, 24), torch.outer(ramp, 1 - ramp)])[None]
    with torch.no_grad():
        illumination = unet(picture)
    if not torch.isfinite(illumination).all():
        raise UserError(f"{path}: expected weights that give a finite map, found ones that overflow on a small picture")
    if enhance(picture, illumination).max() < 1 / 255:
        raise UserError(f"{path}: expected weights that enhance, found ones that turn a small picture black")
    if must_enhance and not illumination.any():
        raise UserError(
            f"{path}: expected weights that enhance, found a map of zeros everywhere on a small picture, which "
            "turns photos white (a training that collapsed, or untrained weights)"
        )
