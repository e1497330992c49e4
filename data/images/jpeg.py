"""JPEG files: their segments, what is missing of them, and the picture by Pillow.

libjpeg fills what a cut file lacks with grey and tells nobody. And a file may repeat its scans or comments without end.
So the segments are read here, and Pillow gets those alone that make the picture.
"""

import io
import re
import struct
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, JpegImagePlugin

from data.images.metadata import GAIN_MAP
from data.images.photo import BLOCK, FILLER, LAST, Encoding, ImageError, Limits, Raster, holes, lost, matters
from data.images.pillow import flat

START, END = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # inside entropy-coded data: not stuffing, restart or fill bytes
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOFn
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_HOLE = b"\xff" * BLOCK
_TABLES, _SCAN, _COMMENT, _JPEG_LS = 0xC4, 0xDA, 0xFE, 0xF7
_SKIP = 0xF0  # Huffman code of 16 coefficients of zero; other codes that end in four zero bits end a block
_MOST_SCANS = 100  # a progressive photo has about ten; each goes through all of the picture
_MOST_METADATA = 16 << 20  # bytes of one kind
_PIXELS_A_BYTE = 1024  # at most: a grey block of 64 pixels takes a bit in one scan
_JFIF, _EXIF, _XMP, _ICC = b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_PHOTOSHOP, _ISO_GAIN_MAP = b"Photoshop 3.0\0", b"urn:iso:std:iso:ts:21496:-1\0"
_IPTC_RESOURCE = 0x0404
_GREY = (127, 128)  # of blocks without data; 127 where CMYK is stored inverted


@dataclass
class _Segments:
    picture: bytearray = field(default_factory=lambda: bytearray(START))  # with no more metadata than decoding needs
    metadata: dict[bytes, list[bytes]] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    progressive: bool = False
    scans: list[tuple[bytes, int, int]] = field(default_factory=list)  # components, band's end, bits still to come
    zero_codes: dict[int, int] = field(default_factory=dict)  # Huffman table -> what zeros alone stand for in it
    data: list[tuple[int, int, bool | None]] = field(default_factory=list)  # of scans: place in `picture`, `_even`
    ended: bool = False
    notes: list[str] = field(default_factory=list)


def decode_jpeg(data: bytes, limits: Limits) -> Raster:
    """A JPEG file's picture (grey, RGB or CMYK, uint8) and metadata.

    Raises ImageError without a path for a file that is refused, and what Pillow raises for a damaged one.
    """
    segments = _split(data)
    width, height = segments.size
    if not width * height:
        raise ImageError(f"expected a picture, found a JPEG file of {width} x {height} pixels")
    if width * height > limits.max_megapixels * 1e6:
        raise Image.DecompressionBombError
    if width * height > _PIXELS_A_BYTE * len(data):
        raise ImageError(f"expected data for {width} x {height} pixels, found {len(data)} bytes")
    if len(segments.scans) > _MOST_SCANS:
        raise ImageError(f"expected at most {_MOST_SCANS} scans, found {len(segments.scans)}")
    image = Image.open(io.BytesIO(segments.picture + END), formats=["JPEG"])
    tables = {number: list(table) for number, table in image.quantization.items()}
    encoding = Encoding(False, tables, JpegImagePlugin.get_sampling(image), segments.progressive)
    colour, _ = flat(image)
    notes = segments.notes
    missing = _missing(segments, colour)
    if missing:
        if limits.incomplete == "refuse":
            raise ImageError(
                f"expected a complete photo, found that {missing} (--set data.incomplete=accept takes the rest)"
            )
        notes.append(missing)
    elif not segments.ended:
        notes.append("the end mark of the file is missing, the picture is complete")
    found = {name: b"".join(parts) for name, parts in segments.metadata.items()}
    if _ISO_GAIN_MAP in found:
        notes.append(GAIN_MAP)
    comment = found.get(b"")
    return Raster(
        colour,
        "JPEG",
        exif=found.get(_EXIF),
        xmp=found.get(_XMP),
        iptc=read_iptc(found.get(_PHOTOSHOP, b"")),
        icc=_profile(segments.metadata.get(_ICC, [])),
        dpi=_density(found.get(_JFIF, b"")),
        texts={"Comment": comment.rstrip(b"\0").decode("utf-8", "replace")} if comment else {},
        encoding=encoding,
        notes=notes,
    )


