"""Enhanced photos out of photos: in Python, for folders, and as a web page."""

from serving.enhancer import Enhancer

__all__ = ["Enhancer"]
