"""Measures this process's memory, and decides whether a frame may take more."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from rain_removal_ros.runtime.allocator import give_back_freed_memory

__all__ = ["MemoryBudget", "resident_bytes"]

_BETWEEN_TRIMS_S = 1.0
"""The time between two returns of memory, each of which takes some 50 ms; the next frame maps it
again."""


def resident_bytes() -> int:
    """The resident memory of this process; 0 if the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0  # not Linux
    return pages * resource.getpagesize()


class MemoryBudget:
    """Decides whether a frame fits into the memory that the process may use.

    A process that runs networks keeps what it frees (``allocator``). So the memory of earlier
    frames is still resident, and only a larger frame takes more.
    """

    def __init__(self, pixel_bytes: float = 0.0) -> None:
        """``pixel_bytes`` is the network's memory per pixel of a frame."""
        self._pixel_bytes = pixel_bytes
        self._largest = 0
        self._trimmed_at = -_BETWEEN_TRIMS_S

    def admits(self, pixels: int, most_bytes: int) -> bool:
        """Whether a frame of so many pixels fits, after unused memory was returned to the system if
        necessary.
        """
        fits = self._fits(pixels, most_bytes)
        now = time.monotonic()
        if not fits and now - self._trimmed_at >= _BETWEEN_TRIMS_S:
            give_back_freed_memory()
            self._largest, self._trimmed_at = 0, now
            fits = self._fits(pixels, most_bytes)
        if fits:
            self._largest = max(self._largest, pixels)
        return fits

    def _fits(self, pixels: int, most_bytes: int) -> bool:
        more = max(0, pixels - self._largest) * self._pixel_bytes
        return resident_bytes() + more <= most_bytes
