"""Divides the cameras of one call into batches for a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Begun = TypeVar("Begun")
Finished = TypeVar("Finished")


class Schedule(Generic[Begun, Finished]):
    """Makes batches as large as is worthwhile, keeps several in flight, and halves them if memory
    runs out.

    After memory was too small for a batch, later batches stay that small.
    """

    def __init__(self, pixels: int, *, under_way: int, said: Callable[[str], object]) -> None:
        """``pixels`` is the most that the cameras of one batch may have together."""
        self._pixels = pixels
        self._under_way = under_way
        self._said = said
        self._fitting: int | None = None
        """The number of cameras that fit into memory together, once more did not."""

    def run(
        self,
        cameras: int,
        pixels: int,
        *,
        begin: Callable[[slice], Begun],
        finish: Callable[[Begun, slice], list[Finished]],
        free: Callable[[], object],
    ) -> list[Finished]:
        """The results of ``finish`` for all cameras, whose frames have ``pixels`` each.

        ``free`` is called when memory runs out. Other errors are raised.
        """
        done: list[Finished] = []
        while len(done) < cameras:
            waiting: deque[tuple[slice, Begun]] = deque()
            try:
                while len(done) < cameras:
                    start = waiting[-1][0].stop if waiting else len(done)
                    if start < cameras and len(waiting) < self._under_way:
                        part = slice(start, min(cameras, start + self._size(cameras, pixels)))
                        waiting.append((part, begin(part)))
                    else:
                        part, begun = waiting.popleft()
                        done += finish(begun, part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                waiting.clear()
                free()
                self._halve(self._size(cameras - len(done), pixels), error)
        return done

    def _size(self, cameras: int, pixels: int) -> int:
        """How many cameras to take at once."""
        most = max(1, min(cameras, self._pixels // pixels))
        return min(most, self._fitting or most)

    def _halve(self, tried: int, error: Exception) -> None:
        if tried == 1:
            raise error
        self._fitting = tried // 2
        self._said(f"out of memory with {tried} cameras at once; now {self._fitting}")


def is_out_of_memory(error: Exception) -> bool:
    # Only torch's own GPU memory has an error class. Errors of the system, the driver and NVIDIA's
    # libraries are recognised by their text.
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        each in str(error) for each in words
    )
