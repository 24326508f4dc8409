"""Plays a recording onto real topics, for machines where ``ros2 bag play`` is not installed.

Messages are sent as the recorded bytes, at the recorded times divided by the rate. With
``restamp``, headers get that time, as if a camera had just taken the image.
"""

from __future__ import annotations

import importlib
import math
import queue
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rclpy.context import Context
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool

from rain_removal_ros.bags import Channel, Message, Recording, open_recording
from rain_removal_ros.bags.messages import COMPRESSED, IMAGE, store
from rain_removal_ros.errors import BagError
from rain_removal_ros.ros.process import Spinner
from rain_removal_ros.runtime.files import write_json
from rain_removal_ros.settings import LimitSettings

_AHEAD = 16
"""Messages that are read before they are due."""
_WARM_UP_EVERY_S = 0.2
_WARM_UP_S = 120.0
_REST_S = 1.0
_DEPTH = 5
_ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """How a recording is played."""

    rate: float = 1.0
    loop: bool = False
    clock_hz: float = 0.0
    """How often the recording's time is published on /clock, per second; 0 for never."""
    paused: bool = False
    topics: tuple[str, ...] = ()
    restamp: bool = False
    """Headers get the time of playing instead of the recorded one."""
    subscribers: tuple[str, ...] = ()
    """Topics that must have a subscriber before the first message is sent."""
    patience_s: float = math.inf
    """After so long the first message is sent all the same."""
    warm_up: str = ""
    """A topic: the first image is sent repeatedly until something is published there."""
    schedule: Path | None = None
    """A file for the played stamp of each recorded header stamp."""
    limits: LimitSettings = LimitSettings()

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise BagError(f"a recording is played at a rate above 0, not {self.rate:g}")
        if self.clock_hz < 0:
            raise BagError(f"the clock ticks 0 times a second or more, not {self.clock_hz:g}")


@dataclass
class Played:
    """What was sent."""

    messages: int = 0
    unknown: dict[str, str] = field(default_factory=dict)
    """Topics left out because their type is not installed here, with the type."""
    late_s: float = 0.0
    """The longest delay of a message."""


