"""Reads ROS 1 bags and returns their messages as ROS 2 would have written them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.rosbag1 import Reader, ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rain_removal_ros.bags.messages import (
    MOST_DEFINITION,
    Channel,
    Message,
    definition_of,
    store,
)
from rain_removal_ros.bags.unpacking import UnpackLimit, unpacked
from rain_removal_ros.errors import BagError

__all__ = ["Ros1Part"]

_UNKNOWN_START = 2**63 - 1
_STARTS = {b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
"""No record begins with these: it would be half a gigabyte long."""


class _Reader(Reader):
    """rosbags' reader, made strict: it would unpack chunks of any size and believe any index."""

    def __init__(self, path: Path, limit: UnpackLimit) -> None:
        super().__init__(path)
        self._limit = limit
        self._places: set[int] = set()
        self._known: set[int] = set()

    def read_chunk_info(self) -> Any:
        info = super().read_chunk_info()
        if info.pos in self._places:
            raise ReaderError("its index names a chunk twice")
        self._places.add(info.pos)
        return info

    def read_chunk(self) -> Any:
        chunk = super().read_chunk()
        self._limit.check_chunk(chunk.datasize)
        return chunk._replace(decompressor=partial(self._unpacked, chunk.datapos))

    def _unpacked(self, place: int, packed: bytes) -> bytes:
        kinds = (name for start, name in _STARTS.items() if packed.startswith(start))
        content = unpacked(packed, next(kinds, ""), self._limit.chunk_bytes)
        if content is None:
            raise ReaderError("a chunk is damaged, or larger than limits.chunk_mb")
        if place not in self._known:
            self._known.add(place)
            self._limit.take(len(content))
        return bytes(content)


class Ros1Part:
    """A ROS 1 bag, open for reading."""

    def __init__(self, path: Path, limit: UnpackLimit) -> None:
        self.losses: list[str] = []
        self.counts: Counter[Channel] = Counter()
        self._path = path
        self.packed_bytes = path.stat().st_size
        try:
            self._reader = _Reader(path, limit)
            self._reader.open()
        except BagError:
            raise
        except Exception as error:  # rosbags does not check everything and may raise any error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BagError(
                f"{path} cannot be read: {reason}; 'rosbag reindex' repairs bags that were cut off"
            ) from error
        try:
            self._take_connections()
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        self._reader.close()

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]:
        wanted = [c for c in self._reader.connections if self._by_id[c.id] in channels]
        if not wanted:
            return
        lost: Counter[str] = Counter()
        try:
            for connection, stamp, data in self._reader.messages(wanted, start_ns, stop_ns):
                converted = self._converted(data, connection.msgtype)
                if converted is None:
                    lost[connection.topic] += 1
                else:
                    yield Message(self._by_id[connection.id], stamp, converted)
        except BagError:
            raise
        except Exception as error:  # noqa: BLE001 - as above: damage shows in many ways
            reason = " ".join(str(error).split()) or type(error).__name__
            self._lose(f"{self._path.name} is damaged; what comes after is lost ({reason})")
        for topic, count in lost.items():
            self._lose(f"{count} messages of {topic} could not be converted from ROS 1")

    def _lose(self, what: str) -> None:
        if what not in self.losses:
            self.losses.append(what)

    def _converted(self, data: bytes, msgtype: str) -> bytes | memoryview | None:
        try:
            converted: bytes | memoryview = self._store.ros1_to_cdr(data, msgtype)
        except Exception:  # noqa: BLE001 - what rosbags does not check comes as any error
            return None
        return converted

    def _take_connections(self) -> None:
        self._store = self._types()
        self._by_id = {}
        for connection in self._reader.connections:
            definition = definition_of(connection.msgtype)
            if self._store.fielddefs.get(connection.msgtype) != store().fielddefs.get(
                connection.msgtype
            ):
                definition = self._store.generate_msgdef(connection.msgtype, ros_version=2)[0]
            channel = Channel(connection.topic, connection.msgtype, definition)
            self._by_id[connection.id] = channel
            self.counts[channel] += connection.msgcount
        self.channels = list(dict.fromkeys(self._by_id.values()))
        self.start_ns = self._reader.start_time if self._reader.message_count else _UNKNOWN_START
        self.end_ns = self._reader.end_time - 1

    def _types(self) -> Any:
        """The bag's types, with ROS 2's names and header where they mean the same."""
        types: dict[str, Any] = {}
        for connection in self._reader.connections:
            text = connection.msgdef.data
            try:
                if len(text) > MOST_DEFINITION:
                    raise ValueError(f"it is longer than {MOST_DEFINITION} letters")
                types.update(get_types_from_msg(text, connection.msgtype))
            except Exception as error:  # as above
                reason = " ".join(str(error).split()) or type(error).__name__
                raise BagError(
                    f"{self._path}: the type {connection.msgtype} cannot be read: {reason}"
                ) from error
        known = store().fielddefs
        for name, (_, fields) in types.items():
            if name in known and (name == "std_msgs/msg/Header" or _alike(fields, known[name][1])):
                types[name] = known[name]
        registered = get_typestore(Stores.EMPTY)
        registered.register(types)
        return registered


def _alike(one: Any, other: Any) -> bool:
    """Whether two lists of fields differ in nothing but capital letters."""
    return [(name.lower(), kind) for name, kind in one] == [
        (name.lower(), kind) for name, kind in other
    ]
