"""Enhanced photos out of photos: in Python, for folders, and as a web page."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.images import ImageError
    from serving.enhancer import Enhancer
    from serving.finish import Finish

__all__ = ["Enhancer", "Finish", "ImageError"]
_HOMES = {"Enhancer": "serving.enhancer", "Finish": "serving.finish", "ImageError": "data.images"}


def __getattr__(name: str) -> Any:
    """Imported where it is used: `python -m serving.app --help` needs no NumPy."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