class Player:
    """One recording, played by one node."""

    def __init__(self, source: Path, options: PlayOptions, *, context: Context | None = None):
        self._options = options
        self._recording: Recording = open_recording(source, options.limits)
        self.node = Node("bag_player", context=context, use_global_arguments=context is None)
        self._stopping = threading.Event()
        self._running = threading.Event()
        self._spinner = Spinner(self.node, ended=self.stop)
        if not options.paused:
            self._running.set()
        self.played = Played()
        self._publishers: dict[Channel, Publisher[Any]] = {}
        self._stamped: dict[Channel, bool] = {}
        self._stamps: list[tuple[int, int]] = []
        self._clock = self.node.create_publisher(Clock, "/clock", 10) if options.clock_hz else None
        self.node.create_service(SetBool, "~/set_paused", self._set_paused)
        try:
            self._advertise()
        except BagError:
            self.close()
            raise

    # --- Control -----------------------------------------------------------------------------

    def stop(self) -> None:
        """End soon; can be called from any thread."""
        self._stopping.set()
        self._running.set()

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def close(self) -> None:
        self.stop()
        self._spinner.close()
        self.node.destroy_node()
        self._recording.__exit__(None, None, None)

    def _set_paused(self, request: Any, response: Any) -> Any:
        if request.data:
            self.pause()
        else:
            self.resume()
        response.success = True
        return response

    # --- Playing -----------------------------------------------------------------------------

    def play(self, began: Callable[[], object] = lambda: None) -> Played:
        """Play to the end or until stopped; ``began`` is called when the first message is due."""
        self._await_subscribers()
        self._warm_up()
        began()
        while not self._stopping.is_set():
            self._play_once(time.time_ns(), self._recording.start_ns)
            if not self._options.loop:
                break
        if self._options.schedule is not None:
            write_json(self._options.schedule, {"stamps": self._stamps})
        return self.played

    def _play_once(self, base_ns: int, first_ns: int) -> None:
        """Play once; what was recorded at ``first_ns`` is due at ``base_ns``."""
        for message in self._read_ahead():
            elapsed = round((message.stamp_ns - first_ns) / self._options.rate)
            waited = self._await(base_ns + elapsed, message.stamp_ns)
            base_ns += waited
            if self._stopping.is_set():
                return
            self._send(message, base_ns + elapsed)

    def _await(self, due_ns: int, stamp_ns: int) -> int:
        """Wait until something is due, or longer if paused; returns how much longer."""
        paused_ns = 0
        if not self._running.is_set():
            began = time.time_ns()
            self._running.wait()
            paused_ns = time.time_ns() - began
            due_ns += paused_ns
        tick_ns = round(1e9 / self._options.clock_hz) if self._options.clock_hz else 0
        while (left := due_ns - time.time_ns()) > 0:
            if self._stopping.wait(min(left, tick_ns or left) / 1e9):
                break
            if tick_ns and left > tick_ns:
                ahead = max(0, due_ns - time.time_ns())
                self._tick(stamp_ns - round(ahead * self._options.rate))
        if self._clock is not None:
            self._tick(stamp_ns)
        self.played.late_s = max(self.played.late_s, (time.time_ns() - due_ns) / 1e9)
        return paused_ns

    def _send(self, message: Message, due_ns: int) -> None:
        publisher = self._publishers.get(message.channel)
        if publisher is None:
            return
        data: bytes | bytearray = bytes(message.data)
        if self._options.restamp and self._stamped[message.channel]:
            data = bytearray(data)
            before = _stamp(data)
            after = due_ns - round((message.stamp_ns - before) / self._options.rate)
            _set_stamp(data, after)
            if message.channel.msgtype == IMAGE or message.channel.topic.endswith("/compressed"):
                self._stamps.append((before, after))
        publisher.publish(bytes(data))
        self.played.messages += 1

    def _tick(self, stamp_ns: int) -> None:
        assert self._clock is not None
        tick = Clock()
        tick.clock.sec, tick.clock.nanosec = divmod(stamp_ns, 1_000_000_000)
        self._clock.publish(tick)

    def _read_ahead(self) -> Iterator[Message]:
        """The messages, read in a thread of its own so that reading delays none."""
        waiting: queue.Queue[Message | None] = queue.Queue(_AHEAD)
        done = threading.Event()

        def put(message: Message | None) -> None:
            while not done.is_set():
                with suppress(queue.Full):
                    waiting.put(message, timeout=0.1)
                    return

        def read() -> None:
            for message in self._recording.messages(self._publishers):
                put(message)
                if done.is_set():
                    return
            put(None)

        reader = threading.Thread(target=read, name="read", daemon=True)
        reader.start()
        try:
            while (message := waiting.get()) is not None:
                yield message
        finally:
            done.set()
            reader.join()

    # --- Before the start --------------------------------------------------------------------

    def _advertise(self) -> None:
        wanted = set(self._options.topics)
        known = {channel.topic for channel in self._recording.channels}
        if missing := sorted(wanted - known):
            there = ", ".join(sorted(known))
            raise BagError(f"{self._recording.path} has no topic {missing[0]}; it has {there}")
        for channel in self._recording.channels:
            if wanted and channel.topic not in wanted:
                continue
            if (kind := message_class(channel.msgtype)) is None:
                self.played.unknown[channel.topic] = channel.msgtype
                continue
            profile = QoSProfile(depth=_DEPTH)
            self._publishers[channel] = self.node.create_publisher(kind, channel.topic, profile)
            self._stamped[channel] = has_header(channel.msgtype)

    def _await_subscribers(self) -> None:
        deadline = time.monotonic() + self._options.patience_s
        awaited = self._awaited()
        while missing := [
            topic
            for topic, publishers in awaited.items()
            if not any(each.get_subscription_count() for each in publishers)
        ]:
            if time.monotonic() > deadline:
                self.node.get_logger().warning(f"nothing subscribes to {', '.join(missing)}")
                return
            if self._stopping.wait(0.02):
                return

    def _awaited(self) -> dict[str, list[Publisher[Any]]]:
        """The publishers of each topic that needs a subscriber; compressed images will do."""
        awaited: dict[str, list[Publisher[Any]]] = {}
        for topic in self._options.subscribers:
            names = (topic, f"{topic}/compressed")
            awaited[topic] = [p for c, p in self._publishers.items() if c.topic in names]
            if not awaited[topic]:
                images = [c.topic for c in self._publishers if c.msgtype in (IMAGE, COMPRESSED)]
                there = f"images are on {', '.join(images)}" if images else "there are no images"
                self.node.get_logger().warning(
                    f"{self._recording.path} has no topic {topic}; {there}"
                )
        return {topic: publishers for topic, publishers in awaited.items() if publishers}

    def _warm_up(self) -> None:
        """Send the first image until it is answered, so that no start-up is measured."""
        if not self._options.warm_up:
            return
        answered = threading.Event()
        images = [c for c in self._publishers if c.msgtype == IMAGE or "/compressed" in c.topic]
        wanted = [c for c in images if c.topic in self._options.subscribers] or images
        subscription = self.node.create_subscription(
            message_class(wanted[0].msgtype), self._options.warm_up,
            lambda _: answered.set(), QoSProfile(depth=1), raw=True,
        )  # fmt: skip
        first = next(self._recording.messages(wanted), None)
        if first is None:
            raise BagError(f"{self._recording.path} holds no image that can be read")
        began = time.monotonic()
        while not answered.is_set() and not self._stopping.is_set():
            data = bytearray(first.data)
            _set_stamp(data, time.time_ns())
            self._publishers[first.channel].publish(bytes(data))
            if answered.wait(_WARM_UP_EVERY_S):
                break
            if time.monotonic() - began > _WARM_UP_S:
                raise BagError(f"nothing came out on {self._options.warm_up} in {_WARM_UP_S:g} s")
        self.node.destroy_subscription(subscription)
        # A slow network may still be processing another of these.
        self._stopping.wait(_REST_S + time.monotonic() - began)


def play(
    source: Path, options: PlayOptions, *, began: Callable[[], object] = lambda: None
) -> Played:
    """Play a recording as this process's only work; SIGINT and SIGTERM end it early."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        player = Player(source, options)
        handlers = [(s, signal.signal(s, lambda *_: player.stop())) for s in _ENDING]
        try:
            return player.play(began)
        finally:
            player.close()
            for number, handler in handlers:
                signal.signal(number, handler)
    finally:
        rclpy.try_shutdown()


def message_class(msgtype: str) -> Any:
    """The class of a message type; None where its package is not installed."""
    package, _, name = msgtype.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        return None


def has_header(msgtype: str) -> bool:
    """Whether a type begins with a header, whose stamp can be set."""
    if msgtype not in store().fielddefs:
        return False
    fields = store().fielddefs[msgtype][1]
    return bool(fields) and fields[0][1][1] == "std_msgs/msg/Header"


def _stamp(data: bytes | bytearray) -> int:
    sec, nanosec = struct.unpack_from(_order(data) + "iI", data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def _set_stamp(data: bytearray, stamp_ns: int) -> None:
    struct.pack_into(_order(data) + "iI", data, 4, *divmod(stamp_ns, 1_000_000_000))


def _order(data: bytes | bytearray) -> str:
    return "<" if data[1] & 1 else ">"
