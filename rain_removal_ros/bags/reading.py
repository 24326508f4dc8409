"""Opens a recording, whatever kind it is and whatever happened to it.

rosbags reads what is whole: MCAP, SQLite, and ROS 1. What it refuses is read as far as it goes.
A folder is taken file by file, so that one that is damaged or a lost metadata.yaml spoils no more
than itself.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import yaml
from rosbags.interfaces import ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag1 import ReaderError as Ros1Error
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from rain_removal_ros.bags.merging import in_order
from rain_removal_ros.bags.messages import Channel, Message, canonical, definition_of, store
from rain_removal_ros.bags.salvage import SalvagedMcap, SalvagedSqlite, zstd
from rain_removal_ros.errors import BagError

__all__ = ["Recording", "find_recordings", "open_recording"]

_SUFFIXES = (".mcap", ".db3", ".bag", ".mcap.zstd", ".db3.zstd")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_UNKNOWN_START = 2**63 - 1


class Part(Protocol):
    """One file of a recording."""

    channels: list[Channel]
    counts: Counter[Channel]
    start_ns: int
    end_ns: int

    @property
    def losses(self) -> list[str]:
        """What could not be read so far, in words."""
        ...

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]: ...

    def close(self) -> None: ...


class Recording:
    """A recording that is open for reading; use it as a context manager."""

    def __init__(self, path: Path, parts: list[Part], losses: list[str], stack: ExitStack) -> None:
        self.path = path
        self._parts = parts
        self._losses = losses
        self._stack = stack
        self.counts: Counter[Channel] = Counter()
        self._merged: dict[Channel, Channel] = {}
        known: dict[tuple[str, str, str], Channel] = {}
        for part in parts:
            for channel in part.channels:
                # The files of one recording may differ in what they say beside the type.
                key = (channel.topic, channel.msgtype, channel.encoding)
                self._merged[channel] = known.setdefault(key, channel)
                self.counts[known[key]] += part.counts[channel]
        self.channels = sorted(known.values(), key=lambda c: (c.topic, c.msgtype))
        self.start_ns = min((p.start_ns for p in parts if p.counts), default=0)
        self.end_ns = max((p.end_ns for p in parts if p.counts), default=0)

    @property
    def losses(self) -> list[str]:
        """What could not be read so far, in words."""
        return [*self._losses, *(loss for part in self._parts for loss in part.losses)]

    def messages(
        self,
        channels: Iterable[Channel] | None = None,
        *,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[Message]:
        """The messages of all channels or some, from ``start_ns`` on and before ``stop_ns``."""
        wanted = set(self.channels if channels is None else channels)

        def of(part: Part) -> Iterator[Message]:
            own = {own for own in part.channels if self._merged[own] in wanted}
            for message in part.messages(own, start_ns, stop_ns) if own else ():
                channel = self._merged[message.channel]
                yield Message(channel, message.stamp_ns, _plain(message.data))

        return in_order((part.start_ns, part, of) for part in self._parts)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def open_recording(path: Path) -> Recording:
    """Open a folder of a recording, or one of its files."""
    if not path.exists():
        raise BagError(f"there is no recording {path}")
    files, losses = _files_of(path) if path.is_dir() else ([path], [])
    with ExitStack() as stack:
        parts = []
        for file in files:
            try:
                part = _open_part(file, stack)
            except BagError as error:
                if len(files) == 1:
                    raise
                losses.append(str(error))
                continue
            stack.callback(part.close)
            parts.append(part)
        if not parts:
            raise BagError(f"no file of {path} can be read: {'; '.join(losses)}")
        return Recording(path, parts, losses, stack.pop_all())
    raise AssertionError  # the stack swallows nothing


def find_recordings(path: Path) -> list[Path]:
    """All recordings at a path: itself, or those anywhere below it.

    The files of a folder are one recording if a metadata.yaml says so, or if it is lost and their
    names tell: ``drive_0.mcap``, ``drive_1.mcap``. Otherwise each is one of its own.
    """
    if not path.is_dir():
        return [path] if _is_storage(path) else []
    if (path / "metadata.yaml").is_file():
        return [path]
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    files = [entry for entry in entries if _is_storage(entry)]
    below = [found for e in entries if e.is_dir() for found in find_recordings(e)]
    names = {re.sub(r"(_\d+)?\.(mcap|db3)(\.zstd)?$", "", file.name) for file in files}
    if len(names) == 1 and not below and files[0].suffix != ".bag":
        return [path]
    return files + below


def _is_storage(path: Path) -> bool:
    return path.is_file() and path.name.endswith(_SUFFIXES) and not path.name.startswith(".")


def _files_of(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of a recording's folder, and what is missing."""
    present = sorted(
        (path for path in folder.iterdir() if _is_storage(path)),
        key=lambda path: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.name)],
    )
    listed = _listed(folder / "metadata.yaml")
    if listed is None:
        if not present:
            raise BagError(f"{folder} holds no recording: no metadata.yaml, no .mcap, .db3 or .bag")
        return present, ["metadata.yaml is missing or unreadable; all files were taken"]
    found, losses = [], []
    for name in listed:
        # A recorder that was killed may have compressed a file or not yet.
        plain = name.removesuffix(".zstd")
        paths = [folder / name, folder / plain, folder / f"{plain}.zstd"]
        if (path := next((path for path in paths if path.is_file()), None)) is not None:
            found.append(path)
        else:
            losses.append(f"{name} is missing")
    if not found:
        raise BagError(f"the files of {folder} are missing: {', '.join(listed)}")
    return found, losses


