"""Measures the live node on a recording, and compares several settings.

Player, node and recorder are separate processes that communicate over DDS, at the recording's own
rate, so the figures are those of a robot. The frames that came through are then scored like those
of a replay, so that a fast but poor setting and a slow but good one can be compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np

from rain_removal_ros import codec
from rain_removal_ros.bags.frame_scores import FrameScorer
from rain_removal_ros.bags.messages import Channel, Message, decoded
from rain_removal_ros.bags.reading import Recording, open_recording
from rain_removal_ros.bags.topics import CameraTopics, camera_topics
from rain_removal_ros.errors import BagError, FrameError
from rain_removal_ros.frames import Frame
from rain_removal_ros.parsing import from_yaml
from rain_removal_ros.runtime.dds import profile_environment
from rain_removal_ros.runtime.processes import end, running
from rain_removal_ros.settings import Settings, flatten, refuse, replace

_READY_S = 120.0
_DRAIN_S = 15.0
"""The time, after the last frame was sent, in which the node must account for all frames."""
_DIAGNOSTICS = "/diagnostics"
_DERAINED = "/bench/image_derained"
_UNUSABLE = {
    "input.cameras": "one camera is played, the one of --topic",
    "input.transport": "the recording decides",
    "node.autostart": "the node would not start",
    "node.diagnostics_s": "the benchmark sets it itself",
}
"""Settings that the benchmark needs itself, and why."""


@dataclass(frozen=True)
class Attempt:
    """One setting to measure."""

    name: str
    settings: Settings


def attempts(base: Settings, wanted: Sequence[str]) -> list[Attempt]:
    """Settings from ``NAME:key=value,key=value``; without any, only the base."""
    found = []
    for text in wanted:
        name, _, rest = text.partition(":")
        if "=" in name:
            raise BagError(f"--try is NAME:setting=value,setting=value, not {text!r}")
        changes = {}
        for pair in filter(None, rest.split(",")):
            key, equals, value = pair.partition("=")
            if not equals:
                raise BagError(f"--try is NAME:setting=value,setting=value, not {text!r}")
            try:
                changes[key.strip()] = from_yaml(value) if value.strip() else ""
            except ValueError as error:
                raise BagError(f"--try: the value of {key} is not YAML: {error}") from error
        found.append(Attempt(name, replace(base, changes)))
    names = [attempt.name for attempt in found]
    if len(set(names)) < len(names):
        raise BagError("--try names a setting twice")
    return found or [Attempt("as set", base)]


def check(settings: Settings) -> None:
    """Refuse settings that a benchmark of the live node cannot honour."""
    refuse(settings, _UNUSABLE, "bag-bench")


def online(
    source: Path, attempt: Attempt, *, topic: str = "", reference: str = "", rate: float = 1.0
) -> dict[str, Any]:
    """Play a recording to the node with the settings of ``attempt``; see ``measure``."""
    check(attempt.settings)
    _check_weights(attempt.settings)
    with open_recording(source, attempt.settings.limits) as recording:
        cameras = camera_topics(
            recording, topics=[topic] if topic else [], reference=reference, ending="bench"
        )
        if len(cameras) > 1:
            raise BagError(
                f"{source} has several cameras; choose one with --topic: "
                + ", ".join(camera.image.topic for camera in cameras)
            )
        with tempfile.TemporaryDirectory(prefix="rain-removal-bench-") as folder:
            run = _NodeRun(source.absolute(), cameras[0], attempt, Path(folder), rate)
            seen = run.run()
            return measure(recording, cameras[0], attempt, seen)


@dataclass
class NodeRecording:
    """The results of a run."""

    stamps: dict[int, int]
    """The recording's stamp of each frame, by the stamp it was played with."""
    recorded: Path
    seconds: float
    cpu_percent: float
    memory_mib: float


