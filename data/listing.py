"""The images below a folder. Without PyTorch, so that a wrong path is told at once."""

from collections.abc import Collection
from functools import cache
from pathlib import Path

from PIL import Image

from errors import UserError


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes (".jpg", ...) of every format that Pillow can open."""
    suffixes = Image.registered_extensions()  # loads Pillow's plug-ins
    # Pillow also opens documents and video stills, which nobody means by a folder of photos
    return frozenset(s for s, name in suffixes.items() if name in Image.OPEN and name not in {"PDF", "MPEG", "EPS", "WMF", "HDF5"})


def list_images(folder: str | Path, key: str, leave_out: Collection[str] = ()) -> list[Path]:
    """Every image file below `folder`, sorted; hidden files and folders are left out, and file names in `leave_out`.

    `key` is the config key or option that named the folder, for the error.
    Raises UserError where the folder is missing, a file, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{key}: expected a folder, found {'a file' if folder.exists() else 'nothing there'}: {folder}")
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in image_suffixes()
        and path.name not in leave_out
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not paths:
        raise UserError(f"{key}: expected images, found none in {folder}")
    return paths