def _split(data: bytes) -> _Segments:
    """Walk over the segments of the first picture; what comes after it (previews, gain maps, videos) is left out."""
    result = _Segments()
    sizes: dict[bytes, int] = {}
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)  # junk between segments, which libjpeg skips too
            if at < 0:
                break
            continue
        kind = data[at + 1]
        if kind == 0xFF or kind in (0x00, 0x01) or 0xD0 <= kind <= 0xD8:
            at += 1 if kind == 0xFF else 2
            continue
        if kind == 0xD9:
            result.ended = True
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if 0xE0 <= kind <= 0xEF or kind == _COMMENT:
            _keep_metadata(result, sizes, kind, body)
            if kind in (0xE0, 0xEE):  # JFIF and Adobe tell what the components mean
                result.picture += data[at:end]
            at = end
            continue
        if kind == _JPEG_LS:
            raise ImageError("expected a JPEG file as cameras write it, found JPEG-LS")
        if kind in _FRAMES and len(body) >= 6:
            result.size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            result.progressive = kind in _PROGRESSIVE
        if kind == _TABLES:
            _keep_zero_codes(result.zero_codes, body)
        if kind == _SCAN:
            end = _keep_scan(result, data, at, end)
        result.picture += data[at:end]
        at = end
    result.ended = result.ended or data[at : at + 2] == END
    return result


def _keep_scan(result: _Segments, data: bytes, at: int, head: int) -> int:
    """Keep what the scan at `at` is of, whose header ends at `head`, and where its data lie. Gives their end."""
    body, even = data[at + 4 : head], True
    count = body[0] if body else 0
    if len(body) >= 4 + 2 * count:
        components = body[1 : 1 + 2 * count : 2]
        result.scans.append((components, body[2 + 2 * count], body[3 + 2 * count] & 15))
        even = _even(result.zero_codes, body, count)
    following = _MARKER.search(data, head)
    while following and data.endswith(_HOLE, 0, following.start() + 1):  # and no fill bytes before a marker
        following = _MARKER.search(data, following.end())
    end = following.start() if following else len(data)
    before = len(result.picture)
    result.data.append((before + head - at, before + end - at, even))
    return end


def _keep_metadata(result: _Segments, sizes: dict[bytes, int], kind: int, body: bytes) -> None:
    names = {0xE0: (_JFIF,), 0xE1: (_EXIF, _XMP), 0xE2: (_ICC, _ISO_GAIN_MAP), 0xED: (_PHOTOSHOP,), _COMMENT: (b"",)}
    name = next((name for name in names.get(kind, ()) if body.startswith(name)), None)
    if name is None:
        return
    parts = result.metadata.setdefault(name, [])
    sizes[name] = sizes.get(name, 0) + len(body)
    if sizes[name] <= _MOST_METADATA and not (parts and name in (_XMP, _JFIF, b"")):  # of these the first
        parts.append(body[len(name) :])


def _keep_zero_codes(zero_codes: dict[int, int], body: bytes) -> None:
    """Of each Huffman table of a segment the first symbol: codes are in order, so its own is all zeros."""
    at = 0
    while at + 17 < len(body):
        zero_codes[body[at]] = body[at + 17]
        at += 17 + sum(body[at + 1 : at + 17])


def _even(zero_codes: dict[int, int], scan: bytes, count: int) -> bool | None:
    """Whether zeros in a scan's data may be an area of one colour: blocks like the one before and without detail.

    Where a table is unknown, as in arithmetic coding, they may. None: they may, and other data there may change nothing
    that is seen, as in scans of details.
    """
    first, last, refines = scan[1 + 2 * count], scan[2 + 2 * count], scan[3 + 2 * count] >> 4
    tables = scan[2 : 2 + 2 * count : 2]
    steps = [zero_codes.get(table >> 4, 0) for table in tables] if not first and not refines else []
    details = [zero_codes.get(16 + (table & 15), 0) for table in tables] if last else []
    if any(steps) or any(code & 15 or code == _SKIP for code in details):
        return False
    return None if first or refines else True


