"""Opens recordings of every kind, damaged ones too.

Damaged files are read as far as possible. The files of a folder are read one by one, so a damaged
file or a lost metadata.yaml affects nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rain_removal_ros import parsing
from rain_removal_ros.bags.mcap import McapPart
from rain_removal_ros.bags.merging import in_order
from rain_removal_ros.bags.messages import Channel, Message
from rain_removal_ros.bags.ros1 import Ros1Part
from rain_removal_ros.bags.sqlite import SqlitePart
from rain_removal_ros.bags.unpacking import UnpackLimit, unpacked, unpacked_file
from rain_removal_ros.errors import BagError
from rain_removal_ros.settings import LimitSettings

__all__ = ["Recording", "find_recordings", "open_recording"]

_SUFFIXES = (".mcap", ".db3", ".bag", ".mcap.zstd", ".db3.zstd")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MOST_METADATA = 1 << 22
"""Bytes: enough for ten thousand files."""


class Part(Protocol):
    """One file of a recording."""

    channels: list[Channel]
    counts: Counter[Channel]
    packed_bytes: int
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

    def __init__(
        self,
        path: Path,
        parts: list[Part],
        losses: list[str],
        limits: LimitSettings,
        stack: ExitStack,
    ) -> None:
        self.path = path
        self._limits = limits
        self._parts = parts
        self._losses = losses
        self._stack = stack
        self.counts: Counter[Channel] = Counter()
        self._merged: dict[Channel, Channel] = {}
        known: dict[tuple[str, str, str], Channel] = {}
        for part in parts:
            for channel in part.channels:
                # The files of one recording may differ in everything but the type.
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
        """The messages of all or some channels, from ``start_ns`` on and before ``stop_ns``."""
        wanted = set(self.channels if channels is None else channels)
        limit = UnpackLimit(self.path, sum(part.packed_bytes for part in self._parts), self._limits)

        def of(part: Part) -> Iterator[Message]:
            own = {own for own in part.channels if self._merged[own] in wanted}
            for message in part.messages(own, start_ns, stop_ns) if own else ():
                channel = self._merged[message.channel]
                yield Message(channel, message.stamp_ns, _plain(message.data, limit))

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


def open_recording(path: Path, limits: LimitSettings | None = None) -> Recording:
    """Open a recording: a folder, or one of its files."""
    limits = limits or LimitSettings()
    if not path.exists():
        raise BagError(f"there is no recording {path}")
    files, losses = _files_of(path) if path.is_dir() else ([path], [])
    with ExitStack() as stack:
        parts = []
        for file in files:
            try:
                part = _open_part(file, limits, stack)
            except BagError as error:
                if len(files) == 1:
                    raise
                losses.append(str(error))
                continue
            stack.callback(part.close)
            parts.append(part)
        if not parts:
            raise BagError(f"no file of {path} can be read: {'; '.join(losses)}")
        return Recording(path, parts, losses, limits, stack.pop_all())
    raise AssertionError  # the stack suppresses no exception


def find_recordings(path: Path) -> list[Path]:
    """All recordings at a path: itself, or those anywhere below it.

    The files of a folder are one recording if a metadata.yaml says so, or if it is missing and
    their names are numbered: ``drive_0.mcap``, ``drive_1.mcap``. Otherwise each file is a
    recording.
    """
    if not path.is_dir():
        return [path] if _is_storage(path) else []
    return _found_in(path, set())


def _found_in(path: Path, seen: set[Path]) -> list[Path]:
    if (path / "metadata.yaml").is_file():
        return [path]
    seen.add(path.resolve())
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    files = [entry for entry in entries if _is_storage(entry)]
    folders = [entry for entry in entries if entry.is_dir()]
    # Links may form a loop.
    below = [found for e in folders if e.resolve() not in seen for found in _found_in(e, seen)]
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
        content = parsing.from_yaml(parsing.text_of(metadata, most_bytes=_MOST_METADATA))
        paths = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return list(dict.fromkeys(Path(path).name for path in paths)) or None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(data: bytes | memoryview, limit: UnpackLimit) -> bytes | memoryview:
    """A message that was compressed on its own, unpacked. CDR never begins with zstd's magic
    number.
    """
    if bytes(data[:4]) != _ZSTD_MAGIC:
        return data
    content = unpacked(data, "zstd", limit.chunk_bytes)
    if content is None:  # damaged: passed on as it is, and found unreadable later
        return data
    limit.take(len(content))
    return content


_KINDS: dict[str, Callable[[Path, UnpackLimit], Part]] = {
    ".mcap": McapPart,
    ".db3": SqlitePart,
    ".bag": Ros1Part,
}


def _open_part(path: Path, limits: LimitSettings, stack: ExitStack) -> Part:
    limit = UnpackLimit(path, path.stat().st_size, limits)
    if path.name.endswith(".zstd"):
        path = unpacked_file(path, limit, stack)
    if path.suffix not in _KINDS:
        raise BagError(f"{path} is not a recording: .mcap, .db3 and .bag are, and folders of them")
    return _KINDS[path.suffix](path, limit)
