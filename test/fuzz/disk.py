"""A disk that is full at any moment: one line, no half-written file, and an exit code that says so.

Either the size of files is limited or, where mounting is allowed, a process writes to a small disk
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
"""Numbers of commands."""


def attack(effort: Effort) -> Figures:
    """Run ``count`` commands, each with room for a random number of bytes."""
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
            # `image` exits with 1 if some of its files failed.
            assert ended.code in (0, 1, 2), what
            assert "Traceback" not in ended.said, what
            getattr(work, f"check_{name}")(must_exist=ended.code == 0)
            refused += ended.code > 0
            disks += is_disk
        work.clear()
    return {"commands": effort.count, "of them refused": refused, "on a small disk": disks}


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a disk of this size, if allowed, on the folder; yield whether it is. Size 0 is none."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = size > 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
