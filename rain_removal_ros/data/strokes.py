"""Bright strokes drawn on a dry picture, to measure how much of a single one a network removes.

Shares no code with ``data.rain``, which networks learn from, so that a fault there cannot hide
here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image

PROFILES = ("box", "gaussian")
"""The brightness across a stroke: opaque with sharp edges, or blurred."""

_EDGE_SIGMAS = 3.0
_FULL_WIDTH = 2 * math.sqrt(2 * math.log(2))
"""The full width of a Gaussian at half its height, in standard deviations."""


class Stroked(NamedTuple):
    """A picture with strokes, and where they are."""

    image: Image
    mask: NDArray[np.float32]
    """H x W: how far each pixel was moved towards white, from 0 to ``opacity``."""


def draw_strokes(
    image: Image,
    count: int,
    *,
    width: float = 2.0,
    length: float = 40.0,
    angle: float = 10.0,
    opacity: float = 0.7,
    profile: str = "box",
    seed: int = 0,
    columns: tuple[float, float] = (0.0, 1.0),
) -> Stroked:
    """Draw ``count`` white strokes on H x W x 3, ``width`` by ``length`` pixels each.

    ``angle`` is in degrees from the vertical, positive where the lower end is on the right. The
    middles are uniform within ``columns``, given as shares of the picture's width, and strokes are
    complete if there is room. The first strokes of a seed do not depend on the count.
    """
    if count < 0 or min(width, length) <= 0 or not 0 <= opacity <= 1:
        raise DataError(
            f"strokes need a count from 0, a size above 0 and an opacity from 0 to 1, got {count}, "
            f"{width:g} x {length:g} and {opacity:g}"
        )
    if profile not in PROFILES:
        raise DataError(f"a stroke's profile is {' or '.join(PROFILES)}, got {profile!r}")
    height, broad = image.shape[:2]
    radians = math.radians(angle)
    places = np.random.default_rng(seed).random((count, 2))
    sin, cos = abs(math.sin(radians)), abs(math.cos(radians))
    x = _placed(places[:, 0], columns[0] * broad, columns[1] * broad, length * sin + width * cos)
    y = _placed(places[:, 1], 0, height, length * cos + width * sin)
    mask = np.zeros((height, broad), np.float32)
    for middle in zip(x, y, strict=True):
        _draw(mask, middle, width, length, radians, profile)
    mask *= np.float32(opacity)
    lit = image + mask[..., None] * (np.float32(255) - image)
    return Stroked(np.rint(lit).astype(np.uint8), mask)


def _placed(
    shares: NDArray[np.float64], low: float, high: float, extent: float
) -> NDArray[np.float64]:
    """Middles between two borders, half an extent away from them if there is room."""
    margin = min(extent + 1, high - low) / 2
    return low + margin + shares * (high - low - 2 * margin)


def _draw(
    mask: NDArray[np.float32],
    middle: tuple[float, float],
    width: float,
    length: float,
    angle: float,
    profile: str,
) -> None:
    """One stroke at full strength; where two cross, the stronger one counts."""
    sigma = width / _FULL_WIDTH
    reach = length / 2 + (_EDGE_SIGMAS * sigma if profile == "gaussian" else width) + 1
    left, top = (max(0, math.floor(place - reach)) for place in middle)
    right, bottom = (math.ceil(place + reach) + 1 for place in middle)
    part = mask[top:bottom, left:right]
    rows, columns = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
    # Pixel 0 covers 0 to 1, so its middle is at a half.
    dx, dy = columns + 0.5 - middle[0], rows + 0.5 - middle[1]
    along = np.abs(dx * math.sin(angle) + dy * math.cos(angle))
    across = np.abs(dx * math.cos(angle) - dy * math.sin(angle))
    if profile == "gaussian":
        crosswise = np.exp(-(across**2) / (2 * sigma**2))
    else:
        crosswise = _covered(across, width)
    np.maximum(part, crosswise * _covered(along, length), out=part, casting="same_kind")


def _covered(distance: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """The share of a pixel that a band of this size covers, by the distance from its middle."""
    inner, outer = (size - 1) / 2, (size + 1) / 2
    return np.clip(outer - np.maximum(distance, -inner), 0, min(1.0, size))
