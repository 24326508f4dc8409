"""Compressed pictures that take far more work to decode than their size suggests."""

from __future__ import annotations

import struct

__all__ = ["jpeg_of_many_scans"]


def jpeg_of_many_scans(height: int, width: int, scans: int) -> bytes:
    """A valid grey progressive JPEG that makes decoders visit every block ``scans`` times.

    A scan takes only 15 bits for every 32767 blocks.
    """
    blocks = -(-height // 8) * -(-width // 8)
    dc = _bits("0" * blocks)
    ac = _bits(_end_of_blocks(blocks))
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC2, struct.pack(">BHHB3B", 8, height, width, 1, 1, 0x11, 0)),
            _segment(0xDB, b"\0" + b"\x01" * 64),
            _segment(0xC4, _table(0x00, 0x00)),  # one bit: equal to the block before
            _segment(0xC4, _table(0x10, 0xE0)),  # one bit: 16384 or more blocks end
            *(_segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0])), dc),
            *(_segment(0xDA, bytes([1, 1, 0x00, 1, 63, 0])) + ac for _ in range(scans - 1)),
            b"\xff\xd9",
        ]
    )


def _end_of_blocks(blocks: int) -> str:
    """The bits of a scan that adds nothing to any block: runs of blocks that end at once."""
    codes = []
    while blocks > 0:
        codes.append("0" + "1" * 14)  # a run of 16384 blocks and 16383 more
        blocks -= 32767
    return "".join(codes)


def _bits(bits: str) -> bytes:
    padded = bits + "1" * (-len(bits) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")


def _table(kind: int, symbol: int) -> bytes:
    """A Huffman table of one symbol, whose code is one bit."""
    return bytes([kind, 1, *[0] * 15, symbol])


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
