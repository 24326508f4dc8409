"""The one thread in which frames are processed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from rain_removal_ros.ros.node.mailbox import Mailbox
from rain_removal_ros.ros.node.pipeline import Pipeline
from rain_removal_ros.ros.node.watchdog import Abandoned, Watchdog


class Worker:
    """Takes the newest frames while it is wanted, and orders between two of them."""

    def __init__(self, mailbox: Mailbox, pipeline: Pipeline, watch: Watchdog) -> None:
        self.pipeline = pipeline
        self.watch = watch
        self._mailbox = mailbox
        self._orders: SimpleQueue[Callable[[Pipeline], None]] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="derain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def order(self, order: Callable[[Pipeline], None]) -> None:
        """Call something before the next frame."""
        self._orders.put(order)
        self._mailbox.wake()

    def stop(self, patience_s: float) -> bool:
        """End after the current frame; returns whether that happened within this time."""
        self._stopping = True
        self._mailbox.wake()
        self._thread.join(patience_s)
        return not self.alive

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while True:
                messages = self._mailbox.take()
                self._obey()
                if self._stopping:
                    self.pipeline.drop(messages, "deactivated")
                    return
                if messages:
                    self.pipeline.process(messages)
                del messages  # may be large, and the next ones may take long to come
        except Abandoned:
            pass  # the next worker is already running

    def _obey(self) -> None:
        try:
            while True:
                self._orders.get_nowait()(self.pipeline)
        except Empty:
            pass
