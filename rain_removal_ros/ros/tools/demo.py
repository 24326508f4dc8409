"""The demo over ROS: a simulated camera and the node in processes of their own, and a recorder.

They have a domain of the ROS graph to themselves and do not leave this machine. Whatever happens,
both processes are ended before this returns.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
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

_START_S = 120.0
"""How long to wait for the first derained frame; a busy machine takes a while to start Python."""
_TELL_S = 1.0
_GRACE_S = 10.0
_DOMAINS = 100
_PR_SET_PDEATHSIG = 1
_TOPICS = ("image", "image_clean", "image_derained", "attention")


class DemoError(RainRemovalError):
    """A process that the demo needs has ended."""

    exit_code = 1


def record(plan: DemoPlan, tell: Tell) -> tuple[list[DemoFrame], str]:
    """Run camera and node for as long as planned; what came through, and a line about it."""
    # Before anything is started: without weights there is nothing to show.
    weights = checkpoints.resolve(plan.weights or "auto")
    os.environ.update(_surroundings())
    with _terminated_like_interrupted(), _running(_commands(plan, weights)) as processes:
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
    """Say how it goes until enough was recorded, or it takes too long."""
    tell("starting a simulated camera and the node, each a process of its own")
    deadline, told = time.monotonic() + _START_S, ""
    while time.monotonic() < deadline:
        if recorder.wait(_TELL_S):
            # From the first derained frame on.
            deadline = min(deadline, recorder.began + plan.seconds)
        if (status := recorder.status()) != told:
            tell(status)
            told = status
        for process in processes:
            if process.poll() is not None:
                name = str(process.args[2]).rpartition(".")[2]  # type: ignore[index]
                raise DemoError(f"the process {name} has ended with {process.returncode}")


class Recorder:
    """Subscribes to everything and keeps what belongs together, by stamp."""

    def __init__(self, domain: int) -> None:
        self.began = 0.0
        """When the first derained frame came."""
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
        """Let time pass; returns whether any derained frame has come."""
        if not self._first.is_set():
            return self._first.wait(seconds)
        time.sleep(seconds)
        return True

    def status(self) -> str:
        """How it goes, in a line."""
        with self._lock:
            if not self._arrivals["image"]:
                return self._trouble or "the camera renders its loop, the node loads its network"
            line = f"in {self._rate('image'):4.1f} Hz, out {self._rate('image_derained'):4.1f} Hz"
            if self._latency_ms:
                line += f", latency {np.median(self._latency_ms):4.0f} ms"
            line += f", dropped {self._dropped.total()}, derained {len(self._kept['attention'])}"
            return f"{line}  {self._trouble}".rstrip()

    def summary(self) -> str:
        """The same, of all that was recorded."""
        with self._lock:
            middle = np.median(self._latency_ms) if self._latency_ms else np.nan
            return (
                f"{self._rate('image'):.1f} Hz in, {self._rate('attention'):.1f} Hz derained out, "
                f"latency {middle:.0f} ms, {self._dropped.total()} dropped"
            )

    def moments(self) -> list[DemoFrame]:
        """All frames that were derained and of which everything has come, in order."""
        with self._lock:
            complete = set.intersection(*(set(messages) for messages in self._kept.values()))
            return [self._moment(stamp) for stamp in sorted(complete)]

    def close(self) -> None:
        """Take no more."""
        self._spinner.close()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _take(self, topic: str, image: Image) -> None:
        stamp = codec.stamp_ns(image.header)
        with self._lock:
            self._kept[topic][stamp] = image
            self._arrivals[topic].append(time.monotonic())
            # Frames go through untouched while the network loads; only derained ones have
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
        """Messages a second, over the last few seconds."""
        recent = [at for at in self._arrivals[topic] if at > self._arrivals[topic][-1] - 5]
        # The first few may have waited and come all at once, which says nothing of a rate.
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
        # A slow machine is to show a slow network rather than none.
        "safety.watchdog_s": 30.0,
    }
    return [
        [sys.executable, "-m", f"rain_removal_ros.ros.{module}", "--ros-args"]
        + [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
        + ["--log-level", "warn"]
        for module, given in (("tools.sim_camera", camera), ("node", node))
    ]


def _surroundings() -> dict[str, str]:
    """A domain for this process alone, on this machine alone, with large images let through."""
    return {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % _DOMAINS),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        # The network's threads share the processor with the camera's and the recorder's.
        "OMP_WAIT_POLICY": "PASSIVE",
        **profile_environment(),
    }


@contextmanager
def _running(commands: list[list[str]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with this block, and with this process, however it ends."""
    libc = ctypes.CDLL(None)

    def follow() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, preexec_fn=follow))
        yield processes
    finally:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _GRACE_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Leave by an exception on SIGTERM and SIGHUP too, so that everything is tidied up."""

    def interrupt(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    ending = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
