"""Notices that a frame is never finished, and takes its work away from the thread that has it.

A thread that hangs inside a library cannot be stopped, but it can be abandoned: its resources are
replaced, and if it ever returns, its results are not used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Abandoned(BaseException):  # not an error, and must not be caught as one
    """This thread's work has been given to another."""


class Watchdog:
    """Watches the processing of frames; entered, as a context, around the network."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._abandoned = False
        self.in_network = False
        """Whether the thread is in the network; keeps its value once abandoned."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the work on frames."""
        self._restart(time.monotonic())
        try:
            yield
        finally:
            self._restart(None)

    def check(self) -> None:
        """Raise if the work has been given to another thread."""
        if self._abandoned:
            raise Abandoned

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Around noting what became of a frame, which only one thread may do. The time limit starts
        again.
        """
        with self._lock:
            self.check()
            yield
            self._since = time.monotonic()

    def __enter__(self) -> Watchdog:
        self._enter_network(True)
        return self

    def __exit__(self, *_: object) -> None:
        self._enter_network(False)

    def abandon_after(self, limit_s: float) -> bool:
        """Abandon work that has taken longer than this; returns whether it did."""
        with self._lock:
            late = self._since is not None and time.monotonic() - self._since > limit_s
            self._abandoned = self._abandoned or late
            return late

    def _restart(self, since: float | None) -> None:
        with self._lock:
            self._since = since

    def _enter_network(self, entering: bool) -> None:  # noqa: FBT001
        with self._lock:
            self.check()
            self.in_network = entering
