"""Finds writes outside a folder, by what Python tells an audit hook."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["writes_outside"]

_CHANGES = {
    "os.mkdir": [(0, 2)],
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.rename": [(0, 2), (1, 3)],
    "os.link": [(1, 3)],
    "os.symlink": [(1, 2)],
}
"""Which arguments of an event are changed paths, and which the folders they are relative to."""


def writes_outside(folder: Path) -> list[str]:
    """A list to which every later write of this process outside the folder is added.

    Temporary files go into the folder from now on. A hook cannot be removed: call this in a
    process of its own.
    """
    tempfile.tempdir = str(folder)
    sys.dont_write_bytecode = True
    inside = str(folder.resolve()) + os.sep
    found: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        for path in _changed(event, arguments):
            where = os.path.realpath(path)
            if where != os.devnull and not f"{where}{os.sep}".startswith(inside):
                found.append(f"{event} {where}")

    sys.addaudithook(hook)
    return found


def _changed(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    """The paths that an event writes to."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            yield os.fsdecode(path)
    elif event == "sqlite3.connect":
        yield unquote(os.fsdecode(arguments[0]).removeprefix("file:").partition("?")[0])
    for path, folder in _CHANGES.get(event, []):
        below = arguments[folder]
        base = Path() if below == -1 else Path(f"/proc/self/fd/{below}").readlink()
        yield str(base / os.fsdecode(arguments[path]))
