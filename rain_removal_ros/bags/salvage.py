"""Reads recordings that others refuse: cut off when the power went, or damaged in places.

Every record that is whole is found by reading the file from its beginning, without trusting the
index at its end, which is what is missing first. What is lost is said.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from rain_removal_ros.bags.merging import in_order
from rain_removal_ros.bags.messages import Channel, Message, canonical
from rain_removal_ros.errors import BagError

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _DATA_END = 2, 3, 4, 5, 6, 7, 15
_RUN_BYTES = 1 << 20
"""Messages outside of chunks are taken together up to this size."""


def zstd() -> Any:
    """Whichever zstd module rosbags has brought with it."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise BagError("zstd-compressed recordings need rosbags' own dependencies: install it with pip")


@dataclass
class SalvagedChunk:
    """A chunk, or a run of messages outside of any."""

    offset: int
    size: int
    chunked: bool
    start_ns: int = 2**63 - 1
    end_ns: int = 0


@dataclass
class SalvagedMcap:
    """An MCAP file, read without its index."""

    path: Path
    channels: list[Channel] = field(default_factory=list)
    counts: Counter[Channel] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)
    start_ns: int = 2**63 - 1
    end_ns: int = 0

    def __post_init__(self) -> None:
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._by_id: dict[int, Channel] = {}
        self._blocks: list[SalvagedChunk] = []
        self._lost = 0
        self._in_bad_chunk = False
        try:
            self._file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise BagError(f"cannot read {self.path}: {error.strerror}") from error
        try:
            self._scan()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]:
        """The messages there are, in order of time."""
        first = -(2**63) if start_ns is None else start_ns
        last = 2**63 if stop_ns is None else stop_ns

        def within(block: SalvagedChunk) -> Iterator[Message]:
            found = [
                Message(channel, stamp, bytes(data))
                for channel, stamp, data in self._messages_of(block)
                if first <= stamp < last and channel in channels
            ]
            return iter(sorted(found, key=lambda message: message.stamp_ns))

        wanted = (b for b in self._blocks if b.end_ns >= first and b.start_ns < last)
        return in_order((block.start_ns, block, within) for block in wanted)

    # --- Index -------------------------------------------------------------------------------

    def _scan(self) -> None:
        file, size = self._file, os.fstat(self._file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            raise BagError(f"{self.path} is no MCAP file")
        at = len(_MAGIC)
        while at + 9 <= size:
            file.seek(at)
            kind, length = struct.unpack("<BQ", file.read(9))
            begin, end = at + 9, at + 9 + length
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
            self._file.seek(begin)
            self._note(kind, memoryview(self._file.read(length)))
        elif kind == _MESSAGE_INDEX and self._in_bad_chunk:
            self._file.seek(begin + 2)
            self._lost += int(struct.unpack("<I", self._file.read(4))[0]) // 16

    def _take_chunk(self, begin: int, length: int) -> None:
        block = SalvagedChunk(begin, length, chunked=True)
        content = self._content(block)
        self._in_bad_chunk = content is None
        if content is None:
            self.losses.append(f"{self.path.name} is damaged at byte {begin}")
        else:
            self._index(block, content)

    def _take_message(self, begin: int, length: int) -> None:
        """Messages that follow each other directly share a block."""
        last = self._blocks[-1] if self._blocks else None
        start, size = begin - 9, length + 9
        joins = last is not None and not last.chunked and last.size < _RUN_BYTES
        if last is None or not joins or last.offset + last.size != start:
            last = SalvagedChunk(start, 0, chunked=False)
            self._blocks.append(last)
        last.size += size
        self._file.seek(begin)
        head = self._file.read(min(length, 22))
        if len(head) == 22:
            channel_id, _, stamp, _ = struct.unpack("<HIQQ", head)
            self._count(last, channel_id, stamp)

    def _take_cut(self, kind: int, begin: int, size: int) -> None:
        """The last record, of which the end is missing."""
        self.losses.append(f"{self.path.name} is cut off in the middle of a record")
        if kind == _CHUNK:
            block = SalvagedChunk(begin, size - begin, chunked=True)
            if (content := self._content(block)) is not None:
                self._index(block, content)

    def _index(self, block: SalvagedChunk, content: memoryview) -> None:
        self._blocks.append(block)
        for kind, body in _records(content):
            if kind == _MESSAGE and len(body) >= 22:
                channel_id, _, stamp, _ = struct.unpack_from("<HIQQ", body)
                self._count(block, channel_id, stamp)
            else:
                self._note(kind, body)

    def _count(self, block: SalvagedChunk, channel_id: int, stamp: int) -> None:
        if (channel := self._by_id.get(channel_id)) is None:
            return
        self.counts[channel] += 1
        block.start_ns, block.end_ns = min(block.start_ns, stamp), max(block.end_ns, stamp)
        self.start_ns, self.end_ns = min(self.start_ns, stamp), max(self.end_ns, stamp)

    def _note(self, kind: int, body: memoryview) -> None:
        if kind == _SCHEMA:
            number, (name, encoding, text) = _schema(body)
            self._schemas[number] = (name, encoding, text)
        elif kind == _CHANNEL:
            number, schema, topic, encoding, metadata = _channel(body)
            if number in self._by_id:
                return
            name, language, text = self._schemas.get(schema, ("", "", ""))
            known = text if language in ("ros2msg", "ros2idl") else ""
            channel = Channel(topic, canonical(name), known, encoding, _qos(metadata))
            self._by_id[number] = channel
            self.channels.append(channel)

    # --- Content -----------------------------------------------------------------------------

    def _messages_of(self, block: SalvagedChunk) -> Iterator[tuple[Channel, int, memoryview]]:
        for kind, body in _records(self._content(block) or memoryview(b"")):
            if kind == _MESSAGE and len(body) >= 22:
                channel_id, _, stamp, _ = struct.unpack_from("<HIQQ", body)
                if channel_id in self._by_id:
                    yield self._by_id[channel_id], stamp, body[22:]

    def _content(self, block: SalvagedChunk) -> memoryview | None:
        """The records in a block; None where it is damaged."""
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
        packed = raw[40 + length :]
        cut = len(packed) < packed_size
        content = _unpacked(packed[:packed_size], compression)
        if content is None:
            return None
        whole = len(content) == size and (not checksum or zlib.crc32(content) == checksum)
        return memoryview(content) if cut or whole else None


def _unpacked(packed: memoryview, compression: str) -> bytes | memoryview | None:
    """What can be unpacked, of a chunk that may be cut; None where nothing can."""
    if compression == "":
        return packed
    try:
        if compression == "lz4":
            decompressor = importlib.import_module("lz4.frame").LZ4FrameDecompressor()
        elif compression == "zstd":
            decompressor = zstd().ZstdDecompressor()
            if hasattr(decompressor, "decompressobj"):
                decompressor = decompressor.decompressobj()
        else:
            return None
        unpacked: bytes = decompressor.decompress(packed)
    except Exception:  # noqa: BLE001 - each library has its own errors for what it cannot unpack
        return None
    return unpacked


def _records(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The records that are whole."""
    at = 0
    while at + 9 <= len(content):
        kind, length = struct.unpack_from("<BQ", content, at)
        if at + 9 + length > len(content):
            return
        yield kind, content[at + 9 : at + 9 + length]
        at += 9 + length


def _text(body: memoryview, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", body, at)
    return bytes(body[at + 4 : at + 4 + length]).decode("utf-8", "replace"), at + 4 + length


def _schema(body: memoryview) -> tuple[int, tuple[str, str, str]]:
    (number,) = struct.unpack_from("<H", body)
    name, at = _text(body, 2)
    encoding, at = _text(body, at)
    text, _ = _text(body, at)
    return number, (name, encoding, text)


def _channel(body: memoryview) -> tuple[int, int, str, str, dict[str, str]]:
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


def _qos(metadata: dict[str, str]) -> tuple[Any, ...]:
    from rosbags.rosbag2.errors import ReaderError
    from rosbags.rosbag2.metadata import parse_qos

    try:
        return tuple(parse_qos(metadata.get("offered_qos_profiles", "")))
    except (ReaderError, KeyError, TypeError, yaml.YAMLError):
        return ()


class SalvagedSqlite:
    """An SQLite recording, read row by row as far as that goes, its journal included."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: list[str] = []
        self.start_ns, self.end_ns = 2**63 - 1, 0
        self.counts: Counter[Channel] = Counter()
        try:
            self._base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            # Without this, a file that is shorter than it says is not looked into at all.
            self._base.execute("PRAGMA writable_schema = ON")
            self._by_id = self._read_topics()
        except sqlite3.Error as error:
            raise BagError(f"{path} cannot be read: {error}") from error
        self.channels = list(self._by_id.values())
        for _, _, stamp, channel in self._rows("0"):
            self.counts[channel] += 1
            self.start_ns, self.end_ns = min(self.start_ns, stamp), max(self.end_ns, stamp)
        self.losses = self.losses[:1]

    def close(self) -> None:
        self._base.close()

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]:
        """The messages there are, in the order in which they were written."""
        for _, data, stamp, channel in self._rows("data"):
            early = start_ns is not None and stamp < start_ns
            late = stop_ns is not None and stamp >= stop_ns
            if channel in channels and not early and not late:
                yield Message(channel, stamp, data)

    def _rows(self, data: str) -> Iterator[tuple[int, Any, int, Channel]]:
        query = f"SELECT id, {data}, timestamp, topic_id FROM messages ORDER BY id"
        try:
            with closing(self._base.execute(query)) as rows:
                for number, content, stamp, topic in rows:
                    if topic in self._by_id:
                        yield number, content, stamp, self._by_id[topic]
        except sqlite3.Error as error:
            self._lose(f"{self.path.name} is damaged; what comes after is lost ({error})")

    def _lose(self, what: str) -> None:
        if what not in self.losses:
            self.losses.append(what)

    def _read_topics(self) -> dict[int, Channel]:
        columns = {row[1] for row in self._base.execute("PRAGMA table_info(topics)")}
        if not columns:
            raise BagError(f"{self.path} is no recording: it has no table of topics")
        definitions: dict[str, str] = {}
        if self._base.execute("PRAGMA table_info(message_definitions)").fetchall():
            query = "SELECT topic_type, encoded_message_definition FROM message_definitions"
            definitions = dict(self._base.execute(query))
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        rows = self._base.execute(f"SELECT id, name, type, serialization_format, {qos} FROM topics")
        return {
            number: Channel(
                topic,
                canonical(msgtype),
                definitions.get(msgtype, ""),
                encoding,
                _qos({"offered_qos_profiles": profiles}),
            )
            for number, topic, msgtype, encoding, profiles in rows
        }
