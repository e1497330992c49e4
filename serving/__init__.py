"""Enhanced photos out of photos: in Python, for folders, and as a web page."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.enhancer import Enhancer
    from serving.finish import Finish

__all__ = ["Enhancer", "Finish"]


def __getattr__(name: str) -> Any:
    """Imported where it is used: `python -m serving.app --help` needs no NumPy."""
    if name in __all__:
        return getattr(import_module(f"serving.{name.lower()}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
