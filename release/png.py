"""PNG files that hold 8-bit RGB pixels and, at most, the mark of synthetic faces."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from datasets.faces import SMALLEST_SIDE

#: An image in a release has at most this many pixels.
IMAGE_PIXELS = 32 << 20

#: Level 9 takes ten times as long for files that are 8 % smaller.
_COMPRESSION = 3

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bit depth, colour type (RGB), compression, filter and interlace method of the header.
_PLAIN_RGB = [8, 2, 0, 0, 0]

#: The mark of synthetic faces: IPTC's digital source type in an XMP packet, the same in every file.
_MARK_KEYWORD = "XML:com.adobe.xmp"
_MARK = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/compositeSynthetic"/></rdf:RDF></x:xmpmeta>'
)
_MARK_CHUNK = _MARK_KEYWORD.encode() + bytes(5) + _MARK.encode()

#: What the other chunks of a PNG can reveal.
_CHUNKS = {
    b"eXIf": "EXIF (camera, time, place)",
    **dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), "text"),
    b"iCCP": "a colour profile",
    b"tIME": "a time",
    b"PLTE": "a palette",
}


def encode_png(image: np.ndarray, *, mark: bool = False) -> bytes:
    """Encode an image, uint8 (h, w, 3), as a PNG of its pixels alone or with the mark of synthetic faces."""
    data, info = io.BytesIO(), PngImagePlugin.PngInfo()
    if mark:
        info.add_itxt(_MARK_KEYWORD, _MARK)
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(data, "PNG", optimize=False, compress_level=_COMPRESSION, pnginfo=info)
    return data.getvalue()


def is_marked(data: bytes) -> bool:
    """Whether a PNG file carries the mark of synthetic faces."""
    start = len(_SIGNATURE) + 25 + 4  # behind the header and the length of the chunk
    return data[start : start + 4 + len(_MARK_CHUNK)] == b"iTXt" + _MARK_CHUNK


class PNGFiles(Sequence):
    """Images in files that `encode_png` has made; each is read whenever it is needed."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return decode_png(self.paths[i].read_bytes())


def decode_png(data: bytes) -> np.ndarray:
    """Decode a PNG that holds only 8-bit RGB pixels, and maybe the mark of synthetic faces: uint8 (h, w, 3).

    Raises
    ------
    ValueError
        If the file holds anything else, is damaged, or has more than `IMAGE_PIXELS` pixels.
    """
    (width, height, *kind), compressed = _parse(data)
    if width * height > IMAGE_PIXELS:
        raise ValueError(f"{height}x{width} pixels exceed the limit of {IMAGE_PIXELS}")
    if kind != _PLAIN_RGB:
        raise ValueError("not stored as plain 8-bit RGB")
    if min(width, height) < SMALLEST_SIDE:
        raise ValueError("too small for a face")
    size = height * (1 + 3 * width)  # each row starts with the number of its filter
    stream = zlib.decompressobj()
    try:
        rows = stream.decompress(compressed, size + 1)
    except zlib.error as error:
        raise ValueError("damaged pixels") from error
    if len(rows) != size or not stream.eof or stream.unused_data:
        raise ValueError("number of bytes does not match the number of pixels")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("damaged pixels") from error


def _parse(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return the header's seven numbers and the compressed pixels; raise for any other chunk."""
    if data[:8] != _SIGNATURE:
        raise ValueError("not a PNG")
    place, kinds, header, compressed, content = 8, [], (), [], b""
    while place < len(data):
        if place + 12 > len(data):
            raise ValueError("truncated, or followed by extra bytes")
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        checksum = data[place + 8 + length : place + 12 + length]
        if len(checksum) < 4 or struct.unpack(">I", checksum)[0] != zlib.crc32(kind + content):
            raise ValueError("damaged or truncated")
        if kind == b"iTXt" and content == _MARK_CHUNK and kinds == [b"IHDR"]:
            place += 12 + length
            continue
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            raise ValueError(f"carries {_CHUNKS.get(kind, 'data other than pixels')}")
        if kind == b"IHDR" and len(content) == 13 and not kinds:
            header = struct.unpack(">IIBBBBB", content)
        if kind == b"IDAT":
            compressed.append(content)
        kinds.append(kind)
        place += 12 + length
        if kind == b"IEND":
            break
    in_order = kinds == [b"IHDR", *[b"IDAT"] * len(compressed), b"IEND"] and compressed and header
    if not in_order or place != len(data) or content:
        raise ValueError("chunks out of order, or followed by extra bytes")
    return header, b"".join(compressed)
