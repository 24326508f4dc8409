"""Cleans a smaller picture and applies what was found to the whole one: less quality, less time.

What is enlarged is the correction, not the picture, so that detail stays sharp where it does not
rain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rain_removal_ros.engines import Cleaned, Engine
from rain_removal_ros.frames import Image


class ReducedEngine:
    """See ``Engine``. ``factor`` divides the sides of what the engine within gets to see."""

    def __init__(self, engine: Engine, factor: int) -> None:
        self._engine = engine
        self._factor = factor
        self.network_name = engine.network_name
        self.name = engine.name
        self.device = engine.device
        self.precision = engine.precision
        self.scale = engine.scale
        self.recurrent = engine.recurrent
        self.cautions = engine.cautions

    @property
    def note(self) -> str:
        return self._engine.note

    @note.setter
    def note(self, text: str) -> None:
        self._engine.note = text

    @property
    def stages(self) -> int:
        return self._engine.stages

    @stages.setter
    def stages(self, count: int) -> None:
        self._engine.stages = count

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Cleaned]:
        small = [self._reduced(image) for image in images]
        results = self._engine.step(small, states, attention=attention)
        targets = into or [None] * len(images)
        return [
            self._enlarged(*parts) for parts in zip(images, small, results, targets, strict=True)
        ]

    def _reduced(self, image: Image) -> Image:
        height, width = (max(1, side // self._factor) for side in image.shape[:2])
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))

    def _enlarged(
        self, image: Image, small: Image, result: Cleaned, target: Image | None
    ) -> Cleaned:
        height, width = image.shape[:2]
        if target is None:
            target = np.empty((height * self.scale, width * self.scale, 3), np.uint8)
        if self.scale == 1:
            correction = cv2.subtract(result.image, small, dtype=cv2.CV_16S)
            cv2.add(image, cv2.resize(correction, (width, height)), target, dtype=cv2.CV_8U)
        else:
            size = (target.shape[1], target.shape[0])
            cv2.resize(result.image, size, target, interpolation=cv2.INTER_CUBIC)
        seen = result.attention
        if seen is not None:
            seen = np.asarray(cv2.resize(seen, (width, height)))
        return Cleaned(target, seen, result.rain_level, result.state)
