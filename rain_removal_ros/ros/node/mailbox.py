"""Where frames wait: one place per camera, and the newest frame replaces the waiting one.

So a slow network drops frames instead of increasing latency. Putting a message in does nothing
else, so the executor's thread is free again at once.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message, and its time of arrival."""

    message: Any
    arrived: float
    """Monotonic, in seconds."""


class Mailbox:
    """One slot per camera, by its index."""

    def __init__(self) -> None:
        self._waiting: dict[int, ReceivedMessage] = {}
        self._changed = threading.Condition()
        self._woken = False

    def put(self, camera: int, message: Any) -> bool:
        """Leave a message; returns whether it replaced one that was still waiting."""
        with self._changed:
            displaced = camera in self._waiting
            self._waiting[camera] = ReceivedMessage(message, time.monotonic())
            self._changed.notify()
            return displaced

    def take(self) -> dict[int, ReceivedMessage]:
        """The newest message of every camera that has one; waits for a message or for ``wake``."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._woken)
            self._woken = False
            messages, self._waiting = self._waiting, {}
            return messages

    def wake(self) -> None:
        """Let ``take`` return, with or without messages."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def clear(self) -> list[int]:
        """Discard the waiting messages; returns the cameras they belonged to."""
        with self._changed:
            cameras = list(self._waiting)
            self._waiting.clear()
            return cameras
