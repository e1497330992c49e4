"""TIFF directories as they are stored: the EXIF block of every format, and the tags of TIFF and BigTIFF files.

A directory is {tag: Entry}, or {tag: directory} for the directories inside it; values are bytes, so that nothing is
lost on the way: Pillow and tifffile turn texts and fractions into types of their own.
"""

import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np

EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965  # tags whose value is another directory
PREFIX = b"Exif\0\0"
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNITS = {2: "u2", 4: "u4", 8: "u8"}
_SHORT, _LONG, _LONG8 = 3, 4, 16
_MOST_CLASSIC = 13  # types above are BigTIFF's
_MOST_ENTRIES, _LARGEST_ENTRY = 4096, 1 << 26  # of one directory; bytes of one value
_MOST_VALUES = 2 * _LARGEST_ENTRY  # bytes of all values together: room for one such value and all that is kept


class Entry(NamedTuple):
    """One value: TIFF type, count, and its bytes in little-endian order."""

    type: int
    count: int
    data: bytes

    def integers(self) -> list[int]:
        """Of a type without sign; [] for others."""
        unit = {1: "u1", _SHORT: "<u2", _LONG: "<u4", 13: "<u4", _LONG8: "<u8", 18: "<u8"}.get(self.type)
        return np.frombuffer(self.data, unit).tolist() if unit else []

    def fractions(self) -> list[float]:
        """Of rationals; [] for other types and for divisions by zero."""
        if self.type not in (5, 10):
            return []
        pairs = np.frombuffer(self.data, "<u4" if self.type == 5 else "<i4").reshape(-1, 2).tolist()
        return [] if any(below == 0 for _, below in pairs) else [above / below for above, below in pairs]


Directory = dict[int, "Entry | Directory"]


def short(value: int) -> Entry:
    """A 16-bit number as an entry."""
    return Entry(_SHORT, 1, struct.pack("<H", value))


def long(value: int) -> Entry:
    """A 32-bit number as an entry."""
    return Entry(_LONG, 1, struct.pack("<I", value))


def rational(value: float) -> Entry:
    """A fraction as an entry."""
    return Entry(5, 1, struct.pack("<II", round(value * 1000), 1000))


def number(directory: Directory, tag: int) -> int | None:
    """The first integer of an entry; None where there is none."""
    entry = directory.get(tag)
    return next(iter(entry.integers()), None) if isinstance(entry, Entry) else None


