"""The demo over ROS: a simulated camera and the node as separate processes, and a recorder.

They have a ROS domain of their own and do not leave this machine. Both processes are ended before
this returns, whatever happens.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from rain_removal_ros import checkpoints, codec
from rain_removal_ros.demo import DemoFrame, DemoPlan, Tell
from rain_removal_ros.errors import RainRemovalError
from rain_removal_ros.ros.process import Spinner
from rain_removal_ros.runtime.dds import profile_environment
from rain_removal_ros.runtime.processes import running

_START_S = 120.0
"""How long to wait for the first derained frame; starting Python takes a while on a busy
machine."""
_TELL_S = 1.0
_DOMAINS = 100
_TOPICS = ("image", "image_clean", "image_derained", "attention")


class DemoError(RainRemovalError):
    """A process that the demo needs has ended."""

    exit_code = 1


def record(plan: DemoPlan, tell: Tell) -> tuple[list[DemoFrame], str]:
    """Run camera and node for the planned time; returns the frames, and a line about them."""
    # Checked before anything starts: without weights there is nothing to show.
    weights = checkpoints.resolve(plan.weights or "auto")
    os.environ.update(_surroundings())
    with _terminated_like_interrupted(), running(*_commands(plan, weights)) as processes:
        recorder = Recorder(int(os.environ["ROS_DOMAIN_ID"]))
        try:
            _watch(recorder, plan, processes, tell)
        finally:
            recorder.close()
    name = checkpoints.name_of(weights)
    return recorder.moments(), f"{name} over ROS 2, live: {recorder.summary()}"


def _watch(
    recorder: Recorder, plan: DemoPlan, processes: list[subprocess.Popen[bytes]], tell: Tell
) -> None:
    """Report progress until enough was recorded or it takes too long."""
    tell("starting a simulated camera and the node as separate processes")
    deadline, told = time.monotonic() + _START_S, ""
    while time.monotonic() < deadline:
        if recorder.wait(_TELL_S):
            # Counted from the first derained frame.
            deadline = min(deadline, recorder.began + plan.seconds)
        if (status := recorder.status()) != told:
            tell(status)
            told = status
        for process in processes:
            if process.poll() is not None:
                name = str(process.args[2]).rpartition(".")[2]  # type: ignore[index]
                raise DemoError(f"the process {name} has ended with {process.returncode}")


class Recorder:
    """Subscribes to all topics and joins messages by stamp."""

    def __init__(self, domain: int) -> None:
        self.began = 0.0
        """When the first derained frame arrived."""
        self._lock = threading.Lock()
        self._first = threading.Event()
        self._kept: dict[str, dict[int, Image]] = {topic: {} for topic in _TOPICS}
        self._arrivals: dict[str, deque[float]] = {topic: deque(maxlen=512) for topic in _TOPICS}
        self._latency_ms: deque[float] = deque(maxlen=512)
        self._dropped: Counter[str] = Counter()
        self._trouble = ""
        self._context = Context()
        self._context.init(args=[], domain_id=domain)
        self._node = Node("demo", context=self._context, use_global_arguments=False)
        for topic in _TOPICS:
            self._node.create_subscription(
                Image, topic, functools.partial(self._take, topic), QoSProfile(depth=10)
            )
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._listen, 10)
        self._spinner = Spinner(self._node)

    def wait(self, seconds: float) -> bool:
        """Let time pass; returns whether any derained frame has arrived."""
        if not self._first.is_set():
            return self._first.wait(seconds)
        time.sleep(seconds)
        return True

    def status(self) -> str:
        """The progress, in one line."""
        with self._lock:
            if not self._arrivals["image"]:
                return self._trouble or "the camera renders its loop, the node loads its network"
            line = f"in {self._rate('image'):4.1f} Hz, out {self._rate('image_derained'):4.1f} Hz"
            if self._latency_ms:
                line += f", latency {np.median(self._latency_ms):4.0f} ms"
            line += f", dropped {self._dropped.total()}, derained {len(self._kept['attention'])}"
            return f"{line}  {self._trouble}".rstrip()

    def summary(self) -> str:
        """The same for the whole recording."""
        with self._lock:
            middle = np.median(self._latency_ms) if self._latency_ms else np.nan
            return (
                f"{self._rate('image'):.1f} Hz in, {self._rate('attention'):.1f} Hz derained out, "
                f"latency {middle:.0f} ms, {self._dropped.total()} dropped"
            )

    def moments(self) -> list[DemoFrame]:
        """All derained frames with all their messages, in order."""
        with self._lock:
            complete = set.intersection(*(set(messages) for messages in self._kept.values()))
            return [self._moment(stamp) for stamp in sorted(complete)]

    def close(self) -> None:
        """Stop recording."""
        self._spinner.close()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _take(self, topic: str, image: Image) -> None:
        stamp = codec.stamp_ns(image.header)
        with self._lock:
            self._kept[topic][stamp] = image
            self._arrivals[topic].append(time.monotonic())
            # Frames pass through unchanged while the network loads; only derained ones have
            # attention.
            if topic == "attention":
                if not self._first.is_set():
                    self.began = time.monotonic()
                    self._first.set()
                self._latency_ms.append((time.time_ns() - stamp) / 1e6)

    def _listen(self, diagnostics: DiagnosticArray) -> None:
        with self._lock:
            self._trouble = ""
            for status in diagnostics.status:
                values = {pair.key: pair.value for pair in status.values}
                self._trouble = self._trouble or values.get("trouble", "")
                for key, value in values.items():
                    kind, _, reason = key.partition(": ")
                    if kind == "dropped" and reason != "nobody subscribes":
                        self._dropped[reason] = int(value)

    def _rate(self, topic: str) -> float:
        """Messages per second, over the last few seconds."""
        recent = [at for at in self._arrivals[topic] if at > self._arrivals[topic][-1] - 5]
        # The first few may have waited and arrived all at once, which distorts the rate.
        if len(recent) < 2 or recent[-1] - recent[0] < 0.5:
            return 0.0
        return (len(recent) - 1) / (recent[-1] - recent[0])

    def _moment(self, stamp: int) -> DemoFrame:
        rainy, reference, derained, attention = (
            codec.decode(self._kept[topic][stamp]).image for topic in _TOPICS
        )
        return DemoFrame(stamp, rainy, derained, np.ascontiguousarray(attention[..., 0]), reference)


# --- Processes -------------------------------------------------------------------------------


def _commands(plan: DemoPlan, weights: Path) -> list[list[str]]:
    camera = {
        "scene.width": plan.width,
        "scene.height": plan.height,
        "scene.fps": plan.fps,
        "scene.seed": plan.seed,
        "rain.severity": plan.severity,
        "loop_s": plan.seconds,
    }
    node = {
        "network.weights": str(weights),
        # A slow machine should show a slow network instead of none.
        "safety.watchdog_s": 30.0,
    }
    return [
        ["-m", f"rain_removal_ros.ros.{module}", "--ros-args"]
        + [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
        + ["--log-level", "warn"]
        for module, given in (("tools.sim_camera", camera), ("node", node))
    ]


def _surroundings() -> dict[str, str]:
    """A ROS domain of its own on this machine alone, with the profile for large images."""
    return {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % _DOMAINS),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        # The network's threads share the processor with the camera's and the recorder's.
        "OMP_WAIT_POLICY": "PASSIVE",
        **profile_environment(),
    }


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that everything is cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    ending = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
