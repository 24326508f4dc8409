"""What all attacks share: how much they do, and what they measure of a process."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["Effort", "Figures", "Process", "slowness"]

Figures: TypeAlias = Mapping[str, float | int | str]
"""What was measured, by name."""


@dataclass
class Effort:
    """How much an attack is to do. The same seed and count attack in the same way."""

    seed: int
    count: int
    """Of messages, files, commands or seconds, as the attack says."""
    folder: Path
    """An empty folder for the attack's files."""
    domain: int = 0
    """A ROS domain that nothing else uses."""
    choice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.choice = random.Random(self.seed)


def slowness() -> float:
    """How much longer time limits must be because other work uses the cores; at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Process:
    """What another process holds, held at first, and held at most."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self.first: dict[str, float] = {}
        self.most: dict[str, float] = {}

    def look(self) -> dict[str, float]:
        """What it holds now."""
        if not self.first:
            (self._folder / "clear_refs").write_text("5")  # resets the peak of its memory
        pages = int((self._folder / "statm").read_text().split()[1])
        now = {
            "memory_mb": pages * resource.getpagesize() / 1e6,
            "threads": len(list((self._folder / "task").iterdir())),
            "files": len(list((self._folder / "fd").iterdir())),
        }
        self.first = self.first or now
        self.most = {name: max(now[name], self.most.get(name, 0)) for name in now}
        self.most["memory_mb"] = max(self.most["memory_mb"], self._peak_mb())
        return now

    def _peak_mb(self) -> float:
        """The most memory that it held since the first look."""
        status = (self._folder / "status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    def figures(self) -> dict[str, float]:
        """What it held at first, at most and in the end."""
        last = self.look()
        return {
            f"{name}, {when}": round(values[name])
            for name in last
            for when, values in (("first", self.first), ("most", self.most), ("last", last))
        }

    def check(self, *, memory_mb: float, threads: int, files: int) -> None:
        """Fail if it ever held that much more memory than at first or more threads than these, or
        now holds that many more files.
        """
        last = self.look()
        assert self.most["memory_mb"] <= self.first["memory_mb"] + memory_mb, self.figures()
        assert self.most["threads"] <= threads, self.figures()
        assert last["files"] <= self.first["files"] + files, self.figures()
