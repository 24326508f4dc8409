"""Notices that the network does not come back, and takes its work away from it.

A thread that hangs inside a library cannot be stopped. It can be left alone: what it holds is
replaced, and should it ever return, nothing of what it brings is used.
"""

from __future__ import annotations

import threading
import time


class Abandoned(BaseException):  # no error, and not to be caught as one
    """This thread's work has been given to another."""


class Watchdog:
    """A stretch of work that is being watched, as a context manager."""

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
        """Give up on work that has taken longer than this; returns whether that was so."""
        with self._lock:
            late = self._since is not None and time.monotonic() - self._since > limit_s
            self._abandoned = self._abandoned or late
            return late
