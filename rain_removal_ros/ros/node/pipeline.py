"""What is done with each frame: cleaned, passed through as it came, or dropped, and why.

Runs in the worker's thread, one batch after another. Nothing that comes in may end it: what cannot
be cleaned is passed through or dropped, as ``safety.on_fault`` says, and counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float32

from rain_removal_ros import codec
from rain_removal_ros.errors import FrameError
from rain_removal_ros.frames import Frame
from rain_removal_ros.frames import Image as Pixels
from rain_removal_ros.rain_level import RainGauge
from rain_removal_ros.ros.node.degradation import (
    Backoff,
    Budget,
    Bypass,
    Level,
    built_for_its_stages,
    ladder,
)
from rain_removal_ros.ros.node.mailbox import Letter
from rain_removal_ros.ros.node.statistics import Statistics
from rain_removal_ros.ros.node.topics import Camera, Demand
from rain_removal_ros.ros.node.watchdog import Abandoned, Watch
from rain_removal_ros.runtime.threads import compute_with
from rain_removal_ros.settings import Settings

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine
    from rain_removal_ros.stream import Step, Stream

_FAULTS_BEFORE_RELOAD = 2


class Surroundings(Protocol):
    """What the pipeline asks of the node around it; called in the worker's thread."""

    def now_ns(self) -> int:
        """The node's clock, which may be a simulated one; 0 while that has not begun."""
        ...

    def say(self, text: str) -> None:
        """A throttled line in the log."""
        ...

    def broken(self, reason: str, retry_in_s: float) -> None:
        """The network keeps failing: another one is to be loaded."""
        ...


@dataclass(frozen=True, slots=True)
class Untouched:
    """Why a frame is not cleaned."""

    reason: str
    fault: bool = False
    """Whether ``safety.on_fault`` decides what becomes of it."""


class Lane:
    """What is kept for one camera from frame to frame."""

    def __init__(self, camera: Camera, statistics: Statistics) -> None:
        self.camera = camera
        self.statistics = statistics
        self.stream: Stream | None = None
        self.gauge = RainGauge()
        self.bypass = Bypass()
        # Outgoing messages are used again and again: their buffers are large.
        self.image = Image()
        self.attention = Image()
        self.compressed = CompressedImage()

    def interrupt(self, reason: str) -> None:
        """The next frame that is cleaned does not follow on the last one that was."""
        if self.stream is not None and self.stream.state is not None:
            self.stream.reset(reason)


@dataclass(slots=True)
class Job:
    """One frame on its way through the network."""

    lane: Lane
    letter: Letter
    frame: Frame
    demand: Demand
    rain_level: float | None
    encoding: str
    target: Pixels | None = None

    @property
    def header(self) -> Any:
        return self.letter.message.header


