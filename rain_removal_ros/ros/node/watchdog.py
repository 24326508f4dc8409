"""Notices that the network does not return, and takes its work away from it.

A thread that hangs inside a library cannot be stopped, but it can be abandoned: its resources are
replaced, and if it ever returns, its results are not used.
"""

from __future__ import annotations

import threading
import time


class Abandoned(BaseException):  # not an error, and must not be caught as one
    """This thread's work has been given to another."""


class Watchdog:
    """Watches a piece of work, as a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._abandoned = False

    def __enter__(self) -> Watchdog:
        with self._lock:
            self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._since = None
            if self._abandoned:
                raise Abandoned

    def abandon_after(self, limit_s: float) -> bool:
        """Abandon work that has taken longer than this; returns whether it did."""
        with self._lock:
            late = self._since is not None and time.monotonic() - self._since > limit_s
            self._abandoned = self._abandoned or late
            return late
