"""Things that look like rain but are not: lines that belong to a scene, and pale light.

They are drawn into the reference, and so into the rainy picture; a network learns to keep them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.frames import Image

STRUCTURE_SHARE = 0.2
"""The share of scenes into which lines are drawn."""
PALE_SHARE = 0.2
"""The share of scenes without a veil that are made pale."""

_Mask = NDArray[np.uint8]
_SHIFT = 4
"""Fractional bits of the corners passed to OpenCV."""


def with_structures(picture: Image, rng: np.random.Generator) -> Image:
    """A copy of H x W x 3 with wires, poles, lane lines, a fence or window frames in it."""
    drawn = picture
    for _ in range(1 + int(rng.random() < 0.4)):
        mask = np.zeros(picture.shape[:2], np.uint8)
        _KINDS[int(rng.integers(len(_KINDS)))](mask, rng)
        if rng.random() < 0.5:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.0)), np.uint8)
        # Bright ones are more common, because they are more easily taken for rain.
        grey = rng.uniform(150, 255) if rng.random() < 0.65 else rng.uniform(5, 90)
        colour = np.clip(grey + rng.normal(0, 12, 3), 0, 255)
        drawn = _painted(drawn, mask, colour, rng.uniform(0.5, 1.0))
    return drawn


def paled(clip: Image, rng: np.random.Generator) -> Image:
    """A clip T x H x W x 3 as in full sun: brighter, flatter, less coloured, every frame alike."""
    # Shadows stay nearly as dark: lifting them would look like a veil.
    lift = 0.25 * rng.random() ** 2
    tone = np.clip(np.linspace(0, rng.uniform(1.0, 1.4), 256), 0, 1) ** rng.uniform(0.4, 1.0)
    white = np.clip(rng.uniform(0.8, 1.0) + rng.normal(0, 0.02, 3), 0, 1)
    table = tone[:, None] * (1 - lift) + lift * white
    grey = rng.uniform(0, 0.6)
    mixed = (1 - grey) * np.eye(3) + grey / 3
    levels = np.rint(255 * table).astype(np.uint8)[None]
    return np.stack([cv2.LUT(cv2.transform(frame, mixed), levels) for frame in clip])


def _painted(picture: Image, mask: _Mask, colour: NDArray[np.float64], opacity: float) -> Image:
    rows, columns = np.nonzero(mask)
    share = (mask[rows, columns] * (opacity / 255))[:, None]
    result = picture.copy()
    below = picture[rows, columns]
    result[rows, columns] = np.rint(below + share * (colour - below)).astype(np.uint8)
    return result


def _line(mask: _Mask, points: NDArray[np.float64], width: float, strength: int = 255) -> None:
    fixed = np.rint(points * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(mask, [fixed], False, strength, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _wires(mask: _Mask, rng: np.random.Generator) -> None:
    """Long cables that sag, in bundles."""
    height, width = mask.shape
    start, end = rng.uniform(0, 0.7 * height, 2)
    across = np.linspace(-0.05, 1.05, 24)
    sag = rng.uniform(0, 0.15) * height * 4 * across * (1 - across)
    for number in range(int(rng.integers(1, 7))):
        apart = number * rng.uniform(0.01, 0.06) * height
        y = start + (end - start) * across + sag + apart
        _line(mask, np.stack([across * width, y], 1), rng.uniform(1, 2.4))


def _poles(mask: _Mask, rng: np.random.Generator) -> None:
    """Upright, almost straight, from the ground or through the whole picture."""
    height, width = mask.shape
    for _ in range(int(rng.integers(1, 6))):
        x, lean = rng.uniform(0, width), rng.normal(0, 0.03)
        top = rng.uniform(-0.1, 0.5) * height
        bottom = height * (1.1 if rng.random() < 0.5 else rng.uniform(0.7, 1.0))
        points = np.array([[x, top], [x + lean * (bottom - top), bottom]])
        _line(mask, points, math.exp(rng.uniform(0, math.log(0.025 * width + 2))))


def _lanes(mask: _Mask, rng: np.random.Generator) -> None:
    """Markings of a road, solid or dashed, that run towards one point and get narrower."""
    height, width = mask.shape
    goal = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.3, 0.6) * height])
    nearest = rng.uniform(0.008, 0.03) * width
    for _ in range(int(rng.integers(1, 5))):
        foot = np.array([rng.uniform(-0.5, 1.5) * width, 1.05 * height])
        # Equal steps on the road get smaller in the picture.
        dashes = int(rng.integers(3, 12))
        ends = 1 / (1 + 0.5 * np.arange(2 * dashes)) if rng.random() < 0.6 else np.array([1, 0.02])
        for near, far in ends.reshape(-1, 2):
            quad = [
                goal + share * (foot - goal) + [side * share * nearest, 0]
                for share, side in ((near, -0.5), (near, 0.5), (far, 0.5), (far, -0.5))
            ]
            fixed = np.rint(np.array(quad) * (1 << _SHIFT)).astype(np.int32)
            cv2.fillConvexPoly(mask, fixed, 255, cv2.LINE_AA, _SHIFT)


def _fence(mask: _Mask, rng: np.random.Generator) -> None:
    """Bars at even distances between two rails, or a blind of slats."""
    height, width = mask.shape
    apart = math.exp(rng.uniform(math.log(5), math.log(0.08 * width + 6)))
    left, right = np.sort(rng.uniform(-0.2, 1.2, 2)) * width
    top = rng.uniform(0.0, 0.7) * height
    tall, lean, bar = (
        rng.uniform(0.1, 0.5) * height,
        rng.normal(0, 0.05),
        rng.uniform(1, 0.35 * apart),
    )
    for x in np.arange(left, right, apart):
        _line(mask, np.array([[x, top], [x + lean * tall, top + tall]]), bar)
    for share in (0.08, 0.92):
        y, shift = top + share * tall, lean * share * tall
        _line(mask, np.array([[left + shift, y], [right + shift, y]]), bar)


def _windows(mask: _Mask, rng: np.random.Generator) -> None:
    """A front with the frames of its windows, in a slight perspective."""
    height, width = mask.shape
    columns, rows = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    left, top = rng.uniform(0, 0.6) * width, rng.uniform(0, 0.5) * height
    broad, tall = rng.uniform(0.2, 0.6) * width, rng.uniform(0.2, 0.5) * height
    slope, bar = rng.normal(0, 0.1), rng.uniform(1, 3)
    filled = rng.uniform(0.4, 0.85)
    for column in range(columns):
        for row in range(rows):
            x0 = left + broad * column / columns
            y0 = top + tall * row / rows
            x1, y1 = x0 + filled * broad / columns, y0 + filled * tall / rows
            middle = (x0 + x1) / 2
            outline = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
            bars = (outline, np.array([[middle, y0], [middle, y1]]))
            for points in bars:
                _line(mask, points + [[0, slope]] * (points[:, :1] - left), bar)


_KINDS: tuple[Callable[[_Mask, np.random.Generator], None], ...] = (
    _wires, _poles, _lanes, _lanes, _lanes, _fence, _windows,
)  # fmt: skip
"""Lane lines three times: a car must not lose them."""
