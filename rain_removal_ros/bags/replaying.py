"""Cleans the cameras of a recording and writes another: everything as it was, and what is new.

Nothing here depends on time or on how fast the machine is: every frame is cleaned, in order, and
on a CPU the same recording gives the same bytes. However long a recording is, a few frames of it
are in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rain_removal_ros import codec
from rain_removal_ros.bags.messages import (
    COMPRESSED,
    FLOAT,
    Channel,
    Message,
    decoded,
    encoded,
    header,
    new,
)
from rain_removal_ros.bags.reading import Recording, open_recording
from rain_removal_ros.bags.topics import CameraTopics, camera_topics
from rain_removal_ros.bags.writing import Output, create
from rain_removal_ros.camera_info import scaled
from rain_removal_ros.errors import BagError, FrameError
from rain_removal_ros.frames import Frame
from rain_removal_ros.rain_level import RainGauge

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine
    from rain_removal_ros.settings import Settings
    from rain_removal_ros.stream import Step, Stream


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What of a recording is cleaned, and how the result is written."""

    topics: tuple[str, ...] = ()
    """Image topics; none for all that are found."""
    in_place_of: tuple[str, ...] = ()
    """Image topics whose clean images take their place."""
    ending: str = "derained"
    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1
    """Of each camera, only every so many-th frame is cleaned."""
    reference: str = ""
    """The topic of the same scene without rain; empty for one of the usual name."""
    compression: str = "none"
    force: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BagError(f"every N-th frame needs an N of 1 or more, not {self.every}")
        if self.start_s < 0 or (self.duration_s is not None and self.duration_s <= 0):
            raise BagError("the start must not be negative, and the duration must be above 0")


@dataclass
class CameraTally:
    """What happened to one camera's frames."""

    topic: str
    clean_topic: str
    cleaned: int = 0
    skipped: int = 0
    """Left out, as only every N-th was wanted."""
    unreadable: int = 0
    resets: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    last_fault: str = ""


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
    judging_seconds: float = 0.0

    @property
    def frames(self) -> int:
        return sum(camera.cleaned for camera in self.cameras)

    @property
    def overhead_ms(self) -> float:
        """What reading, decoding, encoding and writing took, a frame."""
        rest = self.seconds - self.network_seconds - self.judging_seconds
        return 1e3 * rest / max(1, self.frames)


class Observer(Protocol):
    """Sees every frame before and after."""

    def frame(self, camera: CameraTopics, before: Frame, step: Step, rain_level: float) -> None: ...

    def reference(self, camera: CameraTopics, frame: Frame) -> None: ...


