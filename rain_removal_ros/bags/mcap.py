"""Reads MCAP files, damaged ones too.

The index at the end is used if it is consistent. If it was never written or does not fit the file,
the file is read from its beginning and every complete record is found. Losses are reported.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rain_removal_ros.bags.merging import in_order
from rain_removal_ros.bags.messages import Channel, Message, canonical, qos_of
from rain_removal_ros.bags.unpacking import UnpackLimit, unpacked
from rain_removal_ros.errors import BagError

__all__ = ["McapPart"]

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX = 2, 3, 4, 5, 6, 7
_CHUNK_INDEX, _STATISTICS, _DATA_END = 8, 11, 15
_HEAD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_FOOTER_BYTES = _HEAD.size + 20 + len(_MAGIC)
_RUN_BYTES = 1 << 20
"""Messages outside of chunks are grouped up to this size."""
_MOST_INDEX_BYTES = 1 << 28
_MOST_CHANNELS = 10_000
_MOST_CHUNKS_OPEN = 4
"""The most chunks of the largest size, or as many bytes of smaller ones, that are open at once
because they overlap in time."""


@dataclass
class McapChunk:
    """A chunk, or a run of messages outside of chunks."""

    offset: int
    size: int
    chunked: bool
    start_ns: int = 2**63 - 1
    end_ns: int = 0


class _Statistics(NamedTuple):
    """What the index says of all messages."""

    schemas: int
    channels: int
    chunks: int
    start_ns: int
    end_ns: int
    counts: dict[int, int]


class McapPart:
    """An MCAP file, open for reading."""

    def __init__(self, path: Path, limit: UnpackLimit) -> None:
        self.path = path
        self.channels: list[Channel] = []
        self.counts: Counter[Channel] = Counter()
        self.losses: list[str] = []
        self.start_ns, self.end_ns = 2**63 - 1, 0
        self._limit = limit
        self.packed_bytes = path.stat().st_size
        self._forget()
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise BagError(f"cannot read {path}: {error.strerror}") from error
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            if self._file.read(len(_MAGIC)) != _MAGIC:
                raise BagError(f"{path} is no MCAP file")
            if not self._read_index():
                self._forget()
                self._scan()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]:
        """All messages, in order of time."""
        first = -(2**63) if start_ns is None else start_ns
        last = 2**63 if stop_ns is None else stop_ns
        open_bytes = [0]

        def within(block: McapChunk) -> Iterator[Message]:
            content = self._content(block)
            if content is None:
                self._lose(f"{self.path.name} is damaged at byte {block.offset}")
                return
            open_bytes[0] += len(content)
            if open_bytes[0] > _MOST_CHUNKS_OPEN * self._limit.chunk_bytes:
                raise BagError(
                    f"{self.path} has chunks that overlap in time, too many to be in memory at "
                    "once; limits.chunk_mb allows more"
                )
            for at, end in self._sorted(content):
                channel_id, _, stamp, _ = _MESSAGE_HEAD.unpack_from(content, at)
                channel = self._by_id.get(channel_id)
                if channel in channels and first <= stamp < last:
                    assert channel is not None
                    yield Message(channel, stamp, bytes(content[at + _MESSAGE_HEAD.size : end]))
            open_bytes[0] -= len(content)

        wanted = (b for b in self._blocks if b.end_ns >= first and b.start_ns < last)
        return in_order((block.start_ns, block, within) for block in wanted)

    def _forget(self) -> None:
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._by_id: dict[int, Channel] = {}
        self._blocks: list[McapChunk] = []
        self._lost = 0
        self._in_bad_chunk = False
        self.channels.clear()

    def _lose(self, what: str) -> None:
        if what not in self.losses:
            self.losses.append(what)

    # --- The index at the end ----------------------------------------------------------------

    def _read_index(self) -> bool:
        """Read the index; returns whether it exists and fits the file."""
        try:
            return self._take_index(self._summary())
        except (struct.error, ValueError):
            return False

    def _summary(self) -> memoryview:
        """The records between the data and the footer; ``ValueError`` if they are not complete."""
        begin = self._size - _FOOTER_BYTES
        if begin < len(_MAGIC):
            raise ValueError("there is no room for a footer")
        self._file.seek(begin)
        footer = self._file.read(_FOOTER_BYTES)
        kind, length = _HEAD.unpack_from(footer)
        start, _, checksum = struct.unpack_from("<QQI", footer, _HEAD.size)
        if kind != _FOOTER or length != 20 or not footer.endswith(_MAGIC):
            raise ValueError("there is no footer")
        if not len(_MAGIC) <= start < begin or begin - start > _MOST_INDEX_BYTES:
            raise ValueError("there is no index")
        self._file.seek(start)
        summary = self._file.read(begin - start)
        if checksum and zlib.crc32(summary + footer[: _HEAD.size + 16]) != checksum:
            raise ValueError("the index is damaged")
        self._data_end = start
        return memoryview(summary)

    def _take_index(self, summary: memoryview) -> bool:
        statistics: _Statistics | None = None
        chunks: list[tuple[McapChunk, int]] = []
        for kind, body in _records(summary):
            if kind == _STATISTICS:
                statistics = _statistics(body)
            elif kind == _CHUNK_INDEX:
                chunks.append(_chunk_index(body))
            else:
                self._note(kind, body)
        if statistics is None or not self._is_all(statistics, [block for block, _ in chunks]):
            return False
        for _, size in chunks:
            self._limit.check_chunk(size)
            self._limit.take(size)
        self._blocks = [block for block, _ in chunks]
        for number, count in statistics.counts.items():
            if number in self._by_id:
                self.counts[self._by_id[number]] += count
        if self.counts.total():
            self.start_ns, self.end_ns = statistics.start_ns, statistics.end_ns
        return True

    def _is_all(self, said: _Statistics, blocks: list[McapChunk]) -> bool:
        """Whether an index lists exactly the chunks of the file."""
        if said.chunks != len(blocks) or said.channels != len(self._by_id):
            return False
        if said.schemas != len(self._schemas) or (said.counts and not blocks):
            return False
        at = len(_MAGIC)
        for block in sorted(blocks, key=lambda block: block.offset):
            if block.offset - _HEAD.size < at or block.offset + block.size > self._data_end:
                return False
            at = block.offset + block.size
        return True

    # --- Without it --------------------------------------------------------------------------

    def _scan(self) -> None:
        file, size = self._file, self._size
        at = len(_MAGIC)
        while at + _HEAD.size <= size:
            file.seek(at)
            kind, length = _HEAD.unpack(file.read(_HEAD.size))
            begin, end = at + _HEAD.size, at + _HEAD.size + length
            if kind in (_FOOTER, _DATA_END):
                break
            if end > size:
                self._take_cut(kind, begin, size)
                at = size
                break
            self._take(kind, begin, length)
            at = end
        else:
            self.losses.append(f"{self.path.name} has no end: its index was never written")
        if self._lost:
            self.losses.append(
                f"{self._lost} messages of {self.path.name} lie in chunks that are damaged"
            )

    def _take(self, kind: int, begin: int, length: int) -> None:
        if kind == _CHUNK:
            self._take_chunk(begin, length)
        elif kind == _MESSAGE:
            self._take_message(begin, length)
        elif kind in (_SCHEMA, _CHANNEL):
            self._limit.check_chunk(length)
            self._file.seek(begin)
            self._note(kind, memoryview(self._file.read(length)))
        elif kind == _MESSAGE_INDEX and self._in_bad_chunk and length >= 6:
            self._file.seek(begin + 2)
            self._lost += int(struct.unpack("<I", self._file.read(4))[0]) // 16

    def _take_chunk(self, begin: int, length: int) -> None:
        block = McapChunk(begin, length, chunked=True)
        content = self._content(block)
        self._in_bad_chunk = content is None
        if content is None:
            self.losses.append(f"{self.path.name} is damaged at byte {begin}")
        else:
            self._index(block, content)

    def _take_message(self, begin: int, length: int) -> None:
        """Add a message. Adjacent messages share a block."""
        self._limit.check_chunk(length)
        last = self._blocks[-1] if self._blocks else None
        start, size = begin - _HEAD.size, length + _HEAD.size
        joins = last is not None and not last.chunked and last.size < _RUN_BYTES
        if last is None or not joins or last.offset + last.size != start:
            last = McapChunk(start, 0, chunked=False)
            self._blocks.append(last)
        last.size += size
        self._file.seek(begin)
        head = self._file.read(min(length, _MESSAGE_HEAD.size))
        if len(head) == _MESSAGE_HEAD.size:
            channel_id, _, stamp, _ = _MESSAGE_HEAD.unpack(head)
            self._count(last, channel_id, stamp)

    def _take_cut(self, kind: int, begin: int, size: int) -> None:
        """Note a last record whose end is missing."""
        self.losses.append(f"{self.path.name} is cut off in the middle of a record")
        if kind == _CHUNK:
            block = McapChunk(begin, size - begin, chunked=True)
            if (content := self._content(block)) is not None:
                self._index(block, content)

    def _index(self, block: McapChunk, content: memoryview) -> None:
        self._limit.take(len(content))
        self._blocks.append(block)
        for kind, body in _records(content):
            if kind == _MESSAGE and len(body) >= _MESSAGE_HEAD.size:
                channel_id, _, stamp, _ = _MESSAGE_HEAD.unpack_from(body)
                self._count(block, channel_id, stamp)
            else:
                self._note(kind, body)

    def _count(self, block: McapChunk, channel_id: int, stamp: int) -> None:
        if (channel := self._by_id.get(channel_id)) is None:
            return
        self.counts[channel] += 1
        block.start_ns, block.end_ns = min(block.start_ns, stamp), max(block.end_ns, stamp)
        self.start_ns, self.end_ns = min(self.start_ns, stamp), max(self.end_ns, stamp)

    def _note(self, kind: int, body: memoryview) -> None:
        try:
            if kind == _SCHEMA:
                number, schema = _schema(body)
                self._schemas[number] = schema
            elif kind == _CHANNEL:
                self._note_channel(body)
        except struct.error:
            self._lose(f"{self.path.name} describes a topic or a type and breaks off")

    def _note_channel(self, body: memoryview) -> None:
        number, schema, topic, encoding, metadata = _channel(body)
        if number in self._by_id:
            return
        if len(self._by_id) >= _MOST_CHANNELS:
            raise BagError(f"{self.path} has more than {_MOST_CHANNELS} topics")
        name, language, text = self._schemas.get(schema, ("", "", ""))
        known = text if language in ("ros2msg", "ros2idl") else ""
        qos = qos_of(metadata.get("offered_qos_profiles", ""))
        channel = Channel(topic, canonical(name), known, encoding, qos)
        self._by_id[number] = channel
        self.channels.append(channel)

    # --- Content -----------------------------------------------------------------------------

    def _sorted(self, content: memoryview) -> Iterator[tuple[int, int]]:
        """Begin and end of each message, in order of time."""
        begins, ends, stamps = array("q"), array("q"), array("Q")
        for kind, begin, end in _places(content):
            if kind == _MESSAGE and end - begin >= _MESSAGE_HEAD.size:
                begins.append(begin)
                ends.append(end)
                stamps.append(_MESSAGE_HEAD.unpack_from(content, begin)[2])
        order: Iterable[int] = range(len(stamps))
        if any(stamps[index] > stamps[index + 1] for index in range(len(stamps) - 1)):
            order = sorted(order, key=stamps.__getitem__)
        return ((begins[index], ends[index]) for index in order)

    def _content(self, block: McapChunk) -> memoryview | None:
        """The records in a block; None if it is damaged."""
        self._limit.check_chunk(block.size)
        self._file.seek(block.offset)
        raw = memoryview(self._file.read(block.size))
        if not block.chunked:
            return raw
        try:
            _, _, size, checksum, length = struct.unpack_from("<QQQII", raw)
            compression = bytes(raw[32 : 32 + length]).decode()
            (packed_size,) = struct.unpack_from("<Q", raw, 32 + length)
        except (struct.error, UnicodeDecodeError):
            return None
        self._limit.check_chunk(size)
        packed = raw[40 + length :]
        cut = len(packed) < packed_size
        content = unpacked(packed[:packed_size], compression, size)
        if content is None:
            return None
        whole = len(content) == size and (not checksum or zlib.crc32(content) == checksum)
        return memoryview(content) if cut or whole else None


def _places(content: memoryview) -> Iterator[tuple[int, int, int]]:
    """Kind, begin and end of each complete record."""
    at = 0
    while at + _HEAD.size <= len(content):
        kind, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        if not kind or at + length > len(content):
            return  # no record is of kind 0: these are zeros
        yield kind, at, at + length
        at += length


def _records(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The complete records."""
    return ((kind, content[begin:end]) for kind, begin, end in _places(content))


