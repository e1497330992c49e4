"""Enhanced photos out of photos: in Python, for folders, and as a web page."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.enhancer import Enhancer

__all__ = ["Enhancer"]


def __getattr__(name: str) -> Any:
    """Imported where it is used: `python -m serving.app --help` needs no NumPy."""
    if name == "Enhancer":
        from serving.enhancer import Enhancer

        return Enhancer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
