"""Paints a block of the street as seen from above: asphalt, markings and pavements."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rain_removal_ros.simulation._textures import Array, array32, clouds, noise, tinted

_LANE_M, _WHEEL_M = 1.8, 0.8
"""From the middle of the street to that of a lane, and from there to the tracks of the wheels."""
_REPAIRS, _CRACKS, _MANHOLES = 9, 26, 6
_MANHOLE_M = 0.33
_CORNER_M = 3
"""The radius of the pavement's corners."""
_KERB_M = 0.22
_SLAB_M = 0.6
_FRONTS_M = 10
"""From the middle of the street to the fronts of the houses."""
_LINE_M, _STOP_M = 0.14, 0.4
"""Widths of the middle line and of the lines to stop at."""
_PAINT = (212, 211, 205)
_ASPHALT, _KERB, _SLAB, _SOIL = 104, 158, 142, 74
"""Grey levels."""


@dataclass(frozen=True)
class _Plan:
    """The measures of a block; places are metres along (s), and across from the middle (d)."""

    length: float
    half: float
    road: float
    crossing: float
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return round(self.length * self.scale), round(2 * self.half * self.scale)

    @property
    def along(self) -> Array:
        """Metres along, one for each row."""
        return (np.arange(self.shape[0], dtype=np.float32) / self.scale)[:, None]

    @property
    def across(self) -> Array:
        """Metres across, one for each column."""
        return (np.arange(self.shape[1], dtype=np.float32) / self.scale - self.half)[None]

    def part(self, image: Array, s: float, d: float, length: float, width: float) -> Array:
        """The view of a picture of the block that begins at a place."""
        top, left = round(s * self.scale), round((d + self.half) * self.scale)
        bottom, right = top + round(length * self.scale), left + round(width * self.scale)
        return image[max(top, 0) : bottom, left:right]


def ground(
    rng: np.random.Generator, *, length: float, half: float, road: float, crossing: float,
    scale: float, trees: list[tuple[float, float]],
) -> Array:  # fmt: skip
    """One block of street from above, first row at its start: ``length`` x 2 ``half`` metres.

    The first ``crossing`` metres are a crossroads; beyond ``road`` from the middle is pavement.
    ``trees`` are places across and along.
    """
    plan = _Plan(length, half, road, crossing, scale)
    grain = rng.standard_normal(plan.shape, dtype=np.float32)
    shade = _worn_asphalt(rng, plan, grain)
    _repair(rng, plan, shade)
    _crack(rng, plan, shade)
    image: Array = tinted(shade, (1.0, 1.0, 1.015))
    _add_manholes(rng, plan, image)
    _mark_lanes(rng, plan, image)
    image = _with_pavement(rng, plan, image, grain)
    for d, s in trees:
        _plant(rng, plan, image, d, s)
    return image


def _worn_asphalt(rng: np.random.Generator, plan: _Plan, grain: Array) -> Array:
    """Grey levels: patchy, darker in the tracks of the wheels and under the middle of the cars."""
    height, width = plan.shape
    shade = _ASPHALT + 2.2 * clouds(rng, height, width, 120, 4)
    shade += 2.5 * noise(rng, height, width, 10, stretch=6) + 7 * grain
    from_lane = np.abs(plan.across) - _LANE_M
    tracks = np.abs(np.abs(from_lane) - _WHEEL_M)
    shade -= 7 * np.exp(-((tracks / 0.3) ** 2)) * (1 + 0.3 * noise(rng, height, width, 200))
    shade -= 5 * np.exp(-((from_lane / 0.35) ** 2))
    return shade


def _repair(rng: np.random.Generator, plan: _Plan, shade: Array) -> None:
    for _ in range(_REPAIRS):
        s, d = rng.uniform(0, plan.length - 8), rng.uniform(-plan.road, plan.road - 1.5)
        patch = plan.part(shade, s, d, rng.uniform(1.5, 7), rng.uniform(0.7, 1.5))
        patch += rng.choice([-13, -8, 9])


def _crack(rng: np.random.Generator, plan: _Plan, shade: Array) -> None:
    """Dark lines that wander about."""
    for _ in range(_CRACKS):
        start = rng.uniform(-plan.road, plan.road) + plan.half, rng.uniform(0, plan.length)
        steps = rng.normal(0, 0.16, (14, 2)) + rng.normal(0, 0.14, 2)
        line = ((np.array(start) + np.cumsum(steps, 0)) * plan.scale).astype(np.int32)
        cv2.polylines(shade, [line], False, float(rng.uniform(52, 66)), 1)


