"""Derains the cameras of a recording and writes a new recording with the results added.

Every frame goes through the cameras as in the node, in order, on the recording's own time. On a CPU
the same recording gives the same bytes, unless ``safety.budget_ms`` limits the time per frame. Only
a few frames are in memory, however long the recording is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rain_removal_ros import codec
from rain_removal_ros.bags.messages import (
    COMPRESSED,
    FLOAT,
    IMAGE,
    Message,
    decoded,
    encoded,
    header,
    new,
)
from rain_removal_ros.bags.reading import Recording, open_recording
from rain_removal_ros.bags.topics import CameraTopics, camera_topics
from rain_removal_ros.bags.writing import BagWriter, create
from rain_removal_ros.camera import Camera, Cameras, MessageTypes, Outcome, Result
from rain_removal_ros.errors import BagError, EngineError, FrameError
from rain_removal_ros.frames import Frame
from rain_removal_ros.settings import Settings, refuse

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine

_AHEAD = 16
"""Messages that calibrations are read ahead of images: many cameras send the image first."""
_UNUSABLE = {
    "input.cameras": "choose cameras with --topics",
    "input.transport": "choose cameras with --topics",
    "input.max_age_ms": "no frame of a recording is late",
    "safety.watchdog_s": "a replay waits for its network",
    "safety.memory_mb": "what is derained would depend on what else the process does",
}
"""Settings that a replay cannot honour, and why."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """What of a recording is derained, and how the result is written."""

    topics: tuple[str, ...] = ()
    """Image topics; empty for all that are found."""
    in_place_of: tuple[str, ...] = ()
    """Image topics that are replaced by their derained images."""
    ending: str = "derained"
    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1
    """Derain every N-th frame of each camera only."""
    reference: str = ""
    """The topic of the same scene without rain; empty for the usual name."""
    compression: str = "none"
    force: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BagError(f"--every must be 1 or more, not {self.every}")
        if self.start_s < 0 or (self.duration_s is not None and self.duration_s <= 0):
            raise BagError("the start must not be negative, and the duration must be above 0")


@dataclass
class CameraTally:
    """What happened to one camera's frames."""

    topic: str
    clean_topic: str
    cleaned: int = 0
    passed: dict[str, int] = field(default_factory=dict)
    """Frames that passed through, by reason."""
    dropped: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    """Left out, because only every N-th was wanted."""
    unreadable: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    resets: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    last_fault: str = ""

    @property
    def frames(self) -> int:
        """The frames that were written."""
        return self.cleaned + sum(self.passed.values())

    def count(self, result: Result) -> None:
        """Note what became of a frame."""
        if result.fault is not None:
            _count(self.faults, result.fault.kind)
            self.unreadable += result.fault.kind == "unreadable"
            self.last_fault = result.fault.text
        if result.frame is not None:
            _count(self.sizes, f"{result.frame.width}x{result.frame.height}")
        if result.step is not None and result.step.reset:
            _count(self.resets, result.step.reset)
        if result.outcome is Outcome.DERAINED:
            self.cleaned += 1
        else:
            passed = result.outcome is Outcome.PASSED
            _count(self.passed if passed else self.dropped, result.reason)


@dataclass
class Replayed:
    """What a replay did."""

    source: str
    output: str
    messages: int = 0
    copied: int = 0
    cameras: list[CameraTally] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0
    network_seconds: float = 0.0
    scoring_seconds: float = 0.0

    @property
    def frames(self) -> int:
        return sum(camera.frames for camera in self.cameras)

    @property
    def overhead_ms(self) -> float:
        """Milliseconds per frame for reading, decoding, encoding and writing."""
        rest = self.seconds - self.network_seconds - self.scoring_seconds
        return 1e3 * rest / max(1, self.frames)


class Observer(Protocol):
    """Sees every frame before and after."""

    def frame(self, camera: CameraTopics, before: Frame, result: Result) -> None: ...

    def reference(self, camera: CameraTopics, frame: Frame) -> None: ...


def check(settings: Settings) -> None:
    """Refuse settings that a replay cannot honour."""
    refuse(settings, _UNUSABLE, "a replay")


