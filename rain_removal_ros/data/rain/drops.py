"""Draws the drops of one layer as streaks.

Blurred streaks are rows of points, added up and blurred to their width. The cost depends on what is
drawn and not on the picture's size, every drop has its own direction, length and speed, and drops
move by fractions of a pixel. Flat streaks and discs are polygons.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data.rain.description import Layer, Wind

Plane: TypeAlias = NDArray[np.float32]

_SHORTEST, _LONGEST = 0.5, 1.5
"""Range of streak lengths in a layer, relative to its length."""
_SLOWEST, _FASTEST = 0.8, 1.2
"""Range of drop speeds in a layer, relative to its speed."""
_FAINTEST, _FAINTEST_COUNTED = 0.35, 0.6
"""Opacity of the faintest streak, relative to the layer's; counted streaks differ less."""
_DARKER = 0.35
"""How strongly the darkening drops of a layer darken, relative to how the others lighten."""
_NARROWEST, _BROADEST = 0.6, 1.4
"""Range of the widths of streaks that are not Gaussian, relative to the layer's width."""
_REACH = 3.0
"""How far a streak is visible beside its middle, in widths."""
_TAPER = 0.6
"""0 gives streaks blunt ends, 1 makes them parabolas."""
_GOLDEN = 0.6180339887
_SPLAT_VARIANCE = 0.17
"""Variance of the footprint with which a point is drawn, in square pixels."""
_CLOSEST, _SPACING = 0.75, 1.2
"""Distance of points: the least in pixels, and the usual one in standard deviations of the streak.
The ripple is up to 5 % for the thinnest, and below 2 % from a width of 0.7 pixels on."""
_MOST_POINTS = 1_000_000
"""Points drawn at once, which limits the memory for large pictures."""
_FINER = 4
"""How many times finer than the picture polygons are drawn."""
_SHELLS = 4
"""Nested polygons that form a disc's profile."""


class _Drops(NamedTuple):
    """N drops: the properties that stay the same from frame to frame."""

    x: Plane
    y: Plane
    """Position in the first frame, as shares of the canvas."""
    angle: Plane
    length: Plane
    speed: Plane
    strength: Plane
    beads: Plane
    """Phase of the beads, from 0 to 1."""
    breadth: Plane
    """Relative to the layer's width; Gaussians share one."""
    rank: Plane
    """The wetness from which on this drop exists, from 0 to 1."""


class _Streaks(NamedTuple):
    """All visible streaks of all frames."""

    frame: NDArray[np.intp]
    x: Plane
    y: Plane
    """Middles, in pixels of the picture."""
    sin: Plane
    cos: Plane
    length: Plane
    strength: Plane
    beads: Plane
    breadth: Plane

    def part(self, which: slice | NDArray[Any]) -> _Streaks:
        return _Streaks._make(values[which] for values in self)


