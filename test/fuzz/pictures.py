"""Compressed pictures made to cost more than they should."""

from __future__ import annotations

import struct

__all__ = ["jpeg_of_many_scans"]


def jpeg_of_many_scans(height: int, width: int, scans: int) -> bytes:
    """A grey progressive JPEG, whole and valid, that goes over all of its blocks ``scans`` times.

    A scan takes some 15 bits for each 32767 blocks, but decoders visit every block.
    """
    blocks = -(-height // 8) * -(-width // 8)
    dc = _bits("0" * blocks)
    ac = _bits(_end_of_blocks(blocks))
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC2, struct.pack(">BHHB3B", 8, height, width, 1, 1, 0x11, 0)),
            _segment(0xDB, b"\0" + b"\x01" * 64),
            _segment(0xC4, _table(0x00, 0x00)),  # no difference to the block before, in one bit
            _segment(0xC4, _table(0x10, 0xE0)),  # 16384 and more blocks end, in one bit
            *(_segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0])), dc),
            *(_segment(0xDA, bytes([1, 1, 0x00, 1, 63, 0])) + ac for _ in range(scans - 1)),
            b"\xff\xd9",
        ]
    )


def _end_of_blocks(blocks: int) -> str:
    """Codes by which runs of blocks end where they begin."""
    codes = []
    while blocks > 0:
        codes.append("0" + "1" * 14)  # 16384 and 16383 more
        blocks -= 32767
    return "".join(codes)


def _bits(bits: str) -> bytes:
    padded = bits + "1" * (-len(bits) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")


def _table(kind: int, symbol: int) -> bytes:
    """A Huffman table of one symbol, which takes one bit."""
    return bytes([kind, 1, *[0] * 15, symbol])


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
