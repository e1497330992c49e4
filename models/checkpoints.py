"""Weights on disk: reading others' files without executing them, reading and writing our own.

Ours are `.safetensors` with text metadata. Published ones are plain state dicts (`.pth`), some with
every key prefixed `module.`.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from common.errors import UserError
from common.files import writing
from models.unet import IlluminationUNet


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, `.npz` or PyTorch file, on the CPU, without any `module.` prefix.

    Never executes pickled code. Raises UserError where the file is missing or is none of these.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a weight file, found {'a folder' if path.is_dir() else 'nothing there'}")
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":  # safetensors: the length of a JSON header, then the header
            tensors = safetensors.torch.load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
        elif head.startswith((b"PK", b"\x80")):  # PyTorch's archives, and the pickles of before version 1.6
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of pickles that are refused anyway
                tensors = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise UserError(
                f"{path}: not a readable weight file (neither safetensors nor PyTorch's; was the download complete?)"
            )
    except (MemoryError, UserError):
        raise
    except Exception as error:  # readers meet damaged files with every kind of exception
        reason = str(error).strip().splitlines()
        if isinstance(error, PermissionError):
            raise UserError(f"{path}: expected a weight file, found no permission to read it") from None
        if any("TorchScript" in line for line in reason):
            raise UserError(
                f"{path}: expected a state dict, found a TorchScript archive; save its state_dict() as .safetensors"
            ) from None
        if any("central directory" in line for line in reason):
            raise UserError(f"{path}: expected a complete weight file, found one that is cut off") from None
        if any("Unsupported" in line or "weights_only" in line.lower() for line in reason):
            raise UserError(f"{path}: expected tensors only, found pickled objects, which are never loaded") from None
        raise UserError(
            f"{path}: not a readable weight file ({reason[0] if reason else type(error).__name__})"
        ) from None
    for nested in ("state_dict", "model_state_dict", "params"):
        if isinstance(tensors, Mapping) and isinstance(tensors.get(nested), Mapping):
            tensors = tensors[nested]
    if not isinstance(tensors, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise UserError(f"{path}: expected a state dict of tensors, found {type(tensors).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def read_metadata(path: str | Path) -> dict[str, str]:
    """Text metadata of a `.safetensors` file; empty for other files."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def load_matching(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, what: str) -> None:
    """`module.load_state_dict`, with names and shapes that do not fit told in one line (UserError)."""
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        parts = [
            f"{len(names)} {word} (such as '{names[0]}')"
            for names, word in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise UserError(
            f"{source}: expected the {len(expected)} tensors of {what}, found {len(tensors)}: {', '.join(parts)}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{source}: '{name}': expected shape {tuple(expected[name].shape)} of {what}, found {tuple(tensor.shape)}"
            )
    module.load_state_dict(dict(tensors))


def load_unet(path: str | Path, padding_mode: str = "reflect", device: str | torch.device = "cpu") -> IlluminationUNet:
    """The enhancement network with the weights of a published `.pth` or our `.safetensors`, in eval mode.

    Raises UserError where the file is missing, unreadable, not this network, or not finite.
    """
    tensors = read_tensors(path)
    unet = IlluminationUNet(padding_mode)
    load_matching(unet, tensors, path, "the illumination UNet")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(f"{path}: expected finite weights, found NaN or infinity (a training that diverged?)")
    return unet.to(device).eval()


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as `.safetensors`, atomically; `metadata` says where the weights come from."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path, durable=True) as temporary:
        safetensors.torch.save_file(tensors, temporary, dict(metadata or {}))


def save_unet(unet: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """`save_tensors` of a UNet's weights."""
    save_tensors(unet.state_dict(), path, metadata)