def draw_layer(
    shape: tuple[int, int, int],
    layer: Layer,
    wind: Wind,
    seed: tuple[int, ...],
    first: int,
    wet: Plane | None = None,
) -> Plane:
    """T x H x W: the layer's streaks, negative where drops darken.

    ``wet``, H x W, is the share of the drops that fall in each place.
    """
    frames, height, width = shape
    # Half the longest streak, so that drops enter and leave out of sight.
    margin = math.ceil(0.5 * _LONGEST * layer.length + _REACH * layer.width) + 2
    drops, size = _drops(layer, (height, width), margin, seed)
    turns = [wind.turn(frame) for frame in range(first + frames)]
    reach = _REACH * layer.width + 2
    streaks = _fall(drops, turns, first, size, margin, (height, width), reach, wet)
    if layer.profile != "gaussian":
        return _polygons(shape, streaks, layer)
    kernel = _gaussian(layer.width)
    border = len(kernel) // 2 + 1
    drawn = np.zeros((frames, height + 2 * border, width + 2 * border), np.float32)
    # The length of streak, in pixels, that a point stands for.
    spacing = max(_CLOSEST, _SPACING * layer.width)
    points = np.maximum(2, np.ceil(streaks.length / spacing)).astype(np.intp)
    block = max(1, _MOST_POINTS // max(2, math.ceil(_LONGEST * layer.length / spacing)))
    for low in range(0, len(points), block):
        which = slice(low, low + block)
        _splat(drawn, streaks.part(which), points[which], border, layer.beads)
    # Scaled to ``opacity`` in the middle of a streak, whatever its width.
    peak = math.sqrt(2 * math.pi * (layer.width**2 + _SPLAT_VARIANCE))
    inner = slice(border, -border)
    return np.stack(
        [cv2.sepFilter2D(frame, -1, kernel * peak, kernel)[inner, inner] for frame in drawn]
    )


def _drops(
    layer: Layer, picture: tuple[int, int], margin: int, seed: tuple[int, ...]
) -> tuple[_Drops, tuple[int, int]]:
    """The drops, and the size of the canvas in which they wrap around."""
    tall, broad = picture[0] + 2 * margin, picture[1] + 2 * margin
    own = np.random.default_rng((*seed, 1))
    if layer.drops is None:
        count = round(layer.density * tall * broad / 1000)
    else:
        mean = layer.drops * tall * broad / (picture[0] * picture[1])
        count = math.floor(mean + own.random())
    # Drop by drop, so that a denser layer of the same rain has the same drops and some more.
    numbers = np.random.default_rng(seed).random((count, 9), dtype=np.float32)
    x, y, radius, turn, length, speed, strength, beads, sign = numbers.T
    normal = np.sqrt(-2 * np.log(1 - radius)) * np.cos(np.float32(2 * math.pi) * turn)
    faintest = np.float32(_FAINTEST if layer.drops is None else _FAINTEST_COUNTED)
    strength = layer.opacity * (faintest + (1 - faintest) * strength)
    drops = _Drops(
        x=x,
        y=y,
        angle=layer.direction + layer.spread * normal,
        length=layer.length * (_SHORTEST + (_LONGEST - _SHORTEST) * length),
        speed=layer.speed * (_SLOWEST + (_FASTEST - _SLOWEST) * speed),
        strength=np.where(sign < layer.dark, -_DARKER * strength, strength),
        beads=beads,
        breadth=_NARROWEST + (_BROADEST - _NARROWEST) * own.random(count, dtype=np.float32),
        rank=own.random(count, dtype=np.float32),
    )
    return drops, (tall, broad)


def _fall(
    drops: _Drops,
    turns: list[float],
    first: int,
    canvas: tuple[int, int],
    margin: int,
    picture: tuple[int, int],
    reach: float,
    wet: Plane | None,
) -> _Streaks:
    """Where the drops are in the frames from ``first`` on, given the turns of the wind."""
    tall, broad = canvas
    # How far a drop of speed 1 has moved before each frame, along its direction and across it.
    steps = np.cumsum([(0.0, 0.0), *((math.cos(t), math.sin(t)) for t in turns[:-1])], axis=0)
    along, aside = steps[first:, :, None].swapaxes(0, 1)
    sin, cos = np.sin(drops.angle), np.cos(drops.angle)
    x = drops.x * broad + drops.speed * (sin * along + cos * aside)
    y = drops.y * tall + drops.speed * (cos * along - sin * aside)
    # A drop that left at the bottom comes back at the top, at another place along it.
    x = (x + np.floor(y / tall) * (_GOLDEN * broad)) % broad - margin
    y = y % tall - margin
    turned = np.array(turns[first:])[:, None]
    sin, cos = (
        sin * np.cos(turned) + cos * np.sin(turned),
        cos * np.cos(turned) - sin * np.sin(turned),
    )
    height, width = picture
    half_x = 0.5 * drops.length * np.abs(sin) + reach
    half_y = 0.5 * drops.length * np.abs(cos) + reach
    seen = (x > -half_x) & (x < width + half_x) & (y > -half_y) & (y < height + half_y)
    if wet is not None:
        rows = np.clip(y, 0, height - 1).astype(np.intp)
        columns = np.clip(x, 0, width - 1).astype(np.intp)
        seen &= wet[rows, columns] > drops.rank
    frame, drop = np.nonzero(seen)
    where = [values[seen].astype(np.float32) for values in (x, y, sin, cos)]
    kept = [values[drop] for values in (drops.length, drops.strength, drops.beads, drops.breadth)]
    return _Streaks._make([frame, *where, *kept])


def _splat(
    canvas: Plane, streaks: _Streaks, points: NDArray[np.intp], border: int, beads: float
) -> None:
    """Add streaks, each as a number of points, to T x H x W with a border around the picture."""
    _, tall, broad = canvas.shape
    of = np.repeat(np.arange(len(points)), points)
    starts = np.cumsum(points) - points
    step = ((np.arange(len(of)) - starts[of] + 0.5) / points[of]).astype(np.float32)
    weight = (streaks.strength * streaks.length / points).astype(np.float32)[of]
    weight *= (4 * step * (1 - step)) ** np.float32(_TAPER)
    if beads:
        own = streaks.beads[of]
        weight *= 1 - beads * (
            0.5 + 0.5 * np.sin(np.float32(2 * math.pi) * ((1 + 3 * own) * step + own))
        )
    back = step - np.float32(0.5)
    x = (streaks.x + border)[of] - (streaks.sin * streaks.length)[of] * back
    y = (streaks.y + border)[of] - (streaks.cos * streaks.length)[of] * back
    inside = (x > 0) & (x < broad - 1) & (y > 0) & (y < tall - 1)
    x, y, weight, of = x[inside], y[inside], weight[inside], of[inside]
    left, top = x.astype(np.intp), y.astype(np.intp)
    corner = (streaks.frame[of] * tall + top) * broad + left
    aside, lower = x - left, y - top
    right, bottom = weight * aside, weight * lower
    both = right * lower
    flat = canvas.reshape(-1)
    for offset, share in (
        (0, weight - right - bottom + both),
        (1, right - both),
        (broad, bottom - both),
        (broad + 1, both),
    ):
        flat += np.bincount(corner + offset, share, minlength=flat.size).astype(np.float32)


def _polygons(shape: tuple[int, int, int], streaks: _Streaks, layer: Layer) -> Plane:
    """Streaks with sharp edges, or discs; where two cross, the stronger one shows."""
    drawn = np.zeros(shape, np.float32)
    order = np.argsort(np.abs(streaks.strength), kind="stable")
    for sign in (1, -1):
        chosen = streaks.part(order[sign * streaks.strength[order] > 0])
        for frame in np.unique(chosen.frame):
            part = chosen.part(chosen.frame == frame)
            drawn[frame] += np.float32(sign) * _filled(shape[1:], part, layer)
    return drawn


def _filled(size: tuple[int, int], streaks: _Streaks, layer: Layer) -> Plane:
    """One frame's streaks, as opacity from 0 to 1."""
    height, width = size
    fine: NDArray[np.uint8] = np.zeros((height * _FINER, width * _FINER), np.uint8)
    shells = [(1.0, 1.0)]
    if layer.profile == "disc":
        levels = np.arange(_SHELLS) / _SHELLS
        shells = [(math.sqrt(1 - level**2), level + 1 / _SHELLS) for level in levels.tolist()]
    for share, level in shells:
        corners = _outlines(streaks, layer.width * share, rounded=layer.profile == "disc")
        values = np.rint(255 * level * np.abs(streaks.strength)).clip(0, 255)
        for outline, value in zip(corners, values.tolist(), strict=True):
            cv2.fillConvexPoly(fine, outline, value, cv2.LINE_8, _SHIFT)
    while fine.shape != size:
        # Halving twice is 6 times as fast as quartering once.
        half = fine.shape[1] // 2, fine.shape[0] // 2
        fine = np.asarray(cv2.resize(fine, half, interpolation=cv2.INTER_AREA), np.uint8)
    plane: Plane = fine.astype(np.float32) / np.float32(255)
    if layer.profile == "disc":
        # Hides the steps between the shells.
        plane = np.asarray(cv2.GaussianBlur(plane, (0, 0), max(0.4, 0.12 * layer.width)))
    return plane


_SHIFT = 4
"""Fractional bits of OpenCV's corner coordinates."""
_BLUNT, _ROUND = (np.linspace(0, np.pi, corners, dtype=np.float32) for corners in (2, 7))
"""Angles of the corners of one end."""


def _outlines(streaks: _Streaks, half_width: float, *, rounded: bool) -> NDArray[np.int32]:
    """N x corners x 2, in the fine picture's fixed point."""
    # OpenCV fills the pixels that an outline touches, which adds half a fine pixel all around.
    half = np.maximum(half_width * streaks.breadth - 0.5 / _FINER, 0.5 / _FINER)[:, None]
    turn = _ROUND if rounded else _BLUNT
    bulge = half * np.sin(turn) * rounded
    ends = np.repeat(np.array([1, -1], np.float32), len(turn))
    straight = np.maximum(0.5 * streaks.length[:, None] - half * rounded, 0)
    along = ends * (straight + np.tile(bulge, 2))
    aside = ends * np.tile(half * np.cos(turn), 2)
    sin, cos = streaks.sin[:, None], streaks.cos[:, None]
    x = streaks.x[:, None] + sin * along + cos * aside
    y = streaks.y[:, None] + cos * along - sin * aside
    fixed = (np.stack([x, y], -1) * _FINER + (_FINER - 1) / 2) * (1 << _SHIFT)
    return np.rint(fixed).astype(np.int32)


def _gaussian(sigma: float) -> Plane:
    radius = max(1, math.ceil(2.5 * sigma))
    offset = np.arange(-radius, radius + 1, dtype=np.float32)
    kernel = np.exp(-(offset**2) / np.float32(2 * sigma**2))
    return np.asarray(kernel / kernel.sum(), np.float32)
