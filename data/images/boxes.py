"""Boxes of AVIF and HEIF files (ISO/IEC 14496-12), as far as they say what colours mean."""

from collections.abc import Iterator
from typing import BinaryIO

from data.images.colour import coded
from data.images.metadata import GAIN_MAP
from data.images.photo import Coding

_LARGEST = 1 << 20  # bytes of the box that describes the pictures
_INSIDE = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # boxes that hold boxes, after so many bytes
_GAIN_MAPS = (b"urn:com:apple:photo:2020:aux:hdrgainmap", b"tmap")


def coding_of(file: BinaryIO) -> tuple[Coding | None, list[str]]:
    """What the first nclx colour box of a file says, and notes about HDR; sRGB where there is none."""
    file.seek(0)
    for _ in range(64):
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if head[4:8] == b"meta" and 8 < size <= _LARGEST:
            file.seek(-len(head), 1)
            return _described(file.read(size))
        if size < 8 or len(head) < 16:
            break
        file.seek(size - len(head), 1)
    return None, []


def _described(meta: bytes) -> tuple[Coding | None, list[str]]:
    notes = [GAIN_MAP] if any(name in meta for name in _GAIN_MAPS) else []
    for kind, body in _boxes(meta):
        if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 10:
            coding, note = coded(int.from_bytes(body[4:6], "big"), int.from_bytes(body[6:8], "big"))
            return coding, notes + ([note] if note else [])
    return None, notes


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of the boxes, also of those inside others."""
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8:
            return
        if kind in _INSIDE:
            yield from _boxes(data[at + 8 + _INSIDE[kind] : at + size])
        else:
            yield kind, data[at + 8 : at + size]
        at += size
