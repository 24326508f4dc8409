"""Draws the drops of one layer as streaks.

Each streak is a row of points, added up and blurred to its width. That costs what is drawn and not
what the picture measures, gives every drop its own direction, length and speed, and moves drops
by fractions of a pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.data.rain.description import Layer, Wind

_SHORTEST, _LONGEST = 0.5, 1.5
"""Streaks of a layer, relative to its length."""
_SLOWEST, _FASTEST = 0.8, 1.2
"""Drops of a layer, relative to its speed."""
_FAINTEST = 0.35
_DARKER = 0.35
"""How strongly the darkening drops of a layer darken, relative to how the others lighten."""
_TAPER = 0.6
"""0 would end streaks bluntly, 1 makes them parabolas."""
_GOLDEN = 0.6180339887
_SPLAT_VARIANCE = 0.17
"""Of the footprint with which a point is drawn, in square pixels."""
_MOST_POINTS = 1_000_000
"""Drawn at once, so that large pictures do not need memory without limit."""


class _Drops(NamedTuple):
    """N drops: what stays with each of them from frame to frame."""

    x: Tensor
    y: Tensor
    """Where in the first frame, as shares of the canvas."""
    angle: Tensor
    length: Tensor
    speed: Tensor
    strength: Tensor
    beads: Tensor
    """Where in its swing each drop is, from 0 to 1."""


class _Streaks(NamedTuple):
    """N drops in T frames; the first three are T x N, the others N."""

    x: Tensor
    y: Tensor
    """Middles, in pixels of the picture."""
    heading: Tensor
    length: Tensor
    strength: Tensor
    beads: Tensor

    def between(self, low: int, high: int) -> _Streaks:
        return _Streaks(*(values[..., low:high] for values in self))


def draw_layer(
    canvas: Tensor, layer: Layer, wind: Wind, seed: tuple[int, ...], first: int
) -> Tensor:
    """Like ``canvas``, T x 1 x H x W: the layer's streaks, negative where drops darken."""
    frames, _, height, width = canvas.shape
    # Half the longest streak, so that drops enter and leave unseen.
    margin = math.ceil(0.5 * _LONGEST * layer.length + 3 * layer.width) + 2
    tall, broad = height + 2 * margin, width + 2 * margin
    drops = _drops(layer, round(layer.density * tall * broad / 1000), seed, canvas)
    turns = [wind.turn(frame) for frame in range(first + frames)]
    streaks = _fall(drops, turns, first, (tall, broad), margin)
    kernel = _gaussian(layer.width, canvas)
    border = len(kernel) // 2 + 1
    drawn = canvas.new_zeros((frames, height + 2 * border, width + 2 * border))
    points = max(2, math.ceil(_LONGEST * layer.length))
    block = max(1, _MOST_POINTS // (points * frames))
    for low in range(0, len(drops.x), block):
        _splat(drawn, streaks.between(low, low + block), border, points, layer.beads)
    # Brought back to ``opacity`` in the middle of a streak, whatever its width.
    peak = math.sqrt(2 * math.pi * (layer.width**2 + _SPLAT_VARIANCE))
    blurred = F.conv2d(drawn[:, None, 1:-1, 1:-1], kernel.view(1, 1, 1, -1) * peak)
    return F.conv2d(blurred, kernel.view(1, 1, -1, 1))


def _drops(layer: Layer, count: int, seed: tuple[int, ...], like: Tensor) -> _Drops:
    # Drop by drop, so that a denser layer of the same rain has the same drops and some more.
    numbers = np.random.default_rng(seed).random((count, 9), dtype=np.float32)
    x, y, radius, turn, length, speed, strength, beads, sign = (
        torch.from_numpy(numbers).to(like).unbind(1)
    )
    normal = (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * turn).cos()
    strength = layer.opacity * (_FAINTEST + (1 - _FAINTEST) * strength)
    return _Drops(
        x=x,
        y=y,
        angle=layer.direction + layer.spread * normal,
        length=layer.length * (_SHORTEST + (_LONGEST - _SHORTEST) * length),
        speed=layer.speed * (_SLOWEST + (_FASTEST - _SLOWEST) * speed),
        strength=torch.where(sign < layer.dark, -_DARKER * strength, strength),
        beads=beads,
    )


def _fall(
    drops: _Drops, turns: list[float], first: int, size: tuple[int, int], margin: int
) -> _Streaks:
    """Where the drops are in the frames from ``first`` on, given how the wind turned them."""
    tall, broad = size
    # How far a drop of speed 1 has come before each frame, along its direction and aside.
    steps = np.cumsum([(0.0, 0.0), *((math.cos(t), math.sin(t)) for t in turns[:-1])], axis=0)
    along, aside = drops.x.new_tensor(steps[first:])[:, None].unbind(2)
    sin, cos = drops.angle.sin(), drops.angle.cos()
    x = drops.x * broad + drops.speed * (sin * along + cos * aside)
    y = drops.y * tall + drops.speed * (cos * along - sin * aside)
    # A drop that has left at the bottom is the next one at the top, somewhere else along it.
    x = (x + (y / tall).floor() * (_GOLDEN * broad)) % broad
    heading = drops.angle + drops.angle.new_tensor(turns[first:])[:, None]
    return _Streaks(
        x - margin, y % tall - margin, heading, drops.length, drops.strength, drops.beads
    )


def _splat(canvas: Tensor, streaks: _Streaks, border: int, points: int, beads: float) -> None:
    """Add streaks, each as so many points, to T x H x W with a border around the picture."""
    _, tall, broad = canvas.shape
    step = (torch.arange(points, device=canvas.device) + 0.5) / points
    taper = (4 * step * (1 - step)) ** _TAPER
    own = streaks.beads[:, None]
    swing = 1 - beads * (0.5 + 0.5 * (2 * math.pi * ((1 + 3 * own) * step + own)).sin())
    # A point stands for ``length / points`` pixels of its streak.
    weight = (streaks.strength * streaks.length / points)[:, None] * taper * swing
    back = (step - 0.5) * streaks.length[:, None]
    x = streaks.x[..., None] - streaks.heading.sin()[..., None] * back + border
    y = streaks.y[..., None] - streaks.heading.cos()[..., None] * back + border
    inside = (x > 0) & (x < broad - 1) & (y > 0) & (y < tall - 1)
    frame, drop, point = inside.nonzero(as_tuple=True)
    x, y, weight = x[inside], y[inside], weight[drop, point]
    left, top = x.floor(), y.floor()
    corner = (frame * tall + top.long()) * broad + left.long()
    flat = canvas.view(-1)
    right, lower = weight * (x - left), y - top
    flat.index_add_(0, corner, (weight - right) * (1 - lower))
    flat.index_add_(0, corner + 1, right * (1 - lower))
    flat.index_add_(0, corner + broad, (weight - right) * lower)
    flat.index_add_(0, corner + broad + 1, right * lower)


def _gaussian(sigma: float, like: Tensor) -> Tensor:
    radius = max(1, math.ceil(2.5 * sigma))
    offset = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
    kernel = (-(offset**2) / (2 * sigma**2)).exp()
    return kernel / kernel.sum()
