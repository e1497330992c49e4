"""A checksum of what a state or a cache holds, not of its file: damage that changes no value costs nothing."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def checksum(content: Any) -> str:
    """SHA-256 of nested dicts, lists, plain values and tensors, with their order, types and shapes."""
    digest = hashlib.sha256()
    _add(digest, content)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"map {len(value)}\n".encode())
        for key, item in value.items():
            _add(digest, key)
            _add(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)}\n".encode())
        for item in value:
            _add(digest, item)
    else:
        digest.update(f"{value!r}\n".encode())
