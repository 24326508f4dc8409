"""A disk that is full at any moment: one line, nothing half written, and the exit code says so.

What a process may write to a file is limited, or, where that is allowed, it writes to a small disk
in memory.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz.commands import run_command
from fuzz.effort import Effort, Figures
from fuzz.work import Work

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 9, 500
"""Commands."""


def attack(effort: Effort) -> Figures:
    """Run commands that may write up to so many bytes to a file."""
    work = Work(effort.folder)
    names = ("image", "replay", "train")
    largest = {}
    for name in names:
        ended = run_command(*getattr(work, name), log=work.log)
        assert ended.code == 0, ended.said
        largest[name] = max(path.stat().st_size for path in work.out.rglob("*") if path.is_file())
        work.clear()
    refused = disks = 0
    for number in range(effort.count):
        name = names[number % len(names)]
        room = effort.choice.choice([0, effort.choice.randrange(largest[name])])
        with _small_disk(work.out, room if effort.choice.random() < 0.5 else 0) as is_disk:
            limit = None if is_disk else room
            ended = run_command(*getattr(work, name), log=work.log, file_bytes=limit)
            what = f"{name} with room for {room} bytes: {ended.code}\n{ended.said}"
            # `image` ends with 1 where some of its files failed.
            assert ended.code in (0, 1, 2), what
            assert "Traceback" not in ended.said, what
            getattr(work, f"check_{name}")(must_exist=ended.code == 0)
            refused += ended.code > 0
            disks += is_disk
        work.clear()
    return {"commands": effort.count, "of them refused": refused, "on a small disk": disks}


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Whether the folder is a disk of this size, which takes a privilege; never one of none."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = size > 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