def replay(
    source: Path,
    out: Path,
    engine: Engine,
    settings: Settings,
    wishes: Wishes | None = None,
    *,
    observer: Observer | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Replayed:
    """Clean a recording into another. ``progress`` gets the frames done, and those there are."""
    wishes = wishes or Wishes()
    with open_recording(source) as recording:
        cameras = camera_topics(
            recording,
            topics=wishes.topics,
            in_place_of=wishes.in_place_of,
            ending=wishes.ending,
            reference=wishes.reference,
        )
        with create(
            out, force=wishes.force, compression=wishes.compression, source=source
        ) as output:
            run = _Run(recording, output, cameras, engine, settings, wishes, observer, progress)
            done = run.run(Replayed(str(source), str(out)))
        done.losses = recording.losses
    return done


class _Run:
    """One replay on its way."""

    def __init__(
        self,
        recording: Recording,
        output: Output,
        cameras: list[CameraTopics],
        engine: Engine,
        settings: Settings,
        wishes: Wishes,
        observer: Observer | None,
        progress: Callable[[int, int], object],
    ) -> None:
        self._recording = recording
        self._output = output
        self._wishes = wishes
        self._observer = observer
        self._progress = progress
        self._lanes = {c.image: _Lane(c, engine, settings, output) for c in cameras}
        self._infos = {c.info: self._lanes[c.image] for c in cameras if c.info is not None}
        self._references = {c.reference: c for c in cameras if c.reference is not None}
        replaced = [c.image for c in cameras if c.in_place]
        replaced += [c.info for c in cameras if c.in_place and c.info is not None]
        self._dropped = set(replaced)

    def run(self, done: Replayed) -> Replayed:
        began = time.perf_counter()
        # All before the first message, so that the order of topics does not depend on theirs.
        for channel in self._recording.channels:
            if channel not in self._dropped:
                self._output.add(channel)
        for camera_lane in self._lanes.values():
            camera_lane.announce()
        total = sum(-(-self._recording.counts[c] // self._wishes.every) for c in self._lanes)
        frames = 0
        for message in self._messages():
            done.messages += 1
            if message.channel not in self._dropped:
                self._output.write(message.channel, message.stamp_ns, message.data)
                done.copied += 1
            if (owner := self._infos.get(message.channel)) is not None:
                owner.pass_info(message)
            if self._observer and (camera := self._references.get(message.channel)) is not None:
                done.judging_seconds += _timed(self._see_reference, camera, message)
            if (lane := self._lanes.get(message.channel)) is not None:
                frames += self._frame(lane, message, done)
                self._progress(frames, total)
        done.cameras = [lane.tally for lane in self._lanes.values()]
        done.seconds = time.perf_counter() - began
        return done

    def _messages(self) -> Iterator[Message]:
        wishes = self._wishes
        if not wishes.start_s and wishes.duration_s is None:
            return self._recording.messages()
        start = self._recording.start_ns + round(wishes.start_s * 1e9)
        stop = None if wishes.duration_s is None else start + round(wishes.duration_s * 1e9)
        if start > self._recording.end_ns:
            length = (self._recording.end_ns - self._recording.start_ns) / 1e9
            raise BagError(f"{self._recording.path} is {length:.1f} s long; start before that")
        return self._recording.messages(start_ns=start, stop_ns=stop)

    def _frame(self, lane: _Lane, message: Message, done: Replayed) -> int:
        """Clean one frame; returns how many were."""
        lane.seen += 1
        if (lane.seen - 1) % self._wishes.every:
            lane.tally.skipped += 1
            return 0
        try:
            original = decoded(message.channel, message.data)
            frame = codec.decode(original)
        except FrameError as error:
            lane.unreadable(message, str(error))
            return 0
        step = lane.clean(original, frame, message.stamp_ns)
        done.network_seconds += step.seconds
        if self._observer:
            level = lane.level
            done.judging_seconds += _timed(self._observer.frame, lane.topics, frame, step, level)
        return 1

    def _see_reference(self, camera: CameraTopics, message: Message) -> None:
        assert self._observer is not None
        try:
            frame = codec.decode(decoded(message.channel, message.data))
        except FrameError:
            return  # what cannot be read cannot be compared with
        self._observer.reference(camera, frame)


class _Lane:
    """What is kept for one camera from frame to frame."""

    def __init__(
        self, topics: CameraTopics, engine: Engine, settings: Settings, output: Output
    ) -> None:
        from rain_removal_ros.stream import Stream

        self.topics = topics
        self.tally = CameraTally(topics.image.topic, topics.clean.topic)
        self.seen = 0
        self.level = 0.0
        self._stream: Stream = Stream(engine, settings.stream)
        self._scale = engine.scale
        self._settings = settings.output
        self._output = output
        self._gauge = RainGauge()
        # Used again for every frame: their buffers are large.
        self._clean = _empty(topics.clean)
        self._attention = _empty(topics.attention)

    def announce(self) -> None:
        """Make room for the new topics."""
        topics = self.topics
        for channel in (topics.clean, topics.attention, topics.rain_level, topics.info_clean):
            if channel is not None:
                self._output.add(channel)

    def pass_info(self, message: Message) -> None:
        """The calibration, for the size that the clean images have."""
        channel = self.topics.info_clean
        assert channel is not None
        data = message.data
        if self._scale != 1:
            try:
                data = encoded(scaled(decoded(message.channel, data), self._scale))
            except FrameError as error:
                self.tally.last_fault = str(error)
        self._output.write(channel, message.stamp_ns, data)

    def unreadable(self, message: Message, reason: str) -> None:
        """Count a frame that cannot be decoded; where it would be replaced, it goes through."""
        self.tally.unreadable += 1
        self.tally.last_fault = reason
        if self.topics.in_place:
            self._output.write(self.topics.clean, message.stamp_ns, message.data)

    def clean(self, original: Any, frame: Frame, stamp_ns: int) -> Step:
        raw = self.topics.clean.msgtype != COMPRESSED
        encoding = codec.output_encoding(original.encoding) if raw else ""
        target = None
        if encoding == "rgb8":
            target = codec.into(
                self._clean,
                height=frame.height * self._scale,
                width=frame.width * self._scale,
                encoding=encoding,
                header=original.header,
            )
        step = self._stream.step(frame, into=target)
        image, stamped = step.frame.image, original.header
        if not raw:
            codec.write_compressed(
                self._clean,
                image,
                format=original.format,
                quality=self._settings.jpeg_quality,
                header=stamped,
            )
        elif target is None:
            codec.write_image(self._clean, image, encoding=encoding, header=stamped)
        self._output.write(self.topics.clean, stamp_ns, encoded(self._clean))
        if step.attention is not None:
            codec.write_image(self._attention, step.attention, encoding="mono8", header=stamped)
            self._output.write(self.topics.attention, stamp_ns, encoded(self._attention))
        level = step.rain_level if step.rain_level is not None else self._gauge.update(frame.image)
        self.level = level
        self._output.write(self.topics.rain_level, stamp_ns, encoded(new(FLOAT, data=level)))
        self._count(frame, step)
        return step

    def _count(self, frame: Frame, step: Step) -> None:
        self.tally.cleaned += 1
        size = f"{frame.width}x{frame.height}"
        self.tally.sizes[size] = self.tally.sizes.get(size, 0) + 1
        if step.reset:
            self.tally.resets[step.reset] = self.tally.resets.get(step.reset, 0) + 1


def _empty(channel: Channel) -> Any:
    nothing = np.empty(0, np.uint8)
    if channel.msgtype == COMPRESSED:
        return new(COMPRESSED, header=header(), format="", data=nothing)
    fields: Mapping[str, Any] = {
        "height": 0, "width": 0, "encoding": "", "is_bigendian": 0, "step": 0, "data": nothing,
    }  # fmt: skip
    return new(channel.msgtype, header=header(), **fields)


def _timed(function: Callable[..., None], *arguments: Any) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began