def _add_manholes(rng: np.random.Generator, plan: _Plan, image: Array) -> None:
    for _ in range(_MANHOLES):
        across = rng.uniform(-plan.road + 1, plan.road - 1) + plan.half
        along = rng.uniform(plan.crossing, plan.length - 6)
        at = (int(across * plan.scale), int(along * plan.scale))
        outer, inner = int(_MANHOLE_M * plan.scale), int(0.2 * plan.scale)
        cv2.circle(image, at, outer, (62, 61, 60), -1, cv2.LINE_AA)
        cv2.circle(image, at, outer, (88, 86, 84), 1, cv2.LINE_AA)
        cv2.circle(image, at, inner, (76, 75, 73), 1, cv2.LINE_AA)


def _mark_lanes(rng: np.random.Generator, plan: _Plan, image: Array) -> None:
    """White paint, worn: the middle line, parking bays, zebra crossings, lines to stop at."""
    high, wide = image.shape[:2]
    paint: Array = np.zeros((high, wide), np.float32)
    length, road, crossing = plan.length, plan.road, plan.crossing

    def mark(s: float, d: float, along: float, across: float) -> None:
        plan.part(paint, s, d, along, across)[:] = 1

    for s in np.arange(crossing + 10, length - 12, 8):
        mark(s, -_LINE_M / 2, 3, _LINE_M)
    mark(length - 18, -_LINE_M / 2, 11.5, _LINE_M)
    for d in (-road + 2.35, road - 2.45):  # parking bays
        mark(crossing + 8, d, length - crossing - 22, 0.1)
        for s in np.arange(crossing + 8, length - 13, 6.4):
            mark(s, d if d > 0 else -road + 0.3, 0.1, 2.1)
    for d in np.arange(-road + 0.5, road - 0.5, 1):  # zebra crossings
        mark(length - 5, d, 3, 0.5)
        mark(crossing + 2, d, 3, 0.5)
    mark(length - 6.5, 0.15, _STOP_M, road - 0.4)
    mark(crossing + 6.1, -road + 0.25, _STOP_M, road - 0.4)
    worn = 0.78 + 0.16 * noise(rng, high, wide, 5) + 0.1 * noise(rng, high, wide, 60)
    paint = cv2.GaussianBlur(paint, (3, 3), 0) * np.clip(worn, 0.15, 0.95)
    image[:] = image + (array32(_PAINT) - image) * paint[..., None]


def _with_pavement(rng: np.random.Generator, plan: _Plan, image: Array, grain: Array) -> Array:
    """The road with pavements on both sides: gutter, kerb and slabs."""
    side = np.abs(plan.across) - plan.road
    # Corners are rounded: the distance to a pavement that ends short of the crossroads.
    along = np.minimum(plan.along - plan.crossing, plan.length - plan.along)
    rounded = _CORNER_M - np.hypot(_CORNER_M - along, _CORNER_M - side)
    is_corner = (along < _CORNER_M) & (side < _CORNER_M)
    inside = np.where(is_corner, rounded, np.minimum(side, along))
    slabs = _slabs(rng, plan)
    kerb = tinted(_KERB + 4 * grain - 26 * (np.mod(plan.along, 1) < 0.03))
    gutter = 1 - 0.42 * np.exp(-(((inside + 0.06) / 0.12) ** 2))
    image = (image * gutter[..., None]).astype(np.uint8)
    for surface, begin_m in ((kerb, 0), (slabs, _KERB_M)):
        share = np.clip((inside - begin_m) * plan.scale + 0.5, 0, 1)[..., None]
        image = (image + (array32(surface) - image) * share).astype(np.uint8)
    return image


def _slabs(rng: np.random.Generator, plan: _Plan) -> Array:
    height, width = plan.shape
    side = round(_SLAB_M * plan.scale)
    tones = rng.normal(0, 4.5, (height // side + 1, width // side + 1)).astype(np.float32)
    shade = _SLAB + np.kron(tones, np.ones((side, side), np.float32))[:height, :width]
    shade[::side] -= 26
    shade[:, ::side] -= 26
    shade += 4 * rng.standard_normal((height, width), dtype=np.float32)
    shade += 5 * noise(rng, height, width, 70)
    metres = np.abs(np.arange(width) / plan.scale - width / plan.scale / 2)
    foot = np.exp(-np.abs(metres - _FRONTS_M) / 0.55).astype(np.float32)
    shade *= 1 - 0.45 * foot
    return tinted(shade, (1.0, 0.985, 0.955))


def _plant(rng: np.random.Generator, plan: _Plan, image: Array, d: float, s: float) -> None:
    """The soil that a tree stands in, and the shade below it."""
    soil = plan.part(image, s - 0.55, d - 0.5, 1.1, 1.0)
    soil[:] = tinted(_SOIL + 9 * rng.standard_normal(soil.shape[:2]), (1.08, 0.96, 0.8))
    below = plan.part(image, s - 3, d - 3, 6, 6)
    away = np.hypot(*np.mgrid[-3 : 3 : below.shape[0] * 1j, -3 : 3 : below.shape[1] * 1j])
    below[:] = below * (1 - 0.42 * np.exp(-((away / 1.5) ** 2)))[..., None]
