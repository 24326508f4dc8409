"""Cameras, free of ROS: an image message goes in, a result comes out.

The node and the replay of recordings both use this, so the same messages and settings give the same
bytes on a robot and on a desk. The caller provides the time. No input raises an error: a frame that
cannot be derained passes through unchanged or is dropped, as ``safety.on_fault`` says, and its
result has the reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

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
from rain_removal_ros.runtime.memory import MemoryBudget
from rain_removal_ros.settings import Settings
from rain_removal_ros.stream import Step, Stream, step_together

_NO_FAULTS = ("disabled", "bypass", "no rain", "over budget", "over memory")
"""Reasons to pass a frame through to which ``safety.on_fault`` does not apply."""

_THIN_PIXELS = 1_000_000
"""The most pixels that padding may add beyond doubling a frame: one row of pixels may become 32."""


class OutputKind(Enum):
    """The kinds of output, each with a topic of its own."""

    IMAGE = "image"
    CALIBRATION = "calibration"
    COMPRESSED = "compressed"
    ATTENTION = "attention"
    RAIN_LEVEL = "rain level"


Demand: TypeAlias = frozenset[OutputKind]
"""The outputs that are wanted."""


class Outcome(Enum):
    """What happened to a frame."""

    DERAINED = "derained"
    PASSED = "passed"
    DROPPED = "dropped"


class Fault(NamedTuple):
    """What went wrong with a frame."""

    kind: str
    text: str


class MessageTypes(NamedTuple):
    """Makes outgoing messages, of rclpy's or rosbags' types."""

    image: Callable[[], Any]
    compressed: Callable[[], Any]
    rain_level: Callable[[float], Any]


class Camera:
    """What is kept for one camera from frame to frame."""

    def __init__(
        self, name: str, types: MessageTypes, calibrations: Calibrations | None = None
    ) -> None:
        self.name = name
        self.types = types
        self.calibrations = calibrations or Calibrations()
        self.stream: Stream | None = None
        self.gauge = RainGauge()
        self.bypass = Bypass()
        # Outgoing messages are reused: their buffers are large.
        self.image, self.attention = types.image(), types.image()
        self.compressed = types.compressed()

    def interrupt(self, reason: str) -> None:
        """Note that the next derained frame does not follow the last one."""
        if self.stream is not None and self.stream.state is not None:
            self.stream.reset(reason)

    def reset(self, reason: str) -> None:
        """Start afresh."""
        self.gauge.reset()
        self.bypass = Bypass()
        if self.stream is not None:
            self.stream.reset(reason)


@dataclass(slots=True)
class Result:
    """An incoming message and what happened to it."""

    camera: int
    message: Any
    demand: Demand
    outcome: Outcome = Outcome.DERAINED
    reason: str = ""
    """Why it was not derained."""
    fault: Fault | None = None
    frame: Frame | None = None
    """The decoded input, if it was decoded."""
    step: Step | None = None
    """What the network made of it."""
    scale: int = 1
    """How many times larger than the frame the outgoing image is."""
    rain_level: float | None = None
    messages: Iterator[tuple[OutputKind, Any]] = iter(())
    """The outgoing messages, the image first; each is made when the iterator reaches it. They are
    reused for the camera's next frame: send or copy them before."""

    @property
    def header(self) -> Any:
        return self.message.header

    @property
    def is_raw(self) -> bool:
        return hasattr(self.message, "encoding")

    @property
    def encoding(self) -> str:
        """The encoding of the outgoing derained image."""
        return codec.output_encoding(self.message.encoding) if self.is_raw else "rgb8"

    @property
    def pixels(self) -> Image:
        """The pixels of the outgoing image; the frame must have been decoded."""
        frame = self.frame if self.step is None else self.step.frame
        assert frame is not None
        return frame.image

    def drop(self, reason: str) -> None:
        self.outcome, self.reason = Outcome.DROPPED, reason


