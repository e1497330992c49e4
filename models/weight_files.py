"""Weight files of every format, read without executing what is in them.

safetensors, NumPy's `.npz` and PyTorch's files are told apart by their content, whatever their names end in.
"""

import contextlib
import hashlib
import io
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.errors import UserError, reason_of
from common.files import open_file, read_file

LARGEST_WEIGHTS = 2**36  # bytes; open_clip's largest files have 2^33
MOST_UNPACKED = 20  # times a file's size, and ...
ALWAYS_UNPACKED = 2**27  # ... bytes that an archive may unpack to; weights are noise and hardly shrink


def read_content(path: str | Path, *, archives: Collection[str] = ()) -> object:
    """What a weight file holds, on the CPU: usually a mapping of names to tensors, or one of those.

    archives: SHA-256 of the TorchScript archives that may be opened; all others are refused, since opening one runs it.
    Never executes pickled code. Raises UserError where the file is missing, damaged or none of the formats.
    """
    path = Path(path)
    with _opened(path) as file:
        try:
            if _is_safetensors(file):
                return safetensors.torch.load_file(path)
            if not _starts(file, b"PK", b"\x80"):  # zip archives, and the pickles of before PyTorch 1.6
                raise UserError(
                    f"{path}: not a readable weight file (neither safetensors nor PyTorch's; "
                    "was the download complete?)"
                )
            names = _names_in_zip(file, path)
            if _has_code(names):
                return _read_archive(path, archives)
            _refuse_damaged(file, path)
            file.seek(0)
            if names and all(name.endswith(".npy") for name in names):
                with np.load(file, allow_pickle=False) as arrays:
                    return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of pickles that are refused anyway
                return torch.load(file, map_location="cpu", weights_only=True)
        except UserError:
            raise
        except Exception as error:  # readers meet damaged files with every kind of exception
            raise UserError(f"{path}: {_unreadable(error)}") from None


def is_archive(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive. Raises UserError as `read_content` does."""
    with _opened(Path(path)) as file:
        return _starts(file, b"PK") and _has_code(_names_in_zip(file, path))


def read_metadata(path: str | Path) -> dict[str, str]:
    """Text metadata of a `.safetensors` file; empty for other files. Raises UserError where it is damaged."""
    with _opened(Path(path)) as file:
        if not _is_safetensors(file):
            return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable weight file ({reason_of(error)})") from None


def _opened(path: Path) -> BinaryIO:
    try:
        return open_file(path, limit=LARGEST_WEIGHTS)
    except FileNotFoundError:
        raise UserError(f"{path}: expected a weight file, found nothing there") from None
    except PermissionError:
        raise UserError(f"{path}: expected a weight file, found no permission to read it") from None
    except (OSError, ValueError) as error:  # a path that cannot be one: too long, or with a null byte
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise UserError(f"{path}: expected a weight file, found: {reason}") from None


def _is_safetensors(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(9)[8:] == b"{"  # the length of a JSON header, then the header


def _starts(file: BinaryIO, *heads: bytes) -> bool:
    file.seek(0)
    return file.read(2).startswith(heads)


def _names_in_zip(file: BinaryIO, path: str | Path) -> list[str]:
    """The names in a zip archive; none for other files. Raises UserError for one that unpacks out of proportion."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return []
    size, packed = sum(entry.file_size for entry in entries), file.seek(0, io.SEEK_END)
    if size > MOST_UNPACKED * packed + ALWAYS_UNPACKED:
        raise UserError(f"{path}: expected weights, found {packed:,} bytes that unpack to {size:,}")
    return [entry.filename for entry in entries]


def _refuse_damaged(file: BinaryIO, path: str | Path) -> None:
    """Raises UserError where parts of a zip archive do not fit their checksums, at which PyTorch does not look.

    Where they are 0, or none fits, they were not written (`torch.serialization.set_crc32_options`).
    """
    damaged, count = [], 0
    with contextlib.suppress(zipfile.BadZipFile, OSError, ValueError), zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if not entry.CRC:
                continue
            count += 1
            try:
                with archive.open(entry) as part:
                    while part.read(2**20):
                        pass
            except zipfile.BadZipFile:
                damaged.append(entry.filename)
    if damaged and len(damaged) < count:
        raise UserError(f"{path}: damaged, the checksum of {damaged[0]} in it does not fit")


def _has_code(names: list[str]) -> bool:
    return any(name.endswith("/constants.pkl") for name in names)


def _read_archive(path: Path, archives: Collection[str]) -> dict[str, Tensor]:
    """The state dict of a TorchScript archive that is known by its content; what was hashed is what is opened."""
    data = read_file(path)
    if hashlib.sha256(data).hexdigest() not in archives:
        raise UserError(
            f"{path}: expected a state dict, found a TorchScript archive, and opening one runs what is in it; "
            "only OpenAI's own CLIP files are opened, known by their SHA-256. Save its state_dict() as .safetensors"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old; so are OpenAI's files
        return dict(torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict())


def _unreadable(error: Exception) -> str:
    """What to tell of a file that a reader gave up on with this exception."""
    text = str(error)
    if isinstance(error, MemoryError):
        return "expected weights, found a file that unpacks to more than there is memory"
    if "central directory" in text:
        return "expected a complete weight file, found one that is cut off"
    if "Unsupported" in text or "weights_only" in text.lower():
        return "expected tensors only, found pickled objects, which are never loaded"
    return f"not a readable weight file ({reason_of(error)})"
