"""Writes files that appear whole under their names or not at all; finds cache and model folders."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rain_removal_ros.errors import DataError, RainRemovalError


@contextmanager
def draft_of(path: Path, *, raises: type[RainRemovalError] = DataError) -> Iterator[Path]:
    """A file beside ``path`` that gets its name if the block succeeds, and is deleted otherwise.

    Folders are created. The draft has the suffix of ``path``, which selects a video container.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(path.suffix, f".{path.stem[:100]}.", path.parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            draft.chmod(0o666 & ~_umask())  # a temporary file is readable by its owner only
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise raises(f"cannot write {path}: {error.strerror or error}") from error


def write_whole(
    path: Path,
    content: str | bytes | memoryview,
    *,
    raises: type[RainRemovalError] = DataError,
    durable: bool = False,
) -> None:
    """Write a file whole or not at all; a ``durable`` one is on the disk when this returns."""
    with draft_of(path, raises=raises) as draft, draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_json(path: Path, payload: Mapping[str, Any]) -> None:
    """Write ``payload`` whole or not at all."""
    write_whole(path, json.dumps(payload, indent=2, ensure_ascii=False, default=str) + "\n")


def cache_folder(name: str) -> Path:
    """The folder ``name`` in the user's cache."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise DataError("there is no home folder to keep files in; set XDG_CACHE_HOME") from error
    return Path(home) / "rain_removal_ros" / name


def model_folders() -> list[Path]:
    """Where shipped weights are looked for."""
    return _shipped_folders("models")


def recipe_folders() -> list[Path]:
    """Where recipes of training that ship are looked for."""
    return _shipped_folders("config/train")


def _shipped_folders(name: str) -> list[Path]:
    """A folder that ships: a checkout's, then that in the installed share folder."""
    package = Path(__file__).resolve().parents[1]
    share = Path("share") / "rain_removal_ros" / name
    overlays = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    prefixes = [Path(overlay) for overlay in overlays if overlay]
    # A wheel's share folder is beside the interpreter, a workspace's is four above the package.
    prefixes += [Path(sys.prefix), *package.parents[2:5]]
    folders = [package.parent / name, *(prefix / share for prefix in prefixes)]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
