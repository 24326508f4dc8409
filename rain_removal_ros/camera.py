"""Cameras, free of ROS: an image message goes in, a result comes out.

The node and the replay of recordings both run on this, so the same messages and settings give the
same bytes on a robot and on a desk. The time comes from the caller. Whatever comes in, nothing is
raised: a frame that cannot be derained passes through untouched or is dropped, as
``safety.on_fault`` says, and its result says why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros import codec
from rain_removal_ros.camera_info import Calibrations
from rain_removal_ros.degradation import DOWNSCALING, Backoff, Budget, Bypass, Rung, ladder
from rain_removal_ros.engines import Engine
from rain_removal_ros.engines.downscaled import DownscaledEngine
from rain_removal_ros.errors import FrameError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.rain_level import RainGauge
from rain_removal_ros.settings import Settings
from rain_removal_ros.stream import Step, Stream, step_together

T = TypeVar("T")


class OutputKind(Enum):
    """What can be made of a frame, each for a topic of its own."""

    IMAGE = "image"
    CALIBRATION = "calibration"
    COMPRESSED = "compressed"
    ATTENTION = "attention"
    RAIN_LEVEL = "rain level"


Demand: TypeAlias = frozenset[OutputKind]
"""The outputs that somebody wants."""


class Outcome(Enum):
    """What became of a frame."""

    DERAINED = "derained"
    PASSED = "passed"
    DROPPED = "dropped"


class Fault(NamedTuple):
    """What went wrong with a frame."""

    kind: str
    text: str


class MessageTypes(NamedTuple):
    """Makes outgoing messages, as rclpy or rosbags have them."""

    image: Callable[[], Any]
    compressed: Callable[[], Any]
    rain_level: Callable[[float], Any]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that came in."""

    camera: int
    message: Any
    demand: Demand


@dataclass(slots=True)
class Result:
    """What became of one frame."""

    camera: int
    outcome: Outcome
    reason: str = ""
    """Why it was not derained."""
    fault: Fault | None = None
    frame: Frame | None = None
    """What came in, where it was decoded."""
    step: Step | None = None
    """What the network made of it."""
    rain_level: float | None = None
    _messages: Iterator[tuple[OutputKind, Any]] = field(default_factory=lambda: iter(()))

    def messages(self) -> Iterator[tuple[OutputKind, Any]]:
        """What goes out, the image first; each is made when it is asked for, and once.

        They are filled anew for the camera's next frame: send or copy them before.
        """
        try:
            yield from self._messages
        except Exception as error:  # noqa: BLE001 - a robot keeps its camera
            self.outcome, self.reason, self.fault = Outcome.DROPPED, "error", _defect(error)


class Camera:
    """What is kept of one camera from frame to frame."""

    def __init__(
        self, name: str, types: MessageTypes, calibrations: Calibrations | None = None
    ) -> None:
        self.name = name
        self.types = types
        self.calibrations = calibrations or Calibrations()
        self.stream: Stream | None = None
        self.gauge = RainGauge()
        self.bypass = Bypass()
        # Outgoing messages are used again and again: their buffers are large.
        self.image, self.attention = types.image(), types.image()
        self.compressed = types.compressed()

    def interrupt(self, reason: str) -> None:
        """The next frame that is derained does not follow on the last one that was."""
        if self.stream is not None and self.stream.state is not None:
            self.stream.reset(reason)

    def reset(self, reason: str) -> None:
        """Start afresh."""
        self.gauge.reset()
        self.bypass = Bypass()
        if self.stream is not None:
            self.stream.reset(reason)


class _Why(NamedTuple):
    """Why a frame passes through untouched."""

    reason: str
    is_fault: bool = False
    """Whether ``safety.on_fault`` decides what becomes of it."""


