"""Caches decoded pictures, because decoding costs more than anything else that is done to a
sample.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.runtime.files import draft_of

Views = tuple[Image, ...]
"""One moment with and without rain (rainy, reference), or only one of them."""

Key = tuple[str, int]
"""The name of a clip, and the number of its frame."""

_FORMAT = "1"
"""Change this whenever a picture would be decoded differently than before."""


class Cache(Protocol):
    @property
    def full(self) -> bool: ...

    def get(self, key: Key, load: Callable[[], Views]) -> Views: ...

    def put(self, key: Key, views: Views) -> None: ...

    def holds(self, key: Key) -> bool: ...


class MemoryCache:
    """Keeps pictures up to a limit; the rest is decoded each time."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._kept: dict[Key, Views] = {}

    @property
    def full(self) -> bool:
        return self.used_bytes >= self.limit_bytes

    def holds(self, key: Key) -> bool:
        return key in self._kept

    def get(self, key: Key, load: Callable[[], Views]) -> Views:
        found = self._kept.get(key)
        if found is None:
            found = load()
            self.put(key, found)
        return found

    def put(self, key: Key, views: Views) -> None:
        size = sum(view.nbytes for view in views)
        if key not in self._kept and self.used_bytes + size <= self.limit_bytes:
            # A view would keep the whole picture in memory.
            self._kept[key] = tuple(np.ascontiguousarray(view) for view in views)
            self.used_bytes += size


class FolderCache:
    """Keeps the pictures of one data set in files that are mapped into memory.

    Runs and processes share them, and only the used parts of a picture are read. The files are
    valid as long as the data set does not change.
    """

    full = False

    def __init__(self, folder: Path, data_set: Path) -> None:
        self._folder = folder / _stamp(data_set)

    def holds(self, key: Key) -> bool:
        return self._file(key).exists()

    def get(self, key: Key, load: Callable[[], Views]) -> Views:
        kept = self._read(key)
        if kept is None:
            kept = load()
            self.put(key, kept)
        return kept

    def put(self, key: Key, views: Views) -> None:
        alike = len({view.shape for view in views}) == 1
        if not alike or self.holds(key):
            return
        try:
            with draft_of(self._file(key)) as draft, draft.open("wb") as file:
                np.save(file, np.stack(views), allow_pickle=False)
        except DataError as error:
            print(f"{error}; the picture will be decoded each time", file=sys.stderr)

    def _read(self, key: Key) -> Views | None:
        try:
            views = np.load(self._file(key), mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            with suppress(OSError):
                self._file(key).unlink()  # cut off or damaged
            return None
        return tuple(_plain(view) for view in views)

    def _file(self, key: Key) -> Path:
        name, index = key
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}-{index}.npy"


def _plain(view: NDArray[np.uint8]) -> Image:
    """A mapped array as an ordinary one that still reads from the file."""
    return np.asarray(view)


def _stamp(data_set: Path) -> str:
    """Changes when a file of a data set is added, removed or changed."""
    digest = hashlib.sha256(_FORMAT.encode())
    root = data_set.absolute()
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    for path in files:
        found = path.stat()
        digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0".encode(errors="replace"))
    return digest.hexdigest()[:24]
