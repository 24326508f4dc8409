"""One camera's run of a network: it owns the state and decides when to discard it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.engines import Derained, Engine
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.settings import StreamSettings


@dataclass(frozen=True, slots=True)
class Step:
    """A derained frame and how it was made."""

    frame: Frame
    attention: NDArray[np.uint8] | None
    rain_level: float | None
    reset: str | None
    """Why the state was discarded before this frame, or None if it was carried."""
    seconds: float
    """The engine's time for all frames of the batch together."""


class Stream:
    """Feeds one camera's frames to an engine, carrying the state from each to the next.

    It starts afresh, and says why, when frames no longer follow each other: another size or engine,
    time running backwards, a long gap, a scene cut, or a request.
    """

    def __init__(self, engine: Engine, settings: StreamSettings | None = None) -> None:
        self.engine = engine
        self.settings = settings or StreamSettings()
        self.state: Any = None
        self.state_since_ns = 0
        """Stamp of the first frame after the last reset."""
        self._pending = "start"
        self._last: Frame | None = None
        self._glimpse: NDArray[np.float32] | None = None

    @property
    def carries(self) -> bool:
        """Whether state is carried: not with weights that are worse for it, unless the settings
        insist.
        """
        settings = self.settings
        costs = self.engine.info.recurrent and self.engine.info.cautions.state
        return settings.carry_state and (settings.carry_state_always or not costs)

    def reset(self, reason: str) -> None:
        """Discard the state before the next frame."""
        self.state = None
        self._pending = reason

    def use(self, engine: Engine) -> None:
        """Use another engine from now on; it cannot read this one's state."""
        if engine is not self.engine:
            self.engine = engine
            self.reset("another network")

    def step(
        self, frame: Frame, *, stages: int = 0, attention: bool = True, into: Image | None = None
    ) -> Step:
        """Derain one frame."""
        return step_together([self], [frame], stages=stages, attention=attention, into=[into])[0]

    def admit(self, frame: Frame) -> str | None:
        """Note the next frame; returns why the state cannot be carried over, if so."""
        reason = self._pending or self._break_before(frame)
        self._pending = ""
        if reason or not self.carries:
            self.state = None
        if reason:
            self.state_since_ns = frame.stamp_ns
        self._last = frame if self.carries else None
        return reason or None

    def _break_before(self, frame: Frame) -> str:
        last, limits = self._last, self.settings
        glimpse = _glimpse(frame.image) if limits.scene_cut > 0 and self.carries else None
        before, self._glimpse = self._glimpse, glimpse
        if last is None:
            return ""
        if last.image.shape != frame.image.shape:
            return "another size"
        if frame.stamp_ns < last.stamp_ns:
            return "time ran backwards"
        if frame.stamp_ns - last.stamp_ns > limits.max_gap_s * 1e9:
            return "gap"
        if before is None or glimpse is None:
            return ""
        return "scene cut" if _unlikeness(before, glimpse) > limits.scene_cut else ""


def step_together(
    streams: Sequence[Stream],
    frames: Sequence[Frame],
    *,
    stages: int = 0,
    attention: bool = True,
    into: Sequence[Image | None] | None = None,
) -> list[Step]:
    """Derain one frame of each of several cameras that share an engine.

    Frames of one size whose states have the same shapes go through the network in one batch. If the
    engine fails, all streams of the batch start afresh at their next frame.
    """
    targets = into or [None] * len(frames)
    resets = [stream.admit(frame) for stream, frame in zip(streams, frames, strict=True)]
    batches: dict[tuple[int, tuple[int, ...], bool], list[int]] = {}
    for index, (stream, frame) in enumerate(zip(streams, frames, strict=True)):
        key = (id(stream.engine), frame.image.shape, stream.state is None)
        batches.setdefault(key, []).append(index)
    steps: list[Step | None] = [None] * len(frames)
    for batch in batches.values():
        began = time.perf_counter()
        try:
            results = streams[batch[0]].engine.step(
                [frames[index].image for index in batch],
                [streams[index].state for index in batch],
                stages=stages,
                attention=attention,
                into=[targets[index] for index in batch],
            )
        except Exception:
            for index in batch:
                streams[index].reset("fault")
            raise
        seconds = time.perf_counter() - began
        for index, result in zip(batch, results, strict=True):
            steps[index] = _finish(streams[index], frames[index], result, resets[index], seconds)
    return [step for step in steps if step is not None]


def _finish(
    stream: Stream, frame: Frame, result: Derained, reset: str | None, seconds: float
) -> Step:
    if stream.carries:
        stream.state = result.state
    _blend(frame.image, result.image, stream.settings.strength)
    derained = replace(frame, image=result.image)
    return Step(derained, result.attention, result.rain_level, reset, seconds)


def _blend(original: Image, derained: Image, strength: float) -> None:
    """Apply only a share of the correction, in place."""
    if strength == 1.0:
        return
    if original.shape != derained.shape:
        size = (derained.shape[1], derained.shape[0])
        original = cv2.resize(original, size, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    cv2.addWeighted(derained, strength, original, 1 - strength, 0.0, dst=derained)


def _glimpse(image: Image) -> NDArray[np.float32]:
    """A few hundred grey cells that show roughly what the scene looks like.

    Each is the mean of a few pixels of the green channel, so that a streak changes it little.
    """
    height, width = image.shape[:2]
    rows, columns = max(1, height // 48), max(1, width // 64)
    sparse = np.ascontiguousarray(image[::rows, ::columns, 1])
    return cv2.resize(sparse, (16, 12), interpolation=cv2.INTER_AREA).astype(np.float32)


def _unlikeness(before: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    """From 0 for the same scene to 1 for scenes with nothing in common."""
    before, now = before - before.mean(), now - now.mean()
    # The floor prevents noise in a featureless picture, such as fog or a wall, from counting as a
    # cut.
    floor = 4.0 * before.size
    together = float((before * now).sum()) + floor
    apart = float(np.sqrt(((before**2).sum() + floor) * ((now**2).sum() + floor)))
    return min(1.0, max(0.0, 1.0 - together / apart))