@dataclass(slots=True)
class _Job:
    """One frame on its way."""

    index: int
    camera: Camera
    message: Any
    demand: Demand
    frame: Frame | None = None
    fault: Fault | None = None
    gauged: float | None = None
    """The rain level by the gauge, where it was asked."""
    target: Image | None = None
    """The pixels of the outgoing message, where the engine is to write to them itself."""
    step: Step | None = None
    """What the network made of it; None for a frame that passes through untouched."""
    scale: int = 1

    @property
    def header(self) -> Any:
        return self.message.header

    @property
    def is_raw(self) -> bool:
        return hasattr(self.message, "encoding")

    @property
    def encoding(self) -> str:
        """How the derained image goes out."""
        return codec.output_encoding(self.message.encoding) if self.is_raw else "rgb8"

    @property
    def image(self) -> Image:
        """The pixels of a frame that was decoded."""
        assert self.frame is not None
        return self.frame.image

    @property
    def outgoing(self) -> Image:
        """The pixels that go out."""
        return self.image if self.step is None else self.step.frame.image

    def gauge(self) -> float:
        """The rain level by the gauge, which sees each frame once."""
        if self.gauged is None:
            self.gauged = self.camera.gauge.update(self.image)
        return self.gauged

    def rain_level(self) -> float | None:
        """By the network, else by the gauge where somebody wants to know."""
        level = None if self.step is None else self.step.rain_level
        if level is None:
            level = self.gauge() if OutputKind.RAIN_LEVEL in self.demand else self.gauged
        return level if level is not None and math.isfinite(level) else None

    def dropped(self, reason: str) -> Result:
        return Result(self.index, Outcome.DROPPED, reason, self.fault, self.frame, self.step)