class Pipeline:
    """All cameras' frames, one network."""

    def __init__(
        self,
        cameras: Sequence[tuple[Camera, Statistics]],
        settings: Settings,
        around: Surroundings,
        watch: Watch,
    ) -> None:
        self._lanes = [Lane(*camera) for camera in cameras]
        self._settings = settings
        self._around = around
        self._watch = watch
        self._engine: Engine | None = None
        self._own_stages: int | None = None
        """Passes over a frame unless told otherwise; None where they cannot be changed."""
        self._reduced: dict[int, Engine] = {}
        self._without = Untouched("loading", fault=True)
        self._enabled = True
        self._budget = Budget(ladder(1))
        self._backoff = Backoff()
        self._failures = 0
        self._retry_at = 0.0
        self._in_work: list[Job] = []

    def give_up(self, reason: str) -> None:
        """Write off the frames in work: their thread has been abandoned."""
        for job in self._in_work:
            job.lane.statistics.dropped(reason)

    # --- Orders: called between two frames ---------------------------------------------------

    def apply(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._settings = settings
        for lane in self._lanes:
            if lane.stream is not None:
                lane.stream.settings = settings.stream
        self._set_stages()

    def use(self, engine: Engine) -> None:
        """Go on with another network."""
        compute_with(self._settings.engine.threads)
        self._engine = engine
        self._own_stages = None if built_for_its_stages(engine.name) else engine.stages
        self._reduced = {}
        self._failures = 0
        self._retry_at = 0.0
        self._set_stages()

    def do_without(self, reason: str) -> None:
        """Go on without a network, until there is one."""
        self._engine = None
        self._without = Untouched(reason, fault=True)
        for lane in self._lanes:
            lane.stream = None
        self._reduced = {}

    def reset(self, reason: str) -> None:
        """Let every camera start afresh."""
        for lane in self._lanes:
            lane.gauge.reset()
            lane.bypass = Bypass()
            if lane.stream is not None:
                lane.stream.reset(reason)

    def enable(self, on: bool) -> None:  # noqa: FBT001 - what the service hands in
        """Clean frames, or let all of them through."""
        self._enabled = on

    @property
    def level(self) -> Level:
        """How much is asked of the network now."""
        return self._budget.level

    def state_since_ns(self, index: int) -> int | None:
        """The stamp of the first frame that a camera's state goes back to; None without state."""
        stream = self._lanes[index].stream
        return stream.state_since_ns if stream is not None and stream.state is not None else None

    @property
    def _stages(self) -> int | None:
        """Passes over a frame when all is well; None where they are as they were built."""
        return self._own_stages and (self._settings.network.stages or self._own_stages)

    def _set_stages(self) -> None:
        rungs = ladder(self._stages or 1)
        if rungs != self._budget.rungs:
            self._budget = Budget(rungs)

    # --- Frames ------------------------------------------------------------------------------

    def drop(self, letters: Mapping[int, Letter], reason: str) -> None:
        """Give account of frames that nothing is done with."""
        for index in letters:
            self._lanes[index].statistics.dropped(reason)

    def process(self, letters: Mapping[int, Letter]) -> None:
        """Deal with the newest frame of each camera that has one."""
        began = time.monotonic()
        jobs: list[Job] = []
        for index, letter in letters.items():
            with self._accounting(self._lanes[index]):
                jobs += self._received(self._lanes[index], letter)
        if jobs:
            self._clean(jobs)
        if jobs or not self._budget.level.clean:
            self._spent(time.monotonic() - began)

    @contextmanager
    def _accounting(self, lane: Lane) -> Iterator[None]:
        """A frame that something unforeseen befalls is dropped, and that is all."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a robot keeps its camera
            lane.statistics.dropped("error")
            lane.statistics.fault("error", f"{type(error).__name__}: {error}")
            self._around.say(f"a frame was lost to {type(error).__name__}: {error}")

    def _spent(self, seconds: float) -> None:
        """Ask less of the network, or more, according to what the last frames took."""
        budget_s = self._settings.safety.budget_ms / 1e3
        before = self._budget.level
        after = self._budget.update(seconds, time.monotonic(), budget_s)
        if after != before:
            self._around.say(f"a frame took {1e3 * seconds:.0f} ms: now at {after.name}")

    def _received(self, lane: Lane, letter: Letter) -> list[Job]:
        """The frame as a job for the network; none where it was dealt with already."""
        demand = lane.camera.demand()
        if not demand and not self._settings.output.keep_warm:
            lane.interrupt("idle")
            lane.statistics.dropped("nobody subscribes")
            return []
        if self._too_old(letter):
            lane.statistics.dropped("too old")
            return []
        untouched = self._untouched()
        automatic = self._settings.bypass.mode == "auto"
        frame = None
        if untouched is None or demand.rain_level:
            try:
                frame = _decoded(lane, letter)
            except FrameError as error:
                lane.statistics.fault("unreadable", str(error))
                self._around.say(f"cannot read a frame of {lane.camera.raw_topic!r}: {error}")
                untouched = untouched or Untouched("unreadable", fault=True)
        level = None
        if frame is not None and (automatic or demand.rain_level):
            level = lane.gauge.update(frame.image)
            lane.statistics.rain(level)
            if automatic and not lane.bypass.update(level, time.monotonic(), self._settings.bypass):
                untouched = untouched or Untouched("no rain")
        if untouched is not None or frame is None:
            self._leave(lane, letter, demand, untouched or Untouched("unreadable"), frame, level)
            return []
        return [Job(lane, letter, frame, demand, level, _encoding(letter.message))]

    def _untouched(self) -> Untouched | None:
        """Why no frame is cleaned at the moment, if so."""
        if not self._enabled:
            return Untouched("disabled")
        if self._settings.bypass.mode == "always":
            return Untouched("bypass")
        if self._engine is None:
            return self._without
        if time.monotonic() < self._retry_at:
            return Untouched("fault", fault=True)
        return None if self._budget.level.clean else Untouched("over budget")

    def _too_old(self, letter: Letter) -> bool:
        limit, now = self._settings.input.max_age_ms, self._around.now_ns()
        stamp = codec.stamp_ns(letter.message.header)
        return limit > 0 and now > 0 and now - stamp > limit * 1e6

    def _leave(
        self,
        lane: Lane,
        letter: Letter,
        demand: Demand,
        why: Untouched,
        frame: Frame | None = None,
        level: float | None = None,
    ) -> None:
        """Publish a frame as it came, or drop it where that is what faults shall do."""
        lane.interrupt(why.reason)
        if why.fault and self._settings.safety.on_fault == "drop":
            lane.statistics.dropped(why.reason)
            return
        if not self._publish_original(lane, letter, demand, frame):
            lane.statistics.dropped("unreadable")
            return
        if demand.info:
            lane.camera.publish_info(letter.message.header, scale=1)
        self._done(lane, letter, demand, level, passed=why.reason)

    def _publish_original(
        self, lane: Lane, letter: Letter, demand: Demand, frame: Frame | None
    ) -> bool:
        """Send the message on; recoding it only for those who want the other kind."""
        message, camera = letter.message, lane.camera
        raw = hasattr(message, "encoding")
        if raw and demand.image:
            camera.image.publish(message)
        if camera.compressed is not None and demand.compressed and not raw:
            camera.compressed.publish(message)
        same, other = (demand.image, demand.compressed)[:: 1 if raw else -1]
        if not other:
            return True
        try:
            image = (frame or _decoded(lane, letter)).image
        except FrameError:
            return same
        if raw:
            self._publish_compressed(lane, image, message.header)
        else:
            codec.write_image(lane.image, image, encoding="rgb8", header=message.header)
            camera.image.publish(lane.image)
        return True

    def _clean(self, jobs: list[Job]) -> None:
        try:
            self._in_work = jobs
            with self._watch:
                engine = self._engine_at(self._budget.level)
                for job in jobs:
                    self._prepare(job, engine)
                steps = self._step(jobs)
        except Abandoned:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a network does, frames go on
            self._failed(error)
            for job in jobs:
                job.lane.statistics.fault("network", str(error))
                why = Untouched("fault", fault=True)
                with self._accounting(job.lane):
                    self._leave(job.lane, job.letter, job.demand, why, job.frame, job.rain_level)
            return
        self._failures = 0
        self._backoff.reset()
        for job, step in zip(jobs, steps, strict=True):
            with self._accounting(job.lane):
                self._publish_clean(job, step, engine.scale)

    def _step(self, jobs: list[Job]) -> list[Step]:
        from rain_removal_ros.stream import step_together

        return step_together(
            [job.lane.stream for job in jobs if job.lane.stream is not None],
            [job.frame for job in jobs],
            attention=any(job.demand.attention for job in jobs),
            into=[job.target for job in jobs],
        )

    def _prepare(self, job: Job, engine: Engine) -> None:
        """Set up the stream, and let the engine write right into the message where it can."""
        from rain_removal_ros.stream import Stream

        lane = job.lane
        if lane.stream is None:
            lane.stream = Stream(engine, self._settings.stream)
        lane.stream.use(engine)
        if job.demand.image and job.encoding == "rgb8":
            job.target = codec.into(
                lane.image,
                height=job.frame.height * engine.scale,
                width=job.frame.width * engine.scale,
                encoding="rgb8",
                header=job.header,
            )

    def _engine_at(self, level: Level) -> Engine:
        """The network, asked for no more than ``level`` allows."""
        from rain_removal_ros.engines.downscaled import ReducedEngine

        assert self._engine is not None
        if stages := self._stages:
            self._engine.stages = min(stages, level.stages or stages)
        if level.shrink == 1:
            return self._engine
        if level.shrink not in self._reduced:
            self._reduced[level.shrink] = ReducedEngine(self._engine, level.shrink)
        return self._reduced[level.shrink]

    def _failed(self, error: Exception) -> None:
        """Wait before the next try; when that fails too, ask for a fresh network."""
        self._failures += 1
        delay = self._backoff.wait(self._settings.safety.retry_s)
        self._retry_at = time.monotonic() + delay
        self._around.say(f"the network failed, trying again in {delay:.1f} s: {error}")
        if self._failures >= _FAULTS_BEFORE_RELOAD:
            self.do_without("fault")
            self._around.broken(str(error), delay)

    # --- Results -----------------------------------------------------------------------------

    def _publish_clean(self, job: Job, step: Step, scale: int) -> None:
        lane, camera, demand, header = job.lane, job.lane.camera, job.demand, job.header
        if step.reset:
            lane.statistics.reset(step.reset)
        if demand.image:
            if job.target is None:
                codec.write_image(
                    lane.image, step.frame.image, encoding=job.encoding, header=header
                )
            camera.image.publish(lane.image)
        if demand.info:
            camera.publish_info(header, scale=scale)
        if demand.compressed:
            self._publish_compressed(lane, step.frame.image, header)
        if demand.attention and step.attention is not None:
            self._publish_attention(lane, job.frame.image, step.attention, header)
        level = job.rain_level if step.rain_level is None else step.rain_level
        self._done(lane, job.letter, demand, level)

    def _publish_compressed(self, lane: Lane, image: Pixels, header: Any) -> None:
        if lane.camera.compressed is None:
            return
        quality = self._settings.output.jpeg_quality
        codec.write_compressed(
            lane.compressed, image, format="jpeg", quality=quality, header=header
        )
        lane.camera.compressed.publish(lane.compressed)

    def _publish_attention(self, lane: Lane, image: Pixels, seen: Any, header: Any) -> None:
        if self._settings.output.attention == "overlay":
            codec.write_image(lane.attention, _overlay(image, seen), encoding="rgb8", header=header)
        else:
            codec.write_image(lane.attention, seen, encoding="mono8", header=header)
        lane.camera.attention.publish(lane.attention)

    def _done(
        self,
        lane: Lane,
        letter: Letter,
        demand: Demand,
        level: float | None,
        passed: str = "",
    ) -> None:
        if not demand:
            lane.statistics.dropped("nobody subscribes")
            return
        if level is not None and math.isfinite(level):
            lane.statistics.rain(level)
            if demand.rain_level:
                lane.camera.rain_level.publish(Float32(data=level))
        now_ns, stamp_ns = self._around.now_ns(), codec.stamp_ns(letter.message.header)
        lane.statistics.published(
            latency_s=(now_ns - stamp_ns) / 1e9 if now_ns else None,
            processing_s=time.monotonic() - letter.arrived,
            passed=passed,
        )


def _decoded(lane: Lane, letter: Letter) -> Frame:
    frame = codec.decode(letter.message)
    lane.statistics.size = frame.height, frame.width
    return frame


def _encoding(message: Any) -> str:
    """How the clean image of this message goes out."""
    return codec.output_encoding(message.encoding) if hasattr(message, "encoding") else "rgb8"


def _overlay(image: Pixels, seen: Any) -> Pixels:
    """The frame with red where rain was seen."""
    red, green, blue = cv2.split(image)
    dimmed = cv2.convertScaleAbs(seen, alpha=0.5)
    parts = (cv2.add(red, seen), cv2.subtract(green, dimmed), cv2.subtract(blue, dimmed))
    return np.asarray(cv2.merge(parts))
