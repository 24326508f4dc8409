"""Folders and files of this user alone, for what is trusted when it is read back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["private_folder", "read_private"]


def private_folder(path: Path) -> Path:
    """The folder, created if necessary; a ``PermissionError`` if others can enter it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of this user alone, of mode 700")
    return path


def read_private(path: Path) -> bytes:
    """What this user wrote there; a ``PermissionError`` if another user could have."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(f"{path} is not a file that only this user can write")
        return file.read()