class Cameras:
    """All cameras of a robot or of a recording, and the one engine that they share."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        settings: Settings,
        *,
        clock: Callable[[], float],
        guard: AbstractContextManager[object] | None = None,
        log: Callable[[str], object] = lambda text: None,
    ) -> None:
        """``clock`` gives seconds; ``guard`` is entered around the network; ``log`` gets lines."""
        self._cameras = cameras
        self._settings = settings
        self._clock = clock
        self._guard = guard or nullcontext()
        self._log = log
        self._engines: dict[int, Engine] = {}
        """The network, by what the sides of its frames are divided by; none without a network."""
        self._without = _Why("loading", is_fault=True)
        self._enabled = True
        self._budget = Budget(ladder(1))
        self._backoff = Backoff()
        self._retry_at = -math.inf
        self.failures = 0
        """Of the network, one after another."""

    # --- Orders: given between two frames ----------------------------------------------------

    def apply(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._settings = settings
        for camera in self._cameras:
            if camera.stream is not None:
                camera.stream.settings = settings.stream
        self._set_stages()

    def use(self, engine: Engine) -> None:
        """Go on with another network."""
        self._engines = {1: engine} | {n: DownscaledEngine(engine, n) for n in DOWNSCALING}
        self.failures = 0
        self._retry_at = -math.inf
        self._set_stages()

    def do_without(self, reason: str) -> None:
        """Go on without a network, until there is one."""
        self._engines = {}
        self._without = _Why(reason, is_fault=True)
        self.failures = 0
        for camera in self._cameras:
            camera.stream = None

    def reset(self, reason: str) -> None:
        """Let every camera start afresh."""
        for camera in self._cameras:
            camera.reset(reason)

    def enable(self, on: bool) -> None:  # noqa: FBT001 - what the service hands in
        """Derain frames, or let all of them through."""
        self._enabled = on

    @property
    def rung(self) -> Rung:
        """How much is asked of the network now."""
        return self._budget.rung

    @property
    def retry_in_s(self) -> float:
        """How long it is until the network is tried again."""
        return max(0.0, self._retry_at - self._clock())

    def state_since_ns(self, index: int) -> int | None:
        """The stamp of the first frame that a camera's state goes back to; None without state."""
        stream = self._cameras[index].stream
        return stream.state_since_ns if stream is not None and stream.state is not None else None

    @property
    def stages(self) -> int:
        """Passes over a frame now; 0 without a network."""
        return min(self._all_stages, self._budget.rung.stages or self._all_stages)

    @property
    def _all_stages(self) -> int:
        """Passes over a frame when all is well."""
        if not self._engines:
            return 0
        info = self._engines[1].info
        return (info.any_stages and self._settings.network.stages) or info.stages

    def _set_stages(self) -> None:
        variable = self._engines and self._engines[1].info.any_stages
        rungs = ladder(self._all_stages if variable else 1)
        if rungs != self._budget.rungs:
            self._budget = Budget(rungs)

    # --- Frames ------------------------------------------------------------------------------

    def process(self, arrivals: Iterable[Arrival]) -> Iterator[Result]:
        """Deal with a frame of each of some cameras; those to be derained are one batch.

        Results come as soon as they are known: a frame that passes through waits for no other.
        """
        began = time.monotonic()
        jobs: list[_Job] = []
        for arrival in arrivals:
            camera = self._cameras[arrival.camera]
            job = _Job(arrival.camera, camera, arrival.message, arrival.demand)
            result = self._guarded(job, partial(self._prepare, job))
            if result is None:
                jobs.append(job)
            else:
                yield result
        if jobs:
            yield from self._derain(jobs)
        if jobs or not self._budget.rung.derain:
            self._adapt(time.monotonic() - began)

    def _guarded(self, job: _Job, stage: Callable[[], T]) -> T | Result:
        """What a stage returns; a frame that something unforeseen befalls is dropped."""
        try:
            return stage()
        except Exception as error:  # noqa: BLE001 - a robot keeps its camera
            job.fault = _defect(error)
            self._log(f"a frame was lost to {job.fault.text}")
            return job.dropped("error")

    def _adapt(self, seconds: float) -> None:
        """Ask less of the network, or more, according to what the last frames took."""
        before = self._budget.rung
        budget_s = self._settings.safety.budget_ms / 1e3
        after = self._budget.update(seconds, self._clock(), budget_s)
        if after != before:
            self._log(f"a frame took {1e3 * seconds:.0f} ms: now at {after.name}")

    # --- First stage: decode, and decide whether to derain -------------------------------------

    def _prepare(self, job: _Job) -> Result | None:
        """The result of a frame that does not go to the network; None for one that does."""
        if not job.demand and not self._settings.output.keep_warm:
            job.camera.interrupt("idle")
            return job.dropped("nobody subscribes")
        if (why := self._why_not()) is not None:
            return self._pass(job, why)
        if not self._decode(job):
            return self._pass(job, _Why("unreadable", is_fault=True))
        bypass = self._settings.bypass
        if bypass.mode == "auto" and not job.camera.bypass.update(
            job.gauge(), self._clock(), bypass
        ):
            return self._pass(job, _Why("no rain"))
        return None

    def _why_not(self) -> _Why | None:
        """Why no frame is derained at the moment, if so."""
        if not self._enabled:
            return _Why("disabled")
        if self._settings.bypass.mode == "always":
            return _Why("bypass")
        if not self._engines:
            return self._without
        if self._clock() < self._retry_at:
            return _Why("fault", is_fault=True)
        return None if self._budget.rung.derain else _Why("over budget")

    def _decode(self, job: _Job) -> bool:
        """Decode the frame, unless that was tried before; returns whether it can be read."""
        if job.frame is None and job.fault is None:
            try:
                job.frame = codec.decode(job.message)
            except FrameError as error:
                job.fault = Fault("unreadable", str(error))
                self._log(f"cannot read a frame of {job.camera.name!r}: {error}")
        return job.frame is not None

    def _pass(self, job: _Job, why: _Why) -> Result:
        """Let a frame through untouched, or drop it where that is what faults shall do."""
        job.camera.interrupt(why.reason)
        if why.is_fault and self._settings.safety.on_fault == "drop":
            return job.dropped(why.reason)
        same, other = (OutputKind.IMAGE, OutputKind.COMPRESSED)[:: 1 if job.is_raw else -1]
        needs_pixels = {other, OutputKind.RAIN_LEVEL}
        if job.demand & needs_pixels and not self._decode(job):
            if other in job.demand and same not in job.demand:
                return job.dropped("unreadable")
            job.demand -= needs_pixels
        job.target = None  # a network that failed may have written to it
        return self._finish(job, Outcome.PASSED, why.reason)

    # --- Second stage: the network, for all cameras together -----------------------------------

    def _derain(self, jobs: Sequence[_Job]) -> Iterator[Result]:
        try:
            with self._guard:
                engine = self._engines[self._budget.rung.shrink]
                steps = self._step(jobs, engine)
        except Exception as error:  # noqa: BLE001 - whatever a network does, frames go on
            self._fail(error)
            for job in jobs:
                job.fault = Fault("network", str(error))
                why = _Why("fault", is_fault=True)
                yield self._guarded(job, partial(self._pass, job, why))
            return
        self.failures = 0
        self._backoff.reset()
        for job, step in zip(jobs, steps, strict=True):
            job.step, job.scale = step, engine.info.scale
            yield self._guarded(job, partial(self._finish, job, Outcome.DERAINED))

    def _step(self, jobs: Sequence[_Job], engine: Engine) -> list[Step]:
        streams, frames = [], []
        for job in jobs:
            assert job.frame is not None
            stream = job.camera.stream or Stream(engine, self._settings.stream)
            stream.use(engine)
            job.camera.stream = stream
            if OutputKind.IMAGE in job.demand and job.encoding == "rgb8":
                job.target = codec.into(
                    job.camera.image,
                    height=job.frame.height * engine.info.scale,
                    width=job.frame.width * engine.info.scale,
                    encoding="rgb8",
                    header=job.header,
                )
            streams.append(stream)
            frames.append(job.frame)
        return step_together(
            streams,
            frames,
            stages=self.stages,
            attention=any(OutputKind.ATTENTION in job.demand for job in jobs),
            into=[job.target for job in jobs],
        )

    def _fail(self, error: Exception) -> None:
        """Wait before the network is tried again."""
        self.failures += 1
        wait_s = self._backoff.wait(self._settings.safety.retry_s)
        self._retry_at = self._clock() + wait_s
        self._log(f"the network failed, trying again in {wait_s:.1f} s: {error}")

    # --- Third stage: what goes out -------------------------------------------------------------

    def _finish(self, job: _Job, outcome: Outcome, reason: str = "") -> Result:
        """The result of a frame that goes out."""
        if not job.demand:
            return job.dropped("nobody subscribes")
        level = job.rain_level()
        if job.gauged is None:
            job.camera.gauge.reset()  # it compares with the frame before, and has not seen it
        messages = self._messages(job, level)
        return Result(job.index, outcome, reason, job.fault, job.frame, job.step, level, messages)

    def _messages(self, job: _Job, level: float | None) -> Iterator[tuple[OutputKind, Any]]:
        wanted: dict[OutputKind, Callable[[_Job], Any]] = {
            OutputKind.IMAGE: self._image,
            OutputKind.CALIBRATION: lambda job: job.camera.calibrations.of(job.header, job.scale),
            OutputKind.COMPRESSED: self._compressed,
            OutputKind.ATTENTION: self._attention,
            OutputKind.RAIN_LEVEL: lambda job: (
                None if level is None else job.camera.types.rain_level(level)
            ),
        }
        for kind, make in wanted.items():
            if kind in job.demand and (message := make(job)) is not None:
                yield kind, message

    def _image(self, job: _Job) -> Any:
        message = job.camera.image
        if job.step is None and job.is_raw:
            return job.message
        if job.target is None:
            codec.write_image(message, job.outgoing, encoding=job.encoding, header=job.header)
        return message

    def _compressed(self, job: _Job) -> Any:
        """In the format that the camera sends, so that PNG stays free of loss; else as JPEG."""
        if job.step is None and not job.is_raw:
            return job.message
        codec.write_compressed(
            job.camera.compressed,
            job.outgoing,
            format="jpeg" if job.is_raw else codec.compression(job.message),
            quality=self._settings.output.jpeg_quality,
            header=job.header,
        )
        return job.camera.compressed

    def _attention(self, job: _Job) -> Any | None:
        if job.step is None or (attention := job.step.attention) is None:
            return None
        overlay = self._settings.output.attention == "overlay"
        shown = _overlay(job.image, attention) if overlay else attention
        encoding = "rgb8" if overlay else "mono8"
        codec.write_image(job.camera.attention, shown, encoding=encoding, header=job.header)
        return job.camera.attention


def _overlay(image: Image, attention: NDArray[np.uint8]) -> Image:
    """The frame with red where rain was seen."""
    red, green, blue = cv2.split(image)
    dimmed = cv2.convertScaleAbs(attention, alpha=0.5)
    parts = (cv2.add(red, attention), cv2.subtract(green, dimmed), cv2.subtract(blue, dimmed))
    return np.asarray(cv2.merge(parts))


def _defect(error: Exception) -> Fault:
    return Fault("error", f"{type(error).__name__}: {error}")