class Cameras:
    """All cameras of a robot or of a recording, and the engine that they share."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        settings: Settings,
        *,
        clock: Callable[[], float],
        guard: AbstractContextManager[object] | None = None,
        log: Callable[[str], object] = lambda text: None,
    ) -> None:
        """``clock`` returns seconds; ``guard`` surrounds the network's run; ``log`` gets lines."""
        self._cameras = cameras
        self._settings = settings
        self._clock = clock
        self._guard = guard or nullcontext()
        self._log = log
        self._engines: dict[int, Engine] = {}
        """Engines by the factor that divides the frame's sides; empty without a network."""
        self._without = "loading"
        self._enabled = True
        self._budget = Budget(ladder(1))
        self._memory = MemoryBudget()
        self._backoff = Backoff()
        self._retry_at = -math.inf
        self.failures = 0
        """Consecutive failures of the network."""

    # --- Orders: given between two frames ----------------------------------------------------

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        for camera in self._cameras:
            if camera.stream is not None:
                camera.stream.settings = settings.stream
        self._set_stages()

    def use(self, engine: Engine, *, pixel_bytes: float = 0.0) -> None:
        """Use another network from now on; a pixel of a frame takes ``pixel_bytes`` of memory."""
        self._memory = MemoryBudget(pixel_bytes)
        self._engines = {1: engine} | {n: DownscaledEngine(engine, n) for n in DOWNSCALING}
        self.failures = 0
        self._retry_at = -math.inf
        self._set_stages()

    def do_without(self, reason: str) -> None:
        """Continue without a network."""
        self._engines = {}
        self._without = reason
        self.failures = 0
        for camera in self._cameras:
            camera.stream = None

    def reset(self, reason: str) -> None:
        """Let every camera start afresh."""
        for camera in self._cameras:
            camera.reset(reason)

    def enable(self, on: bool) -> None:  # noqa: FBT001 - what the service hands in
        """Derain frames, or pass all of them through."""
        self._enabled = on

    @property
    def rung(self) -> Rung:
        """The current rung of degradation."""
        return self._budget.rung

    @property
    def retry_in_s(self) -> float:
        """Seconds until the network is tried again."""
        return max(0.0, self._retry_at - self._clock())

    def state_since_ns(self, index: int) -> int | None:
        """The stamp of the first frame that a camera's state goes back to; None without state."""
        stream = self._cameras[index].stream
        return stream.state_since_ns if stream is not None and stream.state is not None else None

    @property
    def stages(self) -> int:
        """Current passes over a frame; 0 without a network."""
        return min(self._all_stages, self._budget.rung.stages or self._all_stages)

    @property
    def _all_stages(self) -> int:
        """Passes over a frame at full quality."""
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

    def process(self, arrivals: Iterable[tuple[int, Any, Demand]]) -> Iterator[Result]:
        """Process one frame each of some cameras, given as index, message and demand.

        The frames to derain form one batch. Results are yielded as soon as they are known: a frame
        that passes through waits for no other.
        """
        began = time.monotonic()
        waiting: list[Result] = []
        for arrival in arrivals:
            result = Result(*arrival)
            with self._accounting(result):
                if self._prepare(result):
                    waiting.append(result)
                    continue
            yield result
        if waiting:
            yield from self._derain(waiting)
        if waiting or not self._budget.rung.derain:
            self._adapt(time.monotonic() - began)

    @contextmanager
    def _accounting(self, result: Result) -> Iterator[None]:
        """If something unforeseen happens to a frame, drop that frame only."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a robot keeps its camera
            result.fault = Fault("error", f"{type(error).__name__}: {error}")
            result.drop("error")
            self._log(f"a frame was lost to {result.fault.text}")

    def _adapt(self, seconds: float) -> None:
        """Go up or down the ladder, depending on how long the last frames took."""
        before = self._budget.rung
        budget_s = self._settings.safety.budget_ms / 1e3
        after = self._budget.update(seconds, self._clock(), budget_s)
        if after != before:
            self._log(f"{self._why_adapted(before, budget_s)}: now at {after.name}")

    def _why_adapted(self, before: Rung, budget_s: float) -> str:
        if not budget_s:
            return "there is no time budget any more"
        rungs = self._budget.rungs
        down = rungs.index(self._budget.rung) > rungs.index(before)
        usual_ms, budget_ms = 1e3 * self._budget.usual_s, 1e3 * budget_s
        return f"frames take {usual_ms:.0f} ms, {'more' if down else 'less'} than {budget_ms:.0f}"

    # --- First stage: decode, and decide whether to derain -------------------------------------

    def _prepare(self, result: Result) -> bool:
        """Returns whether the frame goes to the network; if not, its result is complete."""
        camera, bypass = self._cameras[result.camera], self._settings.bypass
        if not result.demand and not self._settings.output.keep_warm:
            camera.interrupt("idle")
            result.drop("nobody subscribes")
            return False
        why = self._why_not()
        if not why and not self._decode(result):
            why = "unreadable"
        why = why or self._costs_too_much(result)
        if not why and bypass.mode == "auto":
            level = self._gauge(result)
            why = "" if camera.bypass.update(level, self._clock(), bypass) else "no rain"
        if why:
            self._pass(result, why)
        return not why

    def _why_not(self) -> str:
        """Why no frames are derained at the moment, or nothing."""
        if not self._enabled:
            return "disabled"
        if self._settings.bypass.mode == "always":
            return "bypass"
        if not self._engines:
            return self._without
        if self._clock() < self._retry_at:
            return "fault"
        return "" if self._budget.rung.derain else "over budget"

    def _costs_too_much(self, result: Result) -> str:
        """Why the network cannot process a decoded frame, or nothing."""
        frame, stride = result.frame, self._engines[1].info.stride
        assert frame is not None
        width, height = frame.width, frame.height
        padded = _padded(width, stride) * _padded(height, stride)
        most = int(self._settings.limits.frame_mp * 1e6)
        if padded > min(most, 2 * width * height + _THIN_PIXELS):
            text = f"{width}x{height} pixels are {padded} with padding"
            text += f"; limits.frame_mp allows {most}" if padded > most else ", mostly that"
            result.fault = Fault("too large", text)
            self._log(f"a frame of {self._cameras[result.camera].name!r} is too large: {text}")
            return "too large"
        most_bytes = self._settings.safety.memory_mb * 10**6
        if most_bytes and not self._memory.admits(padded, most_bytes):
            self._log(f"safety.memory_mb does not allow to derain {width}x{height} pixels")
            return "over memory"
        return ""

    def _decode(self, result: Result) -> bool:
        """Decode the frame unless that was tried before; returns whether it is readable."""
        if result.frame is None and result.fault is None:
            try:
                result.frame = codec.decode(result.message, self._settings.limits)
            except FrameError as error:
                result.fault = Fault("unreadable", str(error))
                name = self._cameras[result.camera].name
                self._log(f"cannot read a frame of {name!r}: {error}")
        return result.frame is not None

    def _gauge(self, result: Result) -> float:
        """The rain level of a decoded frame, measured once."""
        assert result.frame is not None
        if result.rain_level is None:
            result.rain_level = self._cameras[result.camera].gauge.update(result.frame.image)
        return result.rain_level

    def _pass(self, result: Result, why: str) -> None:
        """Pass a frame through unchanged, or drop it if ``safety.on_fault`` says so."""
        self._cameras[result.camera].interrupt(why)
        if why not in _NO_FAULTS and self._settings.safety.on_fault == "drop":
            result.drop(why)
            return
        same, other = (OutputKind.IMAGE, OutputKind.COMPRESSED)[:: 1 if result.is_raw else -1]
        needs_pixels = {other, OutputKind.RAIN_LEVEL}
        if result.demand & needs_pixels and not self._decode(result):
            if other in result.demand and same not in result.demand:
                result.drop("unreadable")
                return
            result.demand -= needs_pixels
        result.outcome, result.reason = Outcome.PASSED, why
        self._finish(result)

    # --- Second stage: the network, for all cameras together -----------------------------------

    def _derain(self, waiting: Sequence[Result]) -> Iterator[Result]:
        try:
            with self._guard:
                steps = self._step(waiting, self._engines[self._budget.rung.shrink])
        except Exception as error:  # noqa: BLE001 - whatever a network does, frames go on
            self._fail(error)
            for result in waiting:
                result.fault = Fault("network", str(error))
                with self._accounting(result):
                    self._pass(result, "fault")
                yield result
            return
        self.failures = 0
        self._backoff.reset()
        for result, step in zip(waiting, steps, strict=True):
            result.step, result.scale = step, self._engines[1].info.scale
            with self._accounting(result):
                self._finish(result)
            yield result

    def _step(self, waiting: Sequence[Result], engine: Engine) -> list[Step]:
        streams, frames, targets = [], [], []
        for result in waiting:
            camera, frame = self._cameras[result.camera], result.frame
            assert frame is not None
            camera.stream = camera.stream or Stream(engine, self._settings.stream)
            camera.stream.use(engine)
            streams.append(camera.stream)
            frames.append(frame)
            targets.append(
                codec.into(
                    camera.image,
                    height=frame.height * engine.info.scale,
                    width=frame.width * engine.info.scale,
                    encoding="rgb8",
                    header=result.header,
                )
                if OutputKind.IMAGE in result.demand and result.encoding == "rgb8"
                else None
            )
        attention = any(OutputKind.ATTENTION in result.demand for result in waiting)
        return step_together(streams, frames, stages=self.stages, attention=attention, into=targets)

    def _fail(self, error: Exception) -> None:
        """Wait before trying the network again."""
        self.failures += 1
        wait_s = self._backoff.wait(self._settings.safety.retry_s)
        self._retry_at = self._clock() + wait_s
        self._log(f"the network failed, trying again in {wait_s:.1f} s: {error}")

    # --- Third stage: what goes out -------------------------------------------------------------

    def _finish(self, result: Result) -> None:
        """Complete the result of an outgoing frame: rain level and messages."""
        if not result.demand:
            result.drop("nobody subscribes")
            return
        by_network = None if result.step is None else result.step.rain_level
        if by_network is None and OutputKind.RAIN_LEVEL in result.demand:
            self._gauge(result)
        if result.rain_level is None:
            # The gauge compares with the previous frame, and has not seen this one.
            self._cameras[result.camera].gauge.reset()
        if by_network is not None:
            result.rain_level = by_network if math.isfinite(by_network) else None
        result.messages = self._messages(result)

    def _messages(self, result: Result) -> Iterator[tuple[OutputKind, Any]]:
        camera, demand = self._cameras[result.camera], result.demand
        with self._accounting(result):
            if OutputKind.IMAGE in demand:
                yield OutputKind.IMAGE, self._image(result, camera)
            calibration = camera.calibrations.of(result.header, result.scale)
            if OutputKind.CALIBRATION in demand and calibration is not None:
                yield OutputKind.CALIBRATION, calibration
            if OutputKind.COMPRESSED in demand:
                yield OutputKind.COMPRESSED, self._compressed(result, camera)
            if OutputKind.ATTENTION in demand and self._attention(result, camera):
                yield OutputKind.ATTENTION, camera.attention
            if OutputKind.RAIN_LEVEL in demand and result.rain_level is not None:
                yield OutputKind.RAIN_LEVEL, camera.types.rain_level(result.rain_level)

    def _image(self, result: Result, camera: Camera) -> Any:
        if result.step is None and result.is_raw:
            return result.message
        if result.step is None or result.encoding != "rgb8":  # otherwise the engine wrote it there
            codec.write_image(
                camera.image, result.pixels, encoding=result.encoding, header=result.header
            )
        return camera.image

    def _compressed(self, result: Result, camera: Camera) -> Any:
        """The compressed image, in the camera's format so that PNG stays lossless; raw images as
        JPEG.
        """
        if result.step is None and not result.is_raw:
            return result.message
        codec.write_compressed(
            camera.compressed,
            result.pixels,
            format="jpeg" if result.is_raw else codec.compression(result.message),
            quality=self._settings.output.jpeg_quality,
            header=result.header,
        )
        return camera.compressed

    def _attention(self, result: Result, camera: Camera) -> bool:
        """Draw it; returns whether there is any."""
        if result.step is None or result.frame is None or result.step.attention is None:
            return False
        shown, encoding = result.step.attention, "mono8"
        if self._settings.output.attention == "overlay":
            shown, encoding = _overlay(result.frame.image, shown), "rgb8"
        codec.write_image(camera.attention, shown, encoding=encoding, header=result.header)
        return True


def _padded(side: int, stride: int) -> int:
    return -(-side // stride) * stride


def _overlay(image: Image, attention: NDArray[np.uint8]) -> Image:
    """The frame with red where rain was seen."""
    red, green, blue = cv2.split(image)
    dimmed = cv2.convertScaleAbs(attention, alpha=0.5)
    parts = (cv2.add(red, attention), cv2.subtract(green, dimmed), cv2.subtract(blue, dimmed))
    return np.asarray(cv2.merge(parts))
