"""Measures how hard it rains from the frames alone, without a network.

A streak is bright, thin and upright, and gone in the next frame. So the gauge measures how much
thin upright brightness has appeared since the last frame, and compares it with what appears for
other reasons, mainly because the camera moves: that is as often dark as bright, and as often
horizontal as upright. A few strips of the picture are enough, which saves time on a robot.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.frames import Image

_STRIPS = 6
_ROWS = 24
_USUAL_WIDTH = 640
"""Wider pictures are reduced to about this, because streaks scale with the picture."""
_UPRIGHT = np.ones((1, 5), np.uint8)
_LEVEL = np.ones((5, 1), np.uint8)
_MARGIN = 2
"""Rows at a strip's edges, where horizontal details cannot be recognised."""
_NEAR = np.ones((3, 5), np.uint8)
"""How far details may move from frame to frame without counting as new."""
_MOST = 40
"""The most grey levels that one detail counts, so that few bright lights do not count as rain."""
_NOISE = 0.05
"""Grey levels below which nothing counts as having appeared."""

# Fitted on synthetic rain of all styles over clear driving clips, some of them panned sideways. A
# pan makes upright edges appear, bright and dark alike, so that comparison counts only half.
_STEEPNESS = 18.0
_THRESHOLD = 0.23
_HARD = 2.0
"""Grey levels of fresh streaks, averaged over the picture, that count as hard rain."""
_MEMORY = 0.7
"""The weight of the previous estimate."""


class _Details(NamedTuple):
    """The thin details of a picture, in grey levels."""

    upright: Image
    upright_dark: Image
    level: Image


class RainGauge:
    """Estimates the rain of one camera, frame after frame."""

    def __init__(self) -> None:
        self._before: _Details | None = None
        self._estimate: float | None = None

    def update(self, image: Image) -> float:
        """The rain level after this frame, in [0, 1]."""
        now, before = _details(_strips(image)), self._before
        if before is None or before.level.shape != now.level.shape:
            # All details count as new. This is less certain, as a fence is upright too, but better
            # than nothing.
            before = _Details(*(np.zeros_like(part) for part in now))
            self._estimate = None
        self._before = now
        level = _level(*(_fresh(*pair) for pair in zip(now, before, strict=True)))
        if self._estimate is None:
            self._estimate = level
        self._estimate = _MEMORY * self._estimate + (1 - _MEMORY) * level
        return self._estimate

    def reset(self) -> None:
        """Forget the previous frames."""
        self._before = self._estimate = None


def _strips(image: Image) -> Image:
    """The green channel of a few strips across the picture, stacked."""
    height, width = image.shape[:2]
    shrink = max(1, round(width / _USUAL_WIDTH))
    rows = min(_ROWS * shrink, height)
    tops = np.linspace(0, height - rows, _STRIPS).astype(int)
    size = (max(1, width // shrink), max(1, rows // shrink))
    green = [np.ascontiguousarray(image[top : top + rows, :, 1]) for top in tops]
    if shrink > 1:
        green = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in green]  # type: ignore[misc]
    return np.vstack(green)


def _details(grey: Image) -> _Details:
    def thin(operation: int, shape: NDArray[np.uint8]) -> Image:
        return np.asarray(cv2.morphologyEx(grey, operation, shape), np.uint8)

    return _Details(
        upright=thin(cv2.MORPH_TOPHAT, _UPRIGHT),
        upright_dark=thin(cv2.MORPH_BLACKHAT, _UPRIGHT),
        level=thin(cv2.MORPH_TOPHAT, _LEVEL),
    )


def _fresh(now: Image, before: Image) -> float:
    """The mean grey levels of details that appeared where there were none before."""
    appeared = cv2.min(cv2.subtract(now, cv2.dilate(before, _NEAR)), _MOST)  # type: ignore[call-overload]
    strips = appeared.reshape(_STRIPS, -1, appeared.shape[1])
    inner = strips[:, _MARGIN:-_MARGIN] if strips.shape[1] > 2 * _MARGIN else strips
    return float(inner.mean())


def _level(upright: float, dark: float, level: float) -> float:
    """The rain level from what appeared: how certainly it is rain, times how much it is."""
    brighter = math.log((upright + _NOISE) / (dark + _NOISE))
    more_upright = math.log((upright + _NOISE) / (level + _NOISE))
    evidence = brighter + 0.5 * more_upright
    surely = 1 / (1 + math.exp(-_STEEPNESS * (evidence - _THRESHOLD)))
    return surely * (1 - math.exp(-upright / _HARD))