class _NodeRun:
    """The three processes."""

    def __init__(
        self, source: Path, camera: CameraTopics, attempt: Attempt, folder: Path, rate: float
    ) -> None:
        self._source = source
        self._camera = camera
        self._attempt = attempt
        self._folder = folder
        self._rate = rate
        self._logs: dict[int, Path] = {}
        self._environment = {**os.environ, **_middleware(), "PYTHONUNBUFFERED": "1"}

    def run(self) -> NodeRecording:
        recorded, schedule = self._folder / "recorded", self._folder / "schedule.json"
        topic = self._camera.image.topic
        with self._process(*self._node()) as node, self._process(
            "-m", "rain_removal_ros.ros.tools.recorder", "-o", str(recorded),
            f"{_DERAINED}=sensor_msgs/msg/Image",
        ) as recorder:  # fmt: skip
            heard = _lines(recorder)
            self._await_ready(heard, node, recorder)
            with self._process(
                "-m", "rain_removal_ros", "bag-play", str(self._source), "--restamp",
                "--rate", str(self._rate), "--topics", topic, "--wait-for", topic,
                "--warm-up", _DERAINED, "--schedule", str(schedule),
                "--limits.expansion", str(self._attempt.settings.limits.expansion),
                "--limits.chunk-mb", str(self._attempt.settings.limits.chunk_mb),
            ) as player:  # fmt: skip
                assert player.stdout
                player.stdout.readline()  # waits until the player says that it begins, or ends
                began, cpu = time.monotonic(), _cpu_seconds(node.pid)
                self._await_end(player, node)
            seconds = time.monotonic() - began
            cpu = _cpu_seconds(node.pid) - cpu
            _await_settled(heard)
            memory = _peak_mib(node.pid)
            end(recorder)
        pairs = json.loads(schedule.read_text())["stamps"]
        stamps = {new: old for old, new in pairs}
        return NodeRecording(stamps, recorded, seconds, 100 * cpu / seconds, memory)

    def _node(self) -> list[str]:
        topic = self._camera.image.topic
        compressed = topic.endswith("/compressed")
        base = topic.removesuffix("/compressed")
        remaps = [f"image:={base}", f"image_derained:={_DERAINED}"]
        changes = _changed(self._attempt.settings)
        changes["node.diagnostics_s"] = 0.2
        changes["input.transport"] = "compressed" if compressed else "raw"
        parameters = [f"{name}:={json.dumps(value)}" for name, value in changes.items()]
        flags = [word for rule in remaps for word in ("-r", rule)]
        flags += [word for rule in parameters for word in ("-p", rule)]
        return ["-m", "rain_removal_ros.ros.node", "--ros-args", "--log-level", "warn", *flags]

    @contextmanager
    def _process(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """A process that ends with the block; its stderr is kept for errors."""
        log = self._folder / f"{command[1]}-{len(list(self._folder.iterdir()))}.log"
        with (
            log.open("w") as errors,
            running(
                command, env=self._environment, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as (process,),
        ):
            self._logs[process.pid] = log
            yield process

    def _await_ready(
        self, heard: Queue[str], node: subprocess.Popen[str], recorder: subprocess.Popen[str]
    ) -> None:
        """Wait until the recorder reports a loaded network."""
        deadline = time.monotonic() + _READY_S
        while not _hear(heard, "ready", 0.1):
            for process, name in ((node, "the node"), (recorder, "the recorder")):
                if process.poll() is not None:
                    raise BagError(f"{name} ended at once: {self._last_line(process)}")
            if time.monotonic() > deadline:
                raise BagError(
                    f"the node has no network after {_READY_S:g} s: {self._last_line(node)}"
                )

    def _await_end(self, player: subprocess.Popen[str], node: subprocess.Popen[str]) -> None:
        while player.poll() is None:
            if node.poll() is not None:
                raise BagError(f"the node ended on the way: {self._last_line(node)}")
            try:
                player.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        if player.returncode:
            raise BagError(f"the player failed: {self._last_line(player)}")

    def _last_line(self, process: subprocess.Popen[str]) -> str:
        lines = self._logs[process.pid].read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"no message; exit code {process.returncode}"


def measure(
    recording: Recording, camera: CameraTopics, attempt: Attempt, seen: NodeRecording
) -> dict[str, Any]:
    """The figures of a run: latency, drops by reason, rate, load and quality."""
    latencies: list[float] = []
    arrivals: list[int] = []
    scorer = FrameScorer()
    with open_recording(seen.recorded) as recorded:
        frames = _frames(recorded, seen.stamps, latencies, arrivals)
        _score(recording, camera, frames, scorer)
        counts = _counts(recorded, min(seen.stamps, default=0))
    if not latencies:
        raise BagError(
            f"{attempt.name}: no frame came through; {counts or 'no diagnostics either'}"
        )
    sent = len(seen.stamps)
    dropped = counts["dropped"]
    ways = {
        "lost on the way to the node": sent - counts["all"].get("received", 0),
        "lost on the way back": counts["all"].get("published", 0) - len(latencies),
    }
    dropped.update({way: count for way, count in ways.items() if count > 0})
    span = (max(arrivals) - min(arrivals)) / 1e9
    row: dict[str, Any] = {
        "name": attempt.name,
        "settings": flatten(attempt.settings),
        "sent": sent,
        "received": len(latencies),
        "lost": 1 - len(latencies) / max(1, sent),
        "rate_hz": (len(arrivals) - 1) / span if span > 0 else 0.0,
        "cpu_percent": seen.cpu_percent,
        "memory_mib": seen.memory_mib,
        **counts,
    }
    for name, share in (("median", 50), ("p95", 95), ("p99", 99), ("max", 100)):
        row[f"latency_ms_{name}"] = float(np.percentile(latencies, share))
    (figures,) = scorer.summary().values()
    row["quality"] = {k: v for k, v in figures.items() if not k.startswith("network_ms")}
    return row


def _frames(
    recorded: Recording, stamps: Mapping[int, int], latencies: list[float], arrivals: list[int]
) -> Iterator[Frame]:
    """The derained frames that came through, with the recording's stamps."""
    wanted = [channel for channel in recorded.channels if channel.topic == _DERAINED]
    for message in recorded.messages(wanted):
        frame = codec.decode(decoded(message.channel, message.data))
        if (original := stamps.get(frame.stamp_ns)) is None:
            continue  # of the warm-up
        latencies.append((message.stamp_ns - frame.stamp_ns) / 1e6)
        arrivals.append(message.stamp_ns)
        yield Frame(frame.image, original, frame.frame_id)


def _score(
    recording: Recording, camera: CameraTopics, derained: Iterator[Frame], scorer: FrameScorer
) -> None:
    """Score what came out against what came in and the reference."""
    wanted = [camera.image, *([camera.reference] if camera.reference else [])]
    waiting = next(derained, None)
    for message in recording.messages(wanted):
        frame = _decoded(message)
        if frame is None:
            continue
        if message.channel == camera.reference:
            scorer.note_truth(camera.image.topic, frame)
        elif waiting is not None and frame.stamp_ns == waiting.stamp_ns:
            scorer.note(
                camera.image.topic, frame, waiting.image, compared=camera.reference is not None
            )
            waiting = next(derained, None)
    for _ in derained:
        pass  # so that all are counted


def _decoded(message: Message) -> Frame | None:
    try:
        return codec.decode(decoded(message.channel, message.data))
    except FrameError:
        return None


# --- Diagnostics ---------------------------------------------------------------------------------


def diagnosis(channel: Channel, data: bytes | memoryview) -> dict[str, str]:
    """All values in a message on /diagnostics, by key."""
    found = decoded(channel, data)
    return {pair.key: pair.value for status in found.status for pair in status.values}


def _counts(recorded: Recording, start_ns: int) -> dict[str, dict[str, int]]:
    """What the node counted from the first frame on."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    wanted = [channel for channel in recorded.channels if channel.topic == _DIAGNOSTICS]
    for message in recorded.messages(wanted):
        after = diagnosis(message.channel, message.data)
        if message.stamp_ns < start_ns:
            before = after
    counts: dict[str, dict[str, int]] = {
        "all": {}, "dropped": {}, "passed": {}, "faults": {}, "resets": {},
    }  # fmt: skip
    for key, value in after.items():
        kind, colon, reason = key.partition(": ")
        kind, reason = (kind, reason) if colon else ("all", key)
        if kind in counts and value.isdigit():
            count = int(value) - int(before.get(key, "0"))
            if count > 0:
                counts[kind][reason] = count
    return counts


# --- Processes -----------------------------------------------------------------------------------


def _check_weights(settings: Settings) -> None:
    """Report bad weights at once; the node would keep trying."""
    from rain_removal_ros import checkpoints

    checkpoints.choose(settings.network)


def _changed(settings: Settings) -> dict[str, Any]:
    """What differs from the defaults; paths are absolute, as the node starts in another folder."""
    defaults = flatten(Settings())
    changes = {k: v for k, v in flatten(settings).items() if v != defaults[k]}
    weights = changes.get("network.weights", "")
    if weights and Path(weights).is_file():
        changes["network.weights"] = str(Path(weights).absolute())
    return changes


def _middleware() -> dict[str, str]:
    """A ROS domain of its own, and room for large images."""
    return {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        **profile_environment(),
    }


def _lines(process: subprocess.Popen[str]) -> Queue[str]:
    """The lines that a process prints."""
    lines: Queue[str] = Queue()

    def listen() -> None:
        assert process.stdout
        with suppress(ValueError):  # closed at the end
            for line in process.stdout:
                lines.put(line.strip())

    threading.Thread(target=listen, daemon=True).start()
    return lines


def _hear(lines: Queue[str], word: str, timeout_s: float) -> bool:
    """Wait for a word; returns whether it came."""
    deadline = time.monotonic() + timeout_s
    with suppress(Empty):
        while lines.get(timeout=max(0.0, deadline - time.monotonic())) != word:
            pass
        return True
    return False


def _await_settled(heard: Queue[str]) -> None:
    """Wait until the node has accounted for all frames."""
    with suppress(Empty):
        while True:
            heard.get_nowait()
    # The first may still be from before the last frame.
    for _ in range(2):
        _hear(heard, "settled", _DRAIN_S)


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    """Peak memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
