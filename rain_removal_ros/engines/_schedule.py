"""In what batches the cameras of one call go through a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Begun = TypeVar("Begun")
Finished = TypeVar("Finished")


class Schedule(Generic[Begun, Finished]):
    """Makes batches as large as it pays, keeps several under way, and halves them if memory ends.

    Once memory did not suffice for a batch, later ones stay that small.
    """

    def __init__(self, pixels: int, *, under_way: int, said: Callable[[str], object]) -> None:
        """``pixels`` is what the cameras of one batch may have together."""
        self._pixels = pixels
        self._under_way = under_way
        self._said = said
        self._fitting: int | None = None
        """Cameras that fit into memory together, once more of them did not."""

    def run(
        self,
        cameras: int,
        pixels: int,
        *,
        begin: Callable[[slice], Begun],
        finish: Callable[[Begun, slice], list[Finished]],
        free: Callable[[], object],
    ) -> list[Finished]:
        """What ``finish`` gives for all cameras, whose frames have so many pixels each.

        ``free`` is called where memory ran out. What cannot be helped is raised.
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
    # Only torch's own memory on a GPU has an error of its own: what the system, the driver and
    # NVIDIA's libraries refuse is told by their words.
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        each in str(error) for each in words
    )