def _listed(metadata: Path) -> list[str] | None:
    try:
        content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        paths = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return [Path(path).name for path in paths] or None
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        return None


def _open_part(path: Path, stack: ExitStack) -> Part:
    if path.name.endswith(".zstd"):
        path = _unpacked(path, stack)
    if path.suffix == ".bag":
        return Ros1Part(path)
    if path.suffix not in (".mcap", ".db3"):
        raise BagError(f"{path} is no recording: .mcap, .db3 and .bag are, and folders of them")
    try:
        return Ros2Part(path)
    except Exception:  # noqa: BLE001 - what rosbags does not check comes as any error there is
        return _salvaged(path)


def _salvaged(path: Path) -> SalvagedMcap | SalvagedSqlite:
    return SalvagedMcap(path) if path.suffix == ".mcap" else SalvagedSqlite(path)


def _unpacked(path: Path, stack: ExitStack) -> Path:
    """A file that was compressed as a whole, unpacked for the time being."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rain-removal-")))
    target = folder / path.stem
    with path.open("rb") as packed, target.open("wb") as file:
        try:
            with zstd().open(packed, "rb") as content:
                shutil.copyfileobj(content, file, 1 << 20)
        except OSError as error:
            raise BagError(f"cannot unpack {path}: {error.strerror or error}") from error
        except Exception:  # noqa: BLE001 - cut off; what came before is there and will be read
            pass
    return target


class Ros2Part:
    """A file that rosbags reads; if it turns out damaged on the way, the rest is salvaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own_losses: list[str] = []
        self._rest: SalvagedMcap | SalvagedSqlite | None = None
        self._reader = Ros2Reader(path)
        self._reader.open()
        self._by_id: dict[int, Channel] = {}
        self.counts: Counter[Channel] = Counter()
        for connection in self._reader.connections:
            ext = connection.ext
            assert isinstance(ext, ConnectionExtRosbag2)
            known = connection.msgdef.format != MessageDefinitionFormat.NONE
            channel = Channel(
                connection.topic,
                canonical(connection.msgtype),
                connection.msgdef.data if known else "",
                ext.serialization_format,
                tuple(ext.offered_qos_profiles),
            )
            self._by_id[connection.id] = channel
            self.counts[channel] += connection.msgcount
        self.channels = list(dict.fromkeys(self._by_id.values()))
        self.start_ns = self._reader.start_time
        self.end_ns = self._reader.end_time - 1

    @property
    def losses(self) -> list[str]:
        return [*self._own_losses, *(self._rest.losses if self._rest else [])]

    def close(self) -> None:
        with suppress(Exception):
            self._reader.close()
        if self._rest is not None:
            self._rest.close()

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]:
        wanted = [c for c in self._reader.connections if self._by_id[c.id] in channels]
        at, done = start_ns, 0
        try:
            for connection, stamp, data in self._reader.messages(wanted, start_ns, stop_ns):
                at, done = stamp, done + 1 if stamp == at else 1
                yield Message(self._by_id[connection.id], stamp, data)
        except Exception as error:  # noqa: BLE001 - as above: damage shows in many ways
            reason = " ".join(str(error).split())
            self._own_losses.append(f"{self.path.name} is damaged: {reason}")
            yield from self._after(channels, at, done, stop_ns)

    def _after(
        self, channels: set[Channel], at: int | None, done: int, stop_ns: int | None
    ) -> Iterator[Message]:
        """What can be salvaged after the ``done``-th message of the time ``at``."""
        self._rest = self._rest or _salvaged(self.path)
        for message in self._rest.messages(channels, at, stop_ns):
            if message.stamp_ns == at and done:
                done -= 1
                continue
            yield message


def _plain(data: bytes | memoryview) -> bytes | memoryview:
    """A message that was compressed by itself, unpacked. CDR never begins like that."""
    if bytes(data[:4]) != _ZSTD_MAGIC:
        return data
    try:
        unpacked: bytes = zstd().decompress(data)
    except Exception:  # noqa: BLE001 - damaged: passed on as it is, and found unreadable there
        return data
    return unpacked


class Ros1Part:
    """A ROS 1 bag. Its messages are handed out as ROS 2 would have written them."""

    def __init__(self, path: Path) -> None:
        self.losses: list[str] = []
        self.counts: Counter[Channel] = Counter()
        self._path = path
        try:
            self._reader = Ros1Reader(path)
            self._reader.open()
        except (Ros1Error, OSError, AssertionError) as error:
            raise BagError(
                f"{path} cannot be read: {error}; 'rosbag reindex' repairs bags that were cut off"
            ) from error
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

    def close(self) -> None:
        self._reader.close()

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]:
        wanted = [c for c in self._reader.connections if self._by_id[c.id] in channels]
        if not wanted:
            return
        lost: Counter[str] = Counter()
        for connection, stamp, data in self._reader.messages(wanted, start_ns, stop_ns):
            try:
                converted = self._store.ros1_to_cdr(data, connection.msgtype)
            except (SerdeError, KeyError, AssertionError):
                lost[connection.topic] += 1
                continue
            yield Message(self._by_id[connection.id], stamp, converted)
        for topic, count in lost.items():
            self.losses.append(f"{count} messages of {topic} could not be converted from ROS 1")

    def _types(self) -> Any:
        """The bag's types, with ROS 2's names and header wherever they mean the same."""
        types: dict[str, Any] = {}
        for connection in self._reader.connections:
            try:
                types.update(get_types_from_msg(connection.msgdef.data, connection.msgtype))
            except (TypesysError, SyntaxError) as error:
                raise BagError(
                    f"{self._path}: the type {connection.msgtype} cannot be read: {error}"
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