def _gaps(segments: _Segments, even: bool) -> list[tuple[int, int]]:
    """Holes in the data of scans that may be an even area, as zeros can where `_even` says so, or the others."""
    return [
        gap
        for gap in holes(segments.picture)
        for start, end, zeros in segments.data
        if start <= gap[0] < end and (zeros if segments.picture[gap[0]] == 0 else False) is even
    ]


def _left_over(segments: _Segments, colour: np.ndarray) -> bool:
    """Whether the last data of a scan with a hole do nothing: zeros are longer, in pixels, than what they replaced."""
    gaps, picture = _gaps(segments, even=True), bytes(segments.picture)
    ends = {end for start, end, _ in segments.data for gap in gaps if start <= gap[0] < end}
    return any(not matters(picture, [(end - LAST, end)], colour, _colour) for end in ends)


def gaps_in_part(tables: bytes, part: bytes) -> list[tuple[int, int]]:
    """Holes in the data of a JPEG stream whose tables are another one, as in the strips of a TIFF file."""
    return _gaps(_split(tables.removesuffix(END) + part.removeprefix(START) if tables else part), even=False)


def _missing(segments: _Segments, colour: np.ndarray) -> str | None:
    """What the picture lacks, or None. libjpeg leaves blocks without data grey.

    A complete picture does not depend on what follows its data, so a second decode with other bytes there tells a
    cut file from one that is grey, or whose last scan is fine. In the same way it does depend on what is in a hole.
    """
    gaps = _gaps(segments, even=False) or (_gaps(segments, even=True) if _left_over(segments, colour) else [])
    # the picture's own last data may be zeros, before padding; ones end its data, so that nothing is read behind them
    inside = [(start if segments.picture[start] else start + LAST, end) for start, end in gaps]
    if gaps and matters(bytes(segments.picture), inside, colour, _colour):
        return lost(gaps)
    if segments.progressive:
        if _later_scans_missing(segments):
            return "its later scans are missing, which hold the details"
    elif not np.isin(colour[-8:, -8:], _GREY).all():
        return None
    picture = bytes(segments.picture)
    if np.array_equal(_colour(picture + FILLER), colour):
        return None
    height = colour.shape[0]
    if not np.isin(colour[-8:, -8:], _GREY).all():
        return "the end of its last scan is missing"
    present = ~np.isin(colour.reshape(height, -1), _GREY).all(axis=1)
    rows = height - int(np.flatnonzero(present)[-1] + 1) if present.any() else height
    return f"the last {max(1, round(100 * rows / height))} % of the photo is missing"


def _colour(picture: bytes) -> np.ndarray:
    return flat(Image.open(io.BytesIO(picture + END), formats=["JPEG"]))[0]


def _later_scans_missing(segments: _Segments) -> bool:
    """Whether a progressive file ends before each component had all its coefficients with all their bits."""
    components = {component for scan in segments.scans for component in scan[0]}
    complete = {c for parts, last, bits in segments.scans if last == 63 and bits == 0 for c in parts}
    return bool(components - complete) and bool(segments.scans)


def _density(jfif: bytes) -> tuple[float, float] | None:
    if len(jfif) < 7 or jfif[2] not in (1, 2):
        return None
    across, down = struct.unpack(">HH", jfif[3:7])
    unit = 2.54 if jfif[2] == 2 else 1.0  # per centimetre or inch
    return (across * unit, down * unit) if across and down else None


def _profile(parts: list[bytes]) -> bytes | None:
    """The ICC profile out of its numbered parts."""
    return b"".join(part[2:] for part in sorted(parts, key=lambda part: part[:1])) or None


def read_iptc(resources: bytes) -> bytes | None:
    """The IPTC records among Photoshop's resources; None where there are none."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        number = int.from_bytes(resources[at + 4 : at + 6], "big")
        at += 6 + (resources[at + 6] + 2) // 2 * 2  # name, padded with its length to an even size
        size = int.from_bytes(resources[at : at + 4], "big")
        if number == _IPTC_RESOURCE:
            return resources[at + 4 : at + 4 + size] or None
        at += 4 + (size + 1) // 2 * 2
    return None


def iptc_segment(iptc: bytes) -> bytes | None:
    """IPTC records as the segment of a JPEG file; None where they are too long for one."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    body = _PHOTOSHOP + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body if len(body) <= 65533 else None
