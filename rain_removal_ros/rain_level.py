"""How hard it rains, seen in the frames themselves: for when no network runs that could tell.

A streak is bright, thin and upright, and it is gone in the next frame. So the gauge measures how
much thin upright brightness has appeared since the last frame, and sets it against what appears for
other reasons, above all because the camera moves: that is as often dark as bright, and as often
level as upright. A few strips of the picture are enough, and leave the robot its time.
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
"""Wider pictures are reduced to about this: streaks are as wide as the picture is."""
_UPRIGHT = np.ones((1, 5), np.uint8)
_LEVEL = np.ones((5, 1), np.uint8)
_MARGIN = 2
"""Rows at a strip's edges, where what is level cannot be told."""
_NEAR = np.ones((3, 5), np.uint8)
"""How far details move from frame to frame without counting as new."""
_MOST = 40
"""Grey levels beyond which a detail counts no more, so that few bright lights are no rain."""
_NOISE = 0.05
"""Grey levels; what appears below this is nothing."""

# Fitted on synthetic rain of all styles over clear driving clips, some of them panned sideways:
# a pan makes upright edges appear, bright and dark alike, so that comparison counts only half.
_STEEPNESS = 18.0
_THRESHOLD = 0.23
_HARD = 2.0
"""Grey levels of fresh streaks, averaged over the picture, that are hard rain."""
_MEMORY = 0.7
"""How much of the last estimate stays."""


class _Details(NamedTuple):
    """What is thin in a picture, in grey levels."""

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
            # All details count as new: less sure, as a fence is upright too, but better than none.
            before = _Details(*(np.zeros_like(part) for part in now))
            self._estimate = None
        self._before = now
        level = _level(*(_fresh(*pair) for pair in zip(now, before, strict=True)))
        if self._estimate is None:
            self._estimate = level
        self._estimate = _MEMORY * self._estimate + (1 - _MEMORY) * level
        return self._estimate

    def reset(self) -> None:
        """Forget the frames before."""
        self._before = self._estimate = None


def _strips(image: Image) -> Image:
    """The green channel of a few strips across the picture, one below the other."""
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
    """How much of a detail is where none was before, in grey levels, over the whole picture."""
    appeared = cv2.min(cv2.subtract(now, cv2.dilate(before, _NEAR)), _MOST)  # type: ignore[call-overload]
    strips = appeared.reshape(_STRIPS, -1, appeared.shape[1])
    inner = strips[:, _MARGIN:-_MARGIN] if strips.shape[1] > 2 * _MARGIN else strips
    return float(inner.mean())


def _level(upright: float, dark: float, level: float) -> float:
    """The rain level from what appeared: how surely it is rain, times how much it is."""
    brighter = math.log((upright + _NOISE) / (dark + _NOISE))
    more_upright = math.log((upright + _NOISE) / (level + _NOISE))
    evidence = brighter + 0.5 * more_upright
    surely = 1 / (1 + math.exp(-_STEEPNESS * (evidence - _THRESHOLD)))
    return surely * (1 - math.exp(-upright / _HARD))
