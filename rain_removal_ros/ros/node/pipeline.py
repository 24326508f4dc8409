"""Connects the mailbox with the topics: frames go through the cameras, and results are published.

Runs in the worker's thread, one batch after another. Every frame is published or dropped, and
counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float32

from rain_removal_ros import codec
from rain_removal_ros.camera import Camera, Cameras, Demand, MessageTypes, Result
from rain_removal_ros.ros.node.mailbox import ReceivedMessage
from rain_removal_ros.ros.node.statistics import Statistics
from rain_removal_ros.ros.node.topics import Topics
from rain_removal_ros.ros.node.watchdog import Watchdog
from rain_removal_ros.runtime.threads import compute_with
from rain_removal_ros.settings import Settings

if TYPE_CHECKING:
    from rain_removal_ros.engines import LoadedEngine

_FAULTS_BEFORE_RELOAD = 2
_TYPES = MessageTypes(Image, CompressedImage, lambda level: Float32(data=level))


class Surroundings(Protocol):
    """What the pipeline needs from the node; called in the worker's thread."""

    def now_ns(self) -> int:
        """The node's clock, which may be simulated; 0 while simulated time has not begun."""
        ...

    def say(self, text: str) -> None:
        """Write a throttled line to the log."""
        ...

    def broken(self, reason: str, retry_in_s: float) -> None:
        """The network keeps failing, so another one must be loaded."""
        ...


class Pipeline:
    """The frames of all cameras, and one network."""

    def __init__(
        self,
        cameras: Sequence[tuple[Topics, Statistics]],
        settings: Settings,
        around: Surroundings,
        watch: Watchdog,
    ) -> None:
        self._topics = [topics for topics, _ in cameras]
        self._statistics = [statistics for _, statistics in cameras]
        self._settings = settings
        self._around = around
        self.cameras = Cameras(
            [Camera(each.raw_topic, _TYPES, each.calibrations) for each in self._topics],
            settings,
            clock=time.monotonic,
            guard=watch,
            log=around.say,
        )
        self._watch = watch
        self._in_work: set[int] = set()
        self._sizes: dict[int, tuple[int, int]] = {}
        self.unusual = False
        """Whether a frame has come that may have left more memory behind than others."""

    def give_up(self, reason: str) -> None:
        """Count the current frames as lost: their thread was abandoned."""
        for index in self._in_work:
            self._statistics[index].dropped(reason)

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self.cameras.apply(settings)

    def use(self, engine: LoadedEngine) -> None:
        """Use another network from now on."""
        compute_with(self._settings.engine.threads)
        self.cameras.use(engine, pixel_bytes=engine.pixel_bytes)

    def drop(self, messages: Mapping[int, ReceivedMessage], reason: str) -> None:
        """Count frames that are not processed."""
        for index in messages:
            self._statistics[index].dropped(reason)

    def process(self, messages: Mapping[int, ReceivedMessage]) -> None:
        """Process the newest frame of each camera that has one."""
        fault = ""
        with self._watch.watching():
            self._in_work = set(messages)
            for result in self.cameras.process(self._arrivals(messages)):
                self._publish(result, messages[result.camera])
                self._note_size(result)
                fault = result.fault.text if result.fault is not None else fault
        if self.cameras.failures >= _FAULTS_BEFORE_RELOAD:
            retry_in_s = self.cameras.retry_in_s
            self.cameras.do_without("fault")
            self._around.broken(fault, retry_in_s)

    def _arrivals(
        self, messages: Mapping[int, ReceivedMessage]
    ) -> Iterator[tuple[int, Any, Demand]]:
        for index, received in messages.items():
            arrival = None
            with self._accounting(index):
                if self._too_old(received):
                    self._drop(index, "too old")
                else:
                    arrival = index, received.message, self._topics[index].demand()
            if arrival is not None:
                yield arrival

    @contextmanager
    def _accounting(self, index: int) -> Iterator[None]:
        """If something unforeseen happens to a frame, drop that frame only."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a robot keeps its camera
            self._drop(index, "error")
            self._around.say(f"a frame was lost to {type(error).__name__}: {error}")

    def _drop(self, index: int, reason: str) -> None:
        with self._watch.settling():
            self._in_work.discard(index)
            self._statistics[index].dropped(reason)

    def _too_old(self, received: ReceivedMessage) -> bool:
        limit, now = self._settings.input.max_age_ms, self._around.now_ns()
        stamp = codec.stamp_ns(received.message.header)
        return limit > 0 and now > 0 and now - stamp > limit * 1e6

    def _publish(self, result: Result, received: ReceivedMessage) -> None:
        """Publish the result of a frame, and count it."""
        with self._accounting(result.camera):
            for output, message in result.messages:
                self._watch.check()
                self._topics[result.camera].publish(output, message)
            now_ns, stamp_ns = self._around.now_ns(), codec.stamp_ns(received.message.header)
            with self._watch.settling():
                self._in_work.discard(result.camera)
                self._statistics[result.camera].count(
                    result,
                    latency_s=(now_ns - stamp_ns) / 1e9 if now_ns else None,
                    processing_s=time.monotonic() - received.arrived,
                )

    def _note_size(self, result: Result) -> None:
        """Frames that could not be decoded, or whose size changed, are unusual."""
        if result.frame is None:
            self.unusual = self.unusual or result.fault is not None
            return
        size = result.frame.height, result.frame.width
        self.unusual = self.unusual or self._sizes.get(result.camera, size) != size
        self._sizes[result.camera] = size
