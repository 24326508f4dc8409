"""Derains a reduced picture and applies the correction to the full one: less quality, less time.

The correction is enlarged, not the picture, so that detail stays sharp where it does not rain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rain_removal_ros.engines._base import Derained, Engine
from rain_removal_ros.frames import Image


class DownscaledEngine:
    """See ``Engine``. The sides of frames are divided by ``factor`` for the inner engine."""

    def __init__(self, engine: Engine, factor: int) -> None:
        self._engine = engine
        self._factor = factor
        self.info = engine.info

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        small = [self._downscaled(image) for image in images]
        results = self._engine.step(small, states, stages=stages, attention=attention)
        targets = into or [None] * len(images)
        return [
            self._enlarged(*parts) for parts in zip(images, small, results, targets, strict=True)
        ]

    def _downscaled(self, image: Image) -> Image:
        height, width = (max(1, side // self._factor) for side in image.shape[:2])
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))

    def _enlarged(
        self, image: Image, small: Image, result: Derained, target: Image | None
    ) -> Derained:
        height, width = image.shape[:2]
        if target is None:
            target = np.empty((height * self.info.scale, width * self.info.scale, 3), np.uint8)
        if self.info.scale == 1:
            correction = cv2.subtract(result.image, small, dtype=cv2.CV_16S)
            cv2.add(image, cv2.resize(correction, (width, height)), target, dtype=cv2.CV_8U)
        else:
            size = (target.shape[1], target.shape[0])
            cv2.resize(result.image, size, target, interpolation=cv2.INTER_CUBIC)
        seen = result.attention
        if seen is not None:
            seen = np.asarray(cv2.resize(seen, (width, height)))
        return Derained(target, seen, result.rain_level, result.state)