def _text(body: memoryview, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", body, at)
    return bytes(body[at + 4 : at + 4 + length]).decode("utf-8", "replace"), at + 4 + length


def _schema(body: memoryview) -> tuple[int, tuple[str, str, str]]:
    (number,) = struct.unpack_from("<H", body)
    name, at = _text(body, 2)
    encoding, at = _text(body, at)
    text, _ = _text(body, at)
    return number, (name, encoding, text)


def _channel(body: memoryview) -> tuple[int, int, str, str, Mapping[str, str]]:
    number, schema = struct.unpack_from("<HH", body)
    topic, at = _text(body, 4)
    encoding, at = _text(body, at)
    (length,) = struct.unpack_from("<I", body, at)
    at, end = at + 4, at + 4 + length
    metadata = {}
    while at < end:
        key, at = _text(body, at)
        metadata[key], at = _text(body, at)
    return number, schema, topic, encoding, metadata


def _chunk_index(body: memoryview) -> tuple[McapChunk, int]:
    """Where a chunk is, and its unpacked size."""
    start, end, offset, length, indexed = struct.unpack_from("<QQQQI", body)
    at = 36 + indexed + 8
    _, at = _text(body, at)
    _, size = struct.unpack_from("<QQ", body, at)
    block = McapChunk(
        offset + _HEAD.size, length - _HEAD.size, chunked=True, start_ns=start, end_ns=end
    )
    if length < _HEAD.size:
        raise ValueError("a chunk has no room for its own head")
    return block, size


def _statistics(body: memoryview) -> _Statistics:
    _, schemas, channels, _, _, chunks, start, end, length = struct.unpack_from("<QHIIIIQQI", body)
    pairs = struct.iter_unpack("<HQ", body[46 : 46 + length])
    return _Statistics(schemas, channels, chunks, start, end, dict(pairs))