def parse(read: Callable[[int, int], bytes], total: int) -> tuple[Directory, int, str | None]:
    """First directory of a TIFF file or EXIF block (without its prefix), the number of further pages, and a note.

    `read(offset, size)` gives bytes, fewer at the end of the file, which has `total`. Entries that lie outside are left
    out. So are, with the note, those that are more together than the file has: a hostile file lets its values lie in
    each other, and they would take thousands of times its size. Raises ValueError where there is no directory.
    """
    head = read(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("not a TIFF directory")
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    offset = struct.unpack(f"{order}Q", head[8:16])[0] if big else struct.unpack(f"{order}I", head[4:8])[0]
    left, left_out = min(total, _MOST_VALUES), 0

    def value(offset: int, size: int) -> bytes:
        """Bytes of an entry; none for one that is left out."""
        nonlocal left, left_out
        if offset + size > total:
            return b""
        if size > left:
            left_out += 1
            return b""
        left -= size
        return read(offset, size)

    directory, following = _directory(read, value, offset, order, big)
    pages, seen = 0, {offset}
    while following and following not in seen and pages < 1000:
        seen.add(following)
        try:
            following = _entries(read, following, order, big)[1]
        except ValueError:
            break
        pages += 1
    for tag, inner in ((EXIF, INTEROPERABILITY), (GPS, None)):
        _descend(directory, tag, inner, read, value, order, big)
    note = f"{left_out} values of EXIF or TIFF tags left out, they claim more bytes than the file has"
    return directory, pages, note if left_out else None


def block(directory: Directory, largest: int | None = None) -> tuple[bytes | None, list[int]]:
    """EXIF block with its prefix, and the tags left out, largest values first, to fit in `largest` bytes.

    None for a directory without entries.
    """
    directory = {tag: dict(entry) if isinstance(entry, dict) else entry for tag, entry in directory.items()}
    dropped = []
    while any(entry for entry in directory.values()):
        packed = PREFIX + b"II*\0" + struct.pack("<I", 8) + pack(directory, 8)
        if largest is None or len(packed) <= largest:
            return packed, dropped
        places = [directory, *(entry for entry in directory.values() if isinstance(entry, dict))]
        leaves = [(len(e.data), tag, place) for place in places for tag, e in place.items() if isinstance(e, Entry)]
        _, tag, place = max(leaves, key=lambda leaf: leaf[0])
        del place[tag]
        dropped.append(tag)
    return None, dropped


def unpack(exif: bytes | None) -> Directory:
    """The directory of an EXIF block, with or without its prefix; {} for None. Raises ValueError for a damaged one."""
    return unpack_noted(exif)[0]


def unpack_noted(exif: bytes | None) -> tuple[Directory, str | None]:
    """As `unpack`, and the note of `parse`."""
    if not exif:
        return {}, None
    data = exif[len(PREFIX) :] if exif.startswith(PREFIX) else exif
    directory, _, note = parse(lambda offset, size: data[offset : offset + size], len(data))
    return directory, note


def pack(directory: Directory, at: int) -> bytes:
    """The bytes of a little-endian classic directory that will lie at the offset `at`, with all its values."""
    kept = {tag: e for tag, e in sorted(directory.items()) if e and (isinstance(e, dict) or e.type <= _MOST_CLASSIC)}
    values = at + 2 + 12 * len(kept) + 4
    fields, payload = bytearray(struct.pack("<H", len(kept))), bytearray()
    for tag, entry in kept.items():
        here = struct.pack("<I", values + len(payload))
        if isinstance(entry, dict):
            fields += struct.pack("<HHI", tag, _LONG, 1) + here
            payload += pack(entry, values + len(payload))
        else:
            fields += struct.pack("<HHI", tag, entry.type, entry.count)
            fields += entry.data.ljust(4, b"\0") if len(entry.data) <= 4 else here
            payload += entry.data if len(entry.data) > 4 else b""
        payload += bytes(len(payload) % 2)
    return bytes(fields + bytes(4) + payload)


def add_entries(file: BinaryIO, more: Directory) -> None:
    """Put more entries into the directory of a little-endian classic TIFF file of one page; it moves to the end."""

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    directory = _directory(read, read, *struct.unpack("<I", read(4, 4)), "<", False)[0]
    at = file.seek(0, 2)
    file.write(bytes(at % 2))
    at += at % 2
    file.write(pack(directory | more, at))
    file.seek(4)
    file.write(struct.pack("<I", at))


def _descend(
    directory: Directory, tag: int, inner: int | None, read: Callable, value: Callable, order: str, big: bool
) -> None:
    """Put the directory that `tag` points to in place of the pointer; nothing where it is damaged."""
    offset = number(directory, tag)
    directory.pop(tag, None)
    try:
        found = _directory(read, value, offset, order, big)[0] if offset else {}
    except ValueError:
        return
    if found:
        directory[tag] = found
        if inner is not None:
            _descend(found, inner, None, read, value, order, big)


def _entries(read: Callable, offset: int, order: str, big: bool) -> tuple[bytes, int]:
    """The fields of a directory, and the offset of the next."""
    width = 8 if big else 2
    start = read(offset, width)
    if len(start) < width:
        raise ValueError("a directory outside the file")
    count = struct.unpack(order + ("Q" if big else "H"), start)[0]
    if not 0 < count <= _MOST_ENTRIES:
        raise ValueError(f"a directory of {count} entries")
    size = count * (20 if big else 12)
    fields = read(offset + width, size)
    after = read(offset + width + size, 8 if big else 4)
    following = struct.unpack(order + ("Q" if big else "I"), after)[0] if len(after) == (8 if big else 4) else 0
    return fields, following


def _directory(read: Callable, value: Callable, offset: int, order: str, big: bool) -> tuple[Directory, int]:
    """A directory and the offset of the next; `value` reads what lies outside its fields."""
    fields, following = _entries(read, offset, order, big)
    step, room, layout = (20, 8, "HHQ") if big else (12, 4, "HHI")
    directory: Directory = {}
    for at in range(0, len(fields) - step + 1, step):
        tag, kind, count = struct.unpack_from(order + layout, fields, at)
        size = _SIZES.get(kind, 0) * count
        if not 0 < size <= _LARGEST_ENTRY:
            continue
        data = fields[at + step - room : at + step]
        data = data[:size] if size <= room else value(struct.unpack(order + ("Q" if big else "I"), data)[0], size)
        if len(data) < size:
            continue
        unit = {5: 4, 10: 4}.get(kind, _SIZES[kind])
        if order == ">" and unit > 1:
            data = np.frombuffer(data, _UNITS[unit]).byteswap().tobytes()
        directory[tag] = Entry(kind, count, data)
    return directory, following
