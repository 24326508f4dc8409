"""Where frames wait: one place a camera, and the newest frame takes it.

A slow network therefore drops frames and never grows latency. Whoever puts a message in does
nothing else, so that the executor's thread is free again at once.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message, and when it came in."""

    message: Any
    arrived: float
    """Monotonic, in seconds."""


class Mailbox:
    """One slot for each camera, by its index."""

    def __init__(self) -> None:
        self._waiting: dict[int, ReceivedMessage] = {}
        self._changed = threading.Condition()
        self._woken = False

    def put(self, camera: int, message: Any) -> bool:
        """Leave a message; returns whether one that nobody had taken made way for it."""
        with self._changed:
            displaced = camera in self._waiting
            self._waiting[camera] = ReceivedMessage(message, time.monotonic())
            self._changed.notify()
            return displaced

    def take(self) -> dict[int, ReceivedMessage]:
        """The newest message of every camera that has one; waits for one, or to be woken."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._woken)
            self._woken = False
            messages, self._waiting = self._waiting, {}
            return messages

    def wake(self) -> None:
        """Let ``take`` return, be there messages or not."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def clear(self) -> list[int]:
        """Throw away what nobody took; returns whose messages those were."""
        with self._changed:
            cameras = list(self._waiting)
            self._waiting.clear()
            return cameras