def replay(
    source: Path,
    out: Path,
    engine: Engine,
    settings: Settings,
    options: ReplayOptions | None = None,
    *,
    observer: Observer | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Replayed:
    """Derain a recording into another. ``progress`` gets the frames done and their total."""
    options = options or ReplayOptions()
    check(settings)
    with open_recording(source, settings.limits) as recording:
        cameras = camera_topics(
            recording,
            topics=options.topics,
            in_place_of=options.in_place_of,
            ending=options.ending,
            reference=options.reference,
            compressed=settings.output.compressed,
        )
        with create(
            out, force=options.force, compression=options.compression, source=source
        ) as output:
            run = _Replay(recording, output, cameras, engine, settings, options, observer, progress)
            done = run.run(Replayed(str(source), str(out)))
        done.losses = recording.losses
    return done


class _Replay:
    """One replay in progress."""

    def __init__(
        self,
        recording: Recording,
        output: BagWriter,
        cameras: list[CameraTopics],
        engine: Engine,
        settings: Settings,
        options: ReplayOptions,
        observer: Observer | None,
        progress: Callable[[int, int], object],
    ) -> None:
        self._recording = recording
        self._output = output
        self._options = options
        self._observer = observer
        self._progress = progress
        self._replayed = {c.image: _Replayed(number, c) for number, c in enumerate(cameras)}
        self._infos = {c.info: self._replayed[c.image] for c in cameras if c.info is not None}
        self._now_s = 0.0
        self._cameras = Cameras(
            [each.camera for each in self._replayed.values()],
            settings,
            clock=lambda: self._now_s,
        )
        self._cameras.use(engine)
        self._references = {c.reference: c for c in cameras if c.reference is not None}
        replaced = [c.image for c in cameras if c.in_place]
        replaced += [c.info for c in cameras if c.in_place and c.info is not None]
        self._dropped = set(replaced)

    def run(self, done: Replayed) -> Replayed:
        began = time.perf_counter()
        # All channels before the first message, so that their order does not depend on the
        # messages.
        for channel in self._recording.channels:
            if channel not in self._dropped:
                self._output.add(channel)
        for each in self._replayed.values():
            for channel in each.topics.outputs.values():
                self._output.add(channel)
        total = sum(-(-self._recording.counts[c] // self._options.every) for c in self._replayed)
        frames = 0
        for message in self._calibrations_first(self._messages()):
            done.messages += 1
            if message.channel not in self._dropped:
                self._output.write(message.channel, message.stamp_ns, message.data)
                done.copied += 1
            if self._observer and (camera := self._references.get(message.channel)) is not None:
                done.scoring_seconds += _timed(self._see_reference, camera, message)
            if (replayed := self._replayed.get(message.channel)) is not None:
                frames += self._frame(replayed, message, done)
                self._progress(frames, total)
        done.cameras = [each.tally for each in self._replayed.values()]
        done.seconds = time.perf_counter() - began
        _check_derained(done.cameras)
        return done

    def _calibrations_first(self, messages: Iterable[Message]) -> Iterator[Message]:
        """All messages; cameras get their calibrations some messages ahead."""
        waiting: deque[Message] = deque()
        for message in messages:
            if (owner := self._infos.get(message.channel)) is not None:
                owner.keep_calibration(message)
            waiting.append(message)
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        yield from waiting

    def _messages(self) -> Iterator[Message]:
        options = self._options
        if not options.start_s and options.duration_s is None:
            return self._recording.messages()
        start = self._recording.start_ns + round(options.start_s * 1e9)
        stop = None if options.duration_s is None else start + round(options.duration_s * 1e9)
        if start > self._recording.end_ns:
            length = (self._recording.end_ns - self._recording.start_ns) / 1e9
            raise BagError(f"{self._recording.path} is {length:.1f} s long; start before that")
        return self._recording.messages(start_ns=start, stop_ns=stop)

    def _frame(self, replayed: _Replayed, message: Message, done: Replayed) -> int:
        """Process one frame; returns how many were."""
        replayed.seen += 1
        if (replayed.seen - 1) % self._options.every:
            replayed.tally.skipped += 1
            return 0
        try:
            original = decoded(message.channel, message.data)
        except FrameError as error:
            self._keep_broken(replayed, message, str(error))
            return 0
        self._now_s = message.stamp_ns / 1e9
        demand = frozenset(replayed.topics.outputs)
        (result,) = self._cameras.process([(replayed.number, original, demand)])
        for kind, made in result.messages:
            data = message.data if made is original else encoded(made)
            self._output.write(replayed.topics.outputs[kind], message.stamp_ns, data)
        replayed.tally.count(result)
        if result.step is not None:
            done.network_seconds += result.step.seconds
        if self._observer and result.outcome is not Outcome.DROPPED:
            done.scoring_seconds += _timed(self._see, replayed.topics, original, result)
        return 1

    def _keep_broken(self, replayed: _Replayed, message: Message, reason: str) -> None:
        """Count an unreadable message; if it would be replaced, it is passed on."""
        replayed.tally.unreadable += 1
        replayed.tally.last_fault = reason
        if replayed.topics.in_place:
            self._output.write(replayed.topics.derained, message.stamp_ns, message.data)

    def _see(self, camera: CameraTopics, original: Any, result: Result) -> None:
        assert self._observer is not None
        with suppress(FrameError):  # what cannot be read cannot be scored
            self._observer.frame(camera, result.frame or codec.decode(original), result)

    def _see_reference(self, camera: CameraTopics, message: Message) -> None:
        assert self._observer is not None
        with suppress(FrameError):
            self._observer.reference(camera, codec.decode(decoded(message.channel, message.data)))


class _Replayed:
    """One camera in progress."""

    def __init__(self, number: int, topics: CameraTopics) -> None:
        self.number = number
        self.topics = topics
        self.camera = Camera(topics.image.topic, _TYPES)
        self.tally = CameraTally(topics.image.topic, topics.derained.topic)
        self.seen = 0

    def keep_calibration(self, message: Message) -> None:
        """Give the camera a calibration."""
        try:
            self.camera.calibrations.keep(decoded(message.channel, message.data))
        except FrameError as error:
            self.tally.last_fault = str(error)


def _check_derained(cameras: Sequence[CameraTally]) -> None:
    """Raise if the network failed at every frame."""
    failed = [camera for camera in cameras if camera.faults.get("network")]
    if failed and not any(camera.cleaned for camera in cameras):
        raise EngineError(f"no frame could be derained: {failed[0].last_fault}")


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _empty_image() -> Any:
    return new(
        IMAGE, header=header(), height=0, width=0, encoding="", is_bigendian=0, step=0,
        data=np.empty(0, np.uint8),
    )  # fmt: skip


def _empty_compressed() -> Any:
    return new(COMPRESSED, header=header(), format="", data=np.empty(0, np.uint8))


_TYPES = MessageTypes(_empty_image, _empty_compressed, lambda level: new(FLOAT, data=level))


def _timed(function: Callable[..., None], *arguments: Any) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began
