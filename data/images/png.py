"""PNG files: their chunks, and the picture by Pillow, or at 16 bits by imagecodecs, which Pillow would cut."""

import contextlib
import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator

from PIL import Image

from data.images import colour
from data.images.jpeg import read_iptc
from data.images.photo import ImageError, Limits, Metadata, Raster
from data.images.pillow import flat

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_KEPT = {b"eXIf", b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"acTL", b"tEXt", b"zTXt", b"iTXt"}
_MOST_CHUNKS = 4096  # of one kind: empty ones take time too
_HEADER = 33  # bytes of the signature and IHDR
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PALETTE = 3  # colour type
_DEFLATE = 1032  # bytes out of one, at most
_MOST_TEXT = 16 << 20  # bytes, unpacked, of a profile or of all texts together
_XMP = "XML:com.adobe.xmp"
_METRE = 39.3701  # inches


def decode_png(data: bytes, limits: Limits) -> Raster:
    """A PNG file's picture (grey or RGB, uint8 or uint16), alpha and metadata.

    Raises ImageError without a path for a file that is refused, and what the decoders raise for a damaged one.
    """
    picture, chunks, sizes = _split(data)
    packed = sizes[b"IDAT"]
    if len(picture) < _HEADER or picture[12:16] != b"IHDR":
        raise ImageError("expected a complete image, found a PNG file without its header")
    width, height, bits, kind = struct.unpack(">IIBB", picture[16:26])
    if width * height > limits.max_megapixels * 1e6:
        raise Image.DecompressionBombError
    size = height * ((width * bits * _CHANNELS.get(kind, 1) + 7) // 8)
    if size > _DEFLATE * packed + 1024:
        raise ImageError(f"expected data for {width} x {height} pixels, found {packed} bytes")
    if kind == _PALETTE and not sizes[b"PLTE"]:
        raise ImageError("expected a complete image, found a PNG file without its palette")
    pixels, alpha = _decode16(picture) if bits == 16 else flat(Image.open(io.BytesIO(picture), formats=["PNG"]))
    raster = Raster(pixels, "PNG", alpha)
    _read_chunks(raster, chunks)
    return raster


def _split(data: bytes) -> tuple[bytes, dict[bytes, list[bytes]], Counter[bytes]]:
    """The file with the chunks of the picture alone, the bodies of others that are read by type, and bytes by type."""
    kept, others, sizes, at = bytearray(SIGNATURE), {}, Counter(), len(SIGNATURE)
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in _PICTURE:
            kept += data[at : at + 12 + size]
            sizes[kind] += min(size, len(data) - at)
        elif kind in _KEPT and sizes[kind] < _MOST_TEXT and len(others.get(kind, ())) < _MOST_CHUNKS:
            others.setdefault(kind, []).append(data[at + 8 : at + 8 + size])
            sizes[kind] += min(size, len(data) - at)
        at += 12 + size
        if kind == b"IEND":
            break
    return bytes(kept), others, sizes


def _decode16(picture: bytes):
    import imagecodecs  # here: most photos do not need it, and it takes 0.1 s

    pixels = imagecodecs.png_decode(picture)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    channels = pixels.shape[2]
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return (pixels[..., 0] if channels < 3 else pixels[..., :3]), alpha


def _read_chunks(raster: Raster, chunks: dict[bytes, list[bytes]]) -> None:
    """Put what the other chunks say into the raster. cICP is before iCCP, sRGB, and gAMA last (PNG 3)."""
    first = {kind: bodies[0] for kind, bodies in chunks.items()}
    raster.exif = first.get(b"eXIf")
    if b"iCCP" in first:
        raster.icc = _inflated(first[b"iCCP"].partition(b"\0")[2][1:])[0]
        raster.notes += [] if raster.icc else ["colour profile ignored, it is damaged"]
    if len(first.get(b"cICP", b"")) == 4:
        raster.coding, note = colour.coded(*first[b"cICP"][:2])
        raster.icc = None
        raster.notes += [note] if note else []
    elif len(first.get(b"sRGB", b"")) == 1:
        raster.intent = min(first[b"sRGB"][0], 3)
    elif raster.icc is None and (b"gAMA" in first or b"cHRM" in first):
        gamma = int.from_bytes(first[b"gAMA"][:4], "big") if b"gAMA" in first else None
        points = first.get(b"cHRM", b"")
        raster.coding, notes = colour.png_coding(gamma, struct.unpack(">8I", points) if len(points) == 32 else None)
        raster.notes += notes
    if len(first.get(b"pHYs", b"")) == 9:
        across, down, unit = struct.unpack(">IIB", first[b"pHYs"])
        raster.dpi = (across / _METRE, down / _METRE) if unit == 1 and across and down else None
    if len(first.get(b"acTL", b"")) >= 4:
        raster.frames = int.from_bytes(first[b"acTL"][:4], "big")
    for keyword, text in _texts(chunks, raster.notes):
        if keyword == _XMP:
            raster.xmp = text
        elif keyword.startswith("Raw profile type "):  # ImageMagick's way before there was a chunk for it
            _read_raw_profile(raster, keyword.rsplit(" ", 1)[1], text)
        else:
            raster.texts.setdefault(keyword, text.decode("utf-8", "replace"))


def _texts(chunks: dict[bytes, list[bytes]], notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """Keyword and text, in UTF-8, of each text chunk. Those beyond a limit are left out, and noted."""
    left = _MOST_TEXT
    for kind in (b"tEXt", b"zTXt", b"iTXt"):
        for body in chunks.get(kind, ()):
            keyword, _, rest = body.partition(b"\0")
            text, used = rest, len(rest)
            if kind == b"iTXt":
                text = rest[2:].split(b"\0", 2)[-1]
            if kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1"):
                text, used = _inflated(rest[1:] if kind == b"zTXt" else text, left)
            left -= used  # also for what came to nothing: it took the time
            if left <= 0:
                notes.append(f"texts left out, together they are above {_MOST_TEXT >> 20} MB")
                return
            if text is not None:
                latin = kind != b"iTXt"
                yield keyword.decode("latin-1"), text.decode("latin-1").encode() if latin else text


def _read_raw_profile(raster: Raster, name: str, text: bytes) -> None:
    with contextlib.suppress(ValueError, IndexError):  # a damaged one says nothing
        body = bytes.fromhex(text.translate(None, b" \r\t").split(b"\n", 3)[3].replace(b"\n", b"").decode("ascii"))
        if name in ("exif", "APP1") and body.startswith(b"Exif\0\0"):
            raster.exif = raster.exif or body
        elif name == "iptc":
            raster.iptc = read_iptc(body)


def _inflated(data: bytes, most: int = _MOST_TEXT) -> tuple[bytes | None, int]:
    """Unpacked, or None where it is damaged or larger than `most` bytes; and how many bytes that gave."""
    unpacker = zlib.decompressobj()
    try:
        result = unpacker.decompress(data, most)
    except zlib.error:
        return None, len(data)
    return result if unpacker.eof else None, len(result)


def with_chunks(data: bytes, metadata: Metadata) -> bytes:
    """A PNG file with this metadata beside its picture."""
    chunks = []
    if metadata.intent is not None:
        chunks.append((b"sRGB", bytes([metadata.intent])))
    if metadata.dpi:
        metres = [min(round(value * _METRE), 2**31 - 1) for value in metadata.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *metres, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    if metadata.xmp:
        chunks.append((b"iTXt", _XMP.encode() + bytes(5) + metadata.xmp))
    for keyword, text in metadata.texts.items():
        name = keyword.encode("latin-1", "replace")[:79].strip() or b"Comment"
        chunks.append((b"iTXt", name + bytes(5) + text.encode("utf-8", "replace")))
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"".join([data[:_HEADER], *packed, data[_HEADER:]])
