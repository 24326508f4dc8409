"""Unpacks compressed data in recordings, within limits.

A few hundred kilobytes can expand to terabytes. So the total that a recording may unpack to depends
on its size, and the amount in memory at once is fixed.
"""

from __future__ import annotations

import bz2
import importlib
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rain_removal_ros.errors import BagError
from rain_removal_ros.settings import LimitSettings

__all__ = ["UnpackLimit", "unpacked", "unpacked_file", "zstd"]

_MB = 10**6
_ALWAYS_BYTES = 100 * _MB
"""The amount that any recording may unpack to, however small it is."""
_PIECE_BYTES = 1 << 20
_KEPT_FREE_BYTES = 1 << 30
"""Disk space that unpacking leaves free; on a small disk, a twentieth."""


class UnpackLimit:
    """What one recording may still unpack to."""

    def __init__(self, path: Path, packed_bytes: int, limits: LimitSettings) -> None:
        self.chunk_bytes = limits.chunk_mb * _MB
        self._path = path
        self._expansion = limits.expansion
        self._left = max(_ALWAYS_BYTES, limits.expansion * packed_bytes)

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BagError(
                f"{self._path} unpacks to more than {self._expansion:g} times its size; "
                "limits.expansion allows more"
            )

    def check_chunk(self, count: int) -> None:
        """Refuse a chunk or message of so many bytes if it is too large for memory."""
        if count > self.chunk_bytes:
            raise BagError(
                f"{self._path} holds a chunk of {count / _MB:.0f} MB; limits.chunk_mb allows more "
                f"than {self.chunk_bytes // _MB}"
            )


def zstd() -> Any:
    """Any of the zstd modules that rosbags depends on."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise BagError("zstd-compressed recordings need rosbags' own dependencies: install it with pip")


Bytes = bytes | memoryview


def unpacked(packed: Bytes, compression: str, most_bytes: int) -> Bytes | None:
    """Unpack data that may be cut off; None if nothing can be unpacked, or if it is too much."""
    try:
        content = _unpacked(packed, compression, most_bytes + 1)
    except BagError:
        raise
    except Exception:  # noqa: BLE001 - each library has its own errors for what it cannot unpack
        return None
    return content if len(content) <= most_bytes else None


def _unpacked(packed: Bytes, compression: str, most_bytes: int) -> Bytes:
    if compression == "":
        return packed[:most_bytes]
    if compression == "bz2":
        return bz2.BZ2Decompressor().decompress(packed, most_bytes)
    if compression == "lz4":
        lz4 = importlib.import_module("lz4.frame").LZ4FrameDecompressor()
        content: bytes = lz4.decompress(packed, most_bytes)
        return content
    if compression == "zstd":
        decompressor = zstd().ZstdDecompressor()
        if hasattr(decompressor, "stream_reader"):
            content = decompressor.stream_reader(packed).read(most_bytes)
        else:
            content = decompressor.decompress(packed, most_bytes)
        return content
    raise ValueError(f"no compression is called {compression!r}")


def unpacked_file(path: Path, limit: UnpackLimit, stack: ExitStack) -> Path:
    """A file that was compressed as a whole, unpacked until the stack closes."""
    with ExitStack() as mine:
        folder = mine.enter_context(tempfile.TemporaryDirectory(prefix="rain-removal-"))
        target = Path(folder) / path.stem
        with path.open("rb") as packed, target.open("wb") as file:
            try:
                content = mine.enter_context(zstd().open(packed, "rb"))
                while piece := content.read(_PIECE_BYTES):
                    limit.take(len(piece))
                    _check_disk(path, Path(folder))
                    file.write(piece)
            except OSError as error:
                raise BagError(f"cannot unpack {path}: {error.strerror or error}") from error
            except BagError:
                raise
            except Exception:  # noqa: BLE001 - cut off; what came before is there and will be read
                pass
        stack.push(mine.pop_all())
    return target


def _check_disk(path: Path, folder: Path) -> None:
    disk = shutil.disk_usage(folder)
    if disk.free < min(_KEPT_FREE_BYTES, disk.total // 20):
        raise BagError(
            f"cannot unpack {path}: {folder.parent} is almost full; TMPDIR chooses another folder"
        )
