"""Choices of keys that what is configured by them takes too: written once, for the schema and for Python.

Without pydantic: importing `serving.Enhancer` costs nothing heavy.
"""

from typing import Literal

SameFor = Literal["photo", "folder"]
MetadataMode = Literal["all", "none"]
Highlights = Literal["clip", "hue", "shoulder"]
Denoise = Literal["off", "auto", "always"]
