"""Writes a recording that appears whole under its name, or not at all.

It is built in a hidden folder beside the target and moved into place at the end. The remains of a
killed run are removed by the next one. A second run for the same target at the same time is
refused.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError

from rain_removal_ros.bags.messages import Channel, definition_of, digest_of
from rain_removal_ros.errors import BagError

__all__ = ["BagWriter", "create"]


class BagWriter:
    """A recording that is being written."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._connections: dict[Channel, Any] = {}

    def add(self, channel: Channel) -> None:
        """Add a channel, unless it exists already."""
        if channel in self._connections:
            return
        definition = channel.definition or definition_of(channel.msgtype)
        try:
            self._connections[channel] = self._writer.add_connection(
                channel.topic,
                channel.msgtype,
                msgdef=definition,
                rihs01=digest_of(channel.msgtype, definition),
                serialization_format=channel.encoding,
                offered_qos_profiles=channel.qos,
            )
        except WriterError as error:
            raise BagError(f"cannot write the topic {channel.topic}: {error}") from error

    def write(self, channel: Channel, stamp_ns: int, data: bytes | memoryview) -> None:
        """Append a message."""
        self._writer.write(self._connections[channel], stamp_ns, data)


@contextmanager
def create(
    path: Path, *, force: bool = False, compression: str = "none", source: Path | None = None
) -> Iterator[BagWriter]:
    """Write a recording to ``path``: a folder, or one file if the name ends in ``.mcap``.

    ``source`` is the recording that is read meanwhile, which must not be overwritten.
    """
    _check(path, source, overwrite=force)
    single = path.suffix == ".mcap"
    draft = path.parent / f".{path.name}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(draft):
            name = path.stem if single else path.name
            writer = Writer(draft / name, version=9, storage_plugin=StoragePlugin.MCAP)
            if compression == "zstd":
                writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            with writer:
                yield BagWriter(writer)
            built = draft / name
            _move(built / f"{name}.mcap" if single else built, path, draft / ".old")
    except OSError as error:
        raise BagError(f"cannot write {path}: {error.strerror or error}") from error


def _check(path: Path, source: Path | None, *, overwrite: bool) -> None:
    if source is not None:
        here, there = path.absolute().resolve(), source.absolute().resolve()
        if here == there or here in there.parents or there in here.parents:
            raise BagError(
                f"{path} would overwrite or lie in {source}, which is read; choose another"
            )
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        raise BagError(f"{path} exists already; choose another name, or --force to replace it")
    ours = path.is_file() if path.suffix == ".mcap" else (path / "metadata.yaml").is_file()
    if not ours:
        raise BagError(f"{path} exists and is not a recording; --force replaces recordings only")


@contextmanager
def _locked(draft: Path) -> Iterator[None]:
    """An empty draft folder, locked for this process and removed afterwards."""
    draft.mkdir(exist_ok=True)
    handle = os.open(draft, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BagError(f"another run is writing {draft}; wait for it") from error
        try:
            _empty(draft)
            yield
        finally:
            with suppress(OSError):
                shutil.rmtree(draft)
    finally:
        os.close(handle)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _move(built: Path, path: Path, aside: Path) -> None:
    """Move the draft into place; the previous recording is kept until that is done."""
    if path.exists():
        path.rename(aside)
    try:
        built.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise
