"""Reads the size that a picture file announces, before any of it is decoded.

A decoder allocates what the header says: a PNG of 100 kB may ask for gigabytes. OpenCV's own limit
is a billion pixels, and cannot be lowered once it is loaded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from rain_removal_ros import png

__all__ = ["announced_size"]

Size = tuple[int, int]
"""Width and height."""

_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_SIZ = re.compile(b"\xff\x4f\xff\x51")
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def announced_size(data: bytes) -> Size | None:
    """Width and height from the file's header; None if it is none of the formats read here."""
    for start, read in _READERS:
        if data.startswith(start):
            try:
                return read(data)
            except (struct.error, IndexError):
                return None
    return None


def _png(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> Size | None:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                return None
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0 or marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in (0xD9, 0xDA):
            return None
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _bmp(data: bytes) -> Size:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _gif(data: bytes) -> Size:
    """The screen, or the first picture on it if that is larger."""
    width, height, packed = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (packed % 8 + 1) if packed & 0x80 else 0)
    while data[at] == 0x21:  # extensions: blocks with their own length, up to an empty one
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] == 0x2C:
        left, top, wide, high = struct.unpack_from("<HHHH", data, at + 1)
        width, height = max(width, left + wide), max(height, top + high)
    return width, height


def _webp(data: bytes) -> Size | None:
    kind = data[8:16]
    if kind.startswith(b"WEBPVP8X"):
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    if kind.startswith(b"WEBPVP8L"):
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind.startswith(b"WEBPVP8 "):
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _pnm(data: bytes) -> Size | None:
    if (found := _PNM.match(data[:4096])) is None:
        return None
    return int(found[1]), int(found[2])


def _tiff(data: bytes) -> Size | None:
    order = "<" if data.startswith(b"II") else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count, value = ("Q", 12) if big else ("H", 8)
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, at)
    at += struct.calcsize(order + count)
    found: dict[int, int] = {}
    for _ in range(min(entries, 4096)):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            form = {3: "H", 4: "I", 16: "Q"}.get(kind)
            if form is None:
                return None
            (side,) = struct.unpack_from(order + form, data, at + value)
            found[tag] = max(side, found.get(tag, 0))
        at += 20 if big else 12
    if len(found) < 2:
        return None
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]


def _jp2(data: bytes) -> Size | None:
    """From the codestream, which is what is decoded, and not from the box around it."""
    found = [struct.unpack_from(">II", data, each.end() + 4) for each in _SIZ.finditer(data)]
    return max(found, key=lambda size: size[0] * size[1]) if found else None


def _exr(data: bytes) -> Size | None:
    name = b"dataWindow\0box2i\0"
    at = data.find(name, 0, 1 << 16)
    if at < 0:
        return None
    left, top, right, bottom = struct.unpack_from("<iiii", data, at + len(name) + 4)
    return max(0, right - left + 1), max(0, bottom - top + 1)


_READERS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (png.SIGNATURE, _png),
    (b"\xff\xd8", _jpeg),
    (b"BM", _bmp),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
    (b"P", _pnm),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"\0\0\0\x0cjP  ", _jp2),
    (b"\x76\x2f\x31\x01", _exr),
)
