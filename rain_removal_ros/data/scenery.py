"""Things that look like rain but are not: lines that belong to a scene, and pale light.

They are drawn into the reference, and so into the rainy picture; a network learns to keep them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rain_removal_ros.data import clips
from rain_removal_ros.data.clips import Window
from rain_removal_ros.frames import Image

STRUCTURE_SHARE = 0.2
"""The share of scenes into which lines are drawn."""
PASSING_SHARE = 0.3
"""The share of clips in which something passes that is nearer than the scene."""
PALE_SHARE = 0.2
"""The share of scenes without a veil that are made pale."""

_Mask = NDArray[np.uint8]
_SHIFT = 4
"""Fractional bits of the corners passed to OpenCV."""


def with_structures(picture: Image, rng: np.random.Generator) -> Image:
    """A copy of H x W x 3 with one or two kinds of lines in it, such as wires or a fence."""
    drawn = picture
    for _ in range(1 + int(rng.random() < 0.4)):
        mask = np.zeros(picture.shape[:2], np.uint8)
        _KINDS[int(rng.integers(len(_KINDS)))](mask, rng)
        drawn = _painted(drawn, _softened(mask, rng), _colour(rng), rng.uniform(0.5, 1.0))
    return drawn


def with_passing(clip: Image, rng: np.random.Generator) -> Image:
    """A clip T x H x W x 3 through which posts, dashes, reflectors or wires pass.

    They move faster than the scene, like all that is near a road. The past that is aligned with the
    scene does not show them where they are, just as it does not show rain.
    """
    frames, height, width = clip.shape[:3]
    larger = rng.uniform(1.2, 2.5)
    mask = np.zeros((round(larger * height), round(larger * width)), np.uint8)
    for _ in range(1 + int(rng.random() < 0.4)):
        _PASSING[int(rng.integers(len(_PASSING)))](mask, rng)
    (masks,) = clips.pan((_softened(mask, rng),), Window(height, width, frames), rng, _PASSING_FAST)
    colour, opacity = _colour(rng), rng.uniform(0.5, 1.0)
    return np.stack(
        [_painted(frame, seen, colour, opacity) for frame, seen in zip(clip, masks, strict=True)]
    )


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


def _softened(mask: _Mask, rng: np.random.Generator) -> _Mask:
    """Half of the time slightly out of focus."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.0)), np.uint8)
    return mask


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Nearly grey; bright more often than dark, because that is more easily taken for rain."""
    grey = rng.uniform(150, 255) if rng.random() < 0.65 else rng.uniform(5, 90)
    return np.clip(grey + rng.normal(0, 12, 3), 0, 255)


def _painted(picture: Image, mask: _Mask, colour: NDArray[np.float64], opacity: float) -> Image:
    rows, columns = np.nonzero(mask)
    share = (mask[rows, columns] * (opacity / 255))[:, None]
    result = picture.copy()
    below = picture[rows, columns]
    result[rows, columns] = np.rint(below + share * (colour - below)).astype(np.uint8)
    return result


def _fixed(points: ArrayLike) -> NDArray[np.int32]:
    """In OpenCV's fixed point."""
    return np.rint(np.multiply(points, 1 << _SHIFT)).astype(np.int32)


def _line(mask: _Mask, points: NDArray[np.float64], width: float, strength: int = 255) -> None:
    cv2.polylines(
        mask, [_fixed(points)], False, strength, max(1, round(width)), cv2.LINE_AA, _SHIFT
    )


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
            cv2.fillConvexPoly(mask, _fixed(quad), 255, cv2.LINE_AA, _SHIFT)


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


def _bricks(mask: _Mask, rng: np.random.Generator) -> None:
    """The joints of a wall of bricks or tiles, whose upright ones are as short as rain."""
    height, width = mask.shape
    tall = math.exp(rng.uniform(math.log(5), math.log(30)))
    long, joint = tall * rng.uniform(1, 4), rng.uniform(1, 1 + 0.2 * tall)
    turn = rng.normal(0, 0.06)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    along = math.cos(turn) * x + math.sin(turn) * y
    down = math.cos(turn) * y - math.sin(turn) * x
    # Bricks are shifted by half from row to row; tiles are not.
    shift = 0.5 * long * (down // tall % 2) if rng.random() < 0.7 else 0
    joints = np.maximum(joint - down % tall, joint - (along + shift) % long).clip(0, 1)
    left, right = np.sort(rng.uniform(-0.3, 1.3, 2)) * width
    top, bottom = np.sort(rng.uniform(-0.3, 1.3, 2)) * height
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    np.maximum(mask, np.rint(255 * joints * inside).astype(np.uint8), out=mask)


def _wheels(mask: _Mask, rng: np.random.Generator) -> None:
    """Rims with spokes, seen at an angle."""
    height, width = mask.shape
    for _ in range(int(rng.integers(1, 4))):
        centre = rng.uniform(0, 1, 2) * (width, height)
        radius = math.exp(rng.uniform(math.log(8), math.log(0.25 * width + 9)))
        radii = radius * np.array([rng.uniform(0.4, 1.0), 1.0])
        angles = np.linspace(0, 2 * math.pi, 49)
        rim = centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
        _line(mask, rim, rng.uniform(1, 1 + 0.12 * radius))
        for point in rim[:: int(rng.integers(1, 9))] if rng.random() < 0.7 else ():
            _line(mask, np.stack([centre, point]), rng.uniform(1, 1.6))


def _posts(mask: _Mask, rng: np.random.Generator) -> None:
    """A row of upright posts along a road: even distances in space, so ever closer and shorter."""
    height, width = mask.shape
    foot = np.array([rng.uniform(-0.3, 1.3) * width, rng.uniform(0.5, 1.1) * height])
    goal = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.2, 0.6) * height])
    tall, bar = rng.uniform(0.08, 0.5) * height, math.exp(rng.uniform(0, math.log(8)))
    apart = rng.uniform(0.1, 0.6)
    for number in range(int(rng.integers(2, 16))):
        share = 1 / (1 + apart * number)
        x, y = goal + share * (foot - goal)
        _line(mask, np.array([[x, y - share * tall], [x, y]]), share * bar)


def _dots(mask: _Mask, rng: np.random.Generator) -> None:
    """Small things here and there: reflectors, lamps, number plates, leaves, birds."""
    height, width = mask.shape
    for _ in range(int(math.exp(rng.uniform(0, math.log(40))))):
        centre = rng.uniform(0, 1, 2) * (width, height)
        size = np.exp(rng.uniform(math.log(0.8), math.log(7), 2))  # half of each side
        if rng.random() < 0.5:
            box = (tuple(map(float, centre)), tuple(map(float, 2 * size)), rng.normal(0, 15))
            cv2.fillConvexPoly(mask, _fixed(cv2.boxPoints(box)), 255, cv2.LINE_AA, _SHIFT)
        else:
            middle, radii = _fixed(centre).tolist(), _fixed(size).tolist()
            turn = rng.uniform(0, 180)
            cv2.ellipse(mask, middle, radii, turn, 0, 360, 255, -1, cv2.LINE_AA, _SHIFT)


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
    _wires, _poles, _lanes, _lanes, _lanes, _fence, _windows, _bricks, _wheels,
)  # fmt: skip
"""Lane lines three times: a car must not lose them."""
_PASSING = (_posts, _posts, _dots, _dots, _lanes, _poles, _wires)
_PASSING_FAST = 0.7
"""The share of passing things that move faster than most scenes do."""
