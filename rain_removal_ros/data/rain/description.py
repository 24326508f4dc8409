"""What rain looks like, as numbers, and how those numbers are drawn.

A ``Rain`` says everything but the background: rendering it twice gives the same rain. Lengths are
in pixels of the rendered picture, times in frames, angles in radians from the vertical (positive:
falling to the right), depths from 0 (at the lens) to 1 (as far as one can see).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError

Colour: TypeAlias = tuple[float, float, float]
_Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layer:
    """Drops at one distance, drawn as streaks."""

    distance: float
    direction: float
    spread: float
    """Standard deviation of a single drop's direction."""
    length: float
    width: float
    """Standard deviation of the brightness across a streak: drop size and defocus together."""
    density: float
    """Drops per 1000 square pixels."""
    opacity: float
    speed: float
    """Pixels a frame. Length over speed is the shutter's share of a frame."""
    beads: float
    """How strongly the brightness swings along a streak, as that of a trembling drop does."""
    dark: float = 0.0
    """Share of drops that darken what is behind them."""


@dataclass(frozen=True, slots=True)
class TextureLayer:
    """Streaks cut out of a rendered texture."""

    choice: float
    """Which of the textures at hand, as a share of their number."""
    direction: float
    zoom: float
    """Pixels of the picture a pixel of the texture."""
    opacity: float
    speed: float
    start: tuple[float, float]
    """Where the cut begins, as shares of what room the texture leaves."""


@dataclass(frozen=True, slots=True)
class Wind:
    """A slow swing of the direction of all drops together."""

    swing: float = 0.0
    period: float = 150.0
    phase: float = 0.0

    def turn(self, frame: int) -> float:
        """How far the drops of ``frame`` are turned."""
        return self.swing * math.sin(2 * math.pi * frame / self.period + self.phase)


@dataclass(frozen=True, slots=True)
class Veil:
    """Rain too far to be seen drop by drop: ``transmission = exp(-thickness * depth)``."""

    thickness: float = 0.0
    light: Colour = (0.8, 0.8, 0.8)
    nearest: float = 0.5
    """Depth guessed for the bottom of a picture, where no depth is given. The top is at 1."""
    cue: float = 0.0
    """How far the guess follows the picture (bright and colourless is far) and not a plane."""
    clouds: float = 0.0
    """Relative unevenness."""


@dataclass(frozen=True, slots=True)
class Camera:
    """What the camera makes of the rainy scene."""

    exposure: float = 1.0
    contrast: float = 1.0
    noise: float = 0.0
    """Standard deviation on the scale of 0 to 1."""
    jpeg: int | None = None
    """Quality, or ``None`` for no compression."""


@dataclass(frozen=True, slots=True)
class Rain:
    """All there is to say about one rain."""

    seed: int
    severity: float
    style: str
    layers: tuple[Layer, ...] = ()
    textures: tuple[TextureLayer, ...] = ()
    colour: Colour = (1.0, 1.0, 1.0)
    absorption: float = 0.0
    """How much of the background a streak hides: 0 adds light, 1 covers like paint."""
    wind: Wind = Wind()
    veil: Veil = Veil()
    camera: Camera = Camera()

    @property
    def clear(self) -> bool:
        """Whether there is nothing to render."""
        return not self.layers and not self.textures and self.veil.thickness == 0

    def turned(self, angle: float) -> Rain:
        """The same rain, falling at another mean angle."""
        directions = [x.direction for x in self.layers] + [x.direction for x in self.textures]
        by = angle - sum(directions) / max(1, len(directions))
        return replace(
            self,
            layers=tuple(replace(x, direction=x.direction + by) for x in self.layers),
            textures=tuple(replace(x, direction=x.direction + by) for x in self.textures),
        )


@dataclass(frozen=True, slots=True)
class Style:
    """Ranges that ``sample`` draws from. What grows with severity is given for severity 1."""

    weight: float
    layers: tuple[int, int]
    slant: float
    """Largest mean direction."""
    fan: float
    """How far the layers' directions differ."""
    spread: _Range
    length: _Range
    """Of the farthest and the nearest drops, as are width and opacity."""
    width: _Range
    opacity: _Range
    density: _Range
    """Of all layers together."""
    absorption: _Range = (0.0, 0.0)
    brightness: _Range = (0.85, 1.0)
    dark: _Range = (0.0, 0.0)
    texture_share: float = 0.0
    """How often the streaks come from textures, where there are any."""
    veil: _Range = (0.0, 0.0)
    dim: _Range = (0.0, 0.0)
    """Loss of exposure and contrast."""


STYLES: dict[str, Style] = {
    # Thin, sparse, one direction, light added and nothing else: Rain100L, Rain200L.
    "sparse": Style(
        weight=0.2, layers=(1, 2), slant=0.6, fan=0.05, spread=(0.0, 0.06), length=(10, 70),
        width=(0.3, 0.9), opacity=(0.3, 1.0), density=(1.5, 10), texture_share=0.6,
    ),
    # Several directions at once, long and bright: Rain100H, Rain200H, Rain1400.
    "crossed": Style(
        weight=0.16, layers=(2, 5), slant=0.8, fan=0.35, spread=(0.0, 0.08), length=(12, 90),
        width=(0.35, 1.5), opacity=(0.4, 1.0), density=(5, 35), absorption=(0.0, 0.9),
        texture_share=0.25,
    ),
    # Noise that was motion-blurred and blended: Rain800.
    "grain": Style(
        weight=0.2, layers=(1, 2), slant=0.9, fan=0.05, spread=(0.0, 0.1), length=(6, 40),
        width=(0.3, 0.9), opacity=(0.25, 0.9), density=(12, 90), absorption=(0.0, 1.0),
        brightness=(0.7, 1.0), dark=(-0.6, 0.5),
    ),
    # Grey streaks pasted over road scenes, with some haze.
    "pasted": Style(
        weight=0.14, layers=(1, 3), slant=0.8, fan=0.1, spread=(0.02, 0.12), length=(8, 35),
        width=(0.3, 0.8), opacity=(0.25, 0.8), density=(15, 100), absorption=(0.8, 1.0),
        brightness=(0.6, 0.95), veil=(0.0, 0.5), dim=(0.0, 0.05),
    ),
    # Near, middle and far drops in mist: heavy rain as it is seen, and as Outdoor-Rain draws it.
    "heavy": Style(
        weight=0.3, layers=(3, 5), slant=0.6, fan=0.08, spread=(0.01, 0.1), length=(6, 80),
        width=(0.3, 2.0), opacity=(0.25, 0.8), density=(20, 130), absorption=(0.3, 1.0),
        brightness=(0.7, 1.0), texture_share=0.25, veil=(0.3, 1.6), dim=(0.0, 0.15),
    ),
    # The same without much mist: what a short shutter catches of ordinary rain.
    "shower": Style(
        weight=0.1, layers=(3, 4), slant=0.5, fan=0.06, spread=(0.02, 0.15), length=(4, 40),
        width=(0.3, 2.0), opacity=(0.2, 0.9), density=(15, 130), absorption=(0.2, 1.0),
        brightness=(0.7, 1.0), texture_share=0.2, veil=(0.0, 0.3), dim=(0.0, 0.05),
    ),
}  # fmt: skip

_MOST_ZOOM = 2.0
"""Beyond it, a texture is seen to be blurred."""

CLEAR_SHARE = 0.1
"""How often no rain falls: a network must learn to leave a dry picture alone."""


def sample(
    rng: np.random.Generator,
    *,
    severity: float | None = None,
    style: str | None = None,
    textures: int = 0,
    scale: float = 1.0,
) -> Rain:
    """Draw a rain, of a stated ``severity`` in [0, 1] and ``style`` if wanted.

    With the same random numbers, more severity is more of the same rain. ``textures`` is how many
    streak textures the renderer will have at hand. ``scale`` is the size of drops relative to those
    in pictures some 500 pixels wide; around it they vary as they do between cameras.
    """
    if severity is not None and not 0 <= severity <= 1:
        raise DataError(f"rain severity is from 0 to 1, got {severity}")
    if style is not None and style not in STYLES:
        raise DataError(f"no rain style {style!r}; there are {', '.join(STYLES)}")
    seed = int(rng.integers(2**63))
    # Everything is drawn from a generator of its own and in a fixed order, so that two severities
    # differ in severity alone and the caller's generator moves by the same amount each time.
    own = np.random.default_rng(seed)
    dry, drawn = own.random(), float(own.beta(1.5, 0.85))
    if severity is None:
        severity = 0.0 if dry < CLEAR_SHARE else max(drawn, 0.02)
    weights = np.array([entry.weight for entry in STYLES.values()])
    choice = list(STYLES)[int(own.choice(len(weights), p=weights / weights.sum()))]
    style = style or choice
    scale *= float(np.exp(own.uniform(np.log(0.65), np.log(1.7))))
    if severity == 0:
        return Rain(seed=seed, severity=0.0, style=style)
    return _draw(own, STYLES[style], style, seed, severity, textures, scale)


def _draw(
    rng: np.random.Generator,
    style: Style,
    name: str,
    seed: int,
    severity: float,
    textures: int,
    scale: float,
) -> Rain:
    direction = rng.uniform(-style.slant, style.slant) * rng.random() ** 0.5
    shutter = rng.uniform(0.15, 0.9)
    layers = _draw_layers(rng, style, severity, scale, direction, shutter)
    from_texture = _draw_textures(rng, style, severity, scale, direction, shutter)
    if textures and rng.random() < style.texture_share:
        # Textures hold the near and middle drops; what is kept of the rest is the farthest.
        layers = layers[: len(layers) // 2]
    else:
        from_texture = ()
    # Rain that darkens as much as it lightens is noise laid over a picture, never paint.
    absorption = rng.uniform(*style.absorption) * (not any(layer.dark for layer in layers))
    grey = rng.uniform(*style.brightness)
    tint = rng.normal(0, 0.015, 3)
    veil = _draw_veil(rng, style, severity)
    dim = severity * rng.uniform(*style.dim)
    flatter = severity * rng.uniform(*style.dim)
    noise = max(0.0, rng.normal(-0.002, 0.004))
    quality = int(rng.integers(70, 100)) if rng.random() < 0.3 else None
    return Rain(
        seed=seed,
        severity=severity,
        style=name,
        layers=layers,
        textures=from_texture,
        colour=_colour(np.clip(grey + tint, 0, 1)),
        absorption=absorption,
        wind=Wind(rng.uniform(0, 0.1), rng.uniform(90, 300), rng.uniform(0, 2 * math.pi)),
        veil=veil,
        camera=Camera(1 - dim, 1 - flatter, noise, quality),
    )


def _draw_layers(
    rng: np.random.Generator,
    style: Style,
    severity: float,
    scale: float,
    direction: float,
    shutter: float,
) -> tuple[Layer, ...]:
    count = int(rng.integers(style.layers[0], style.layers[1] + 1))
    density = math.exp(rng.uniform(*np.log(style.density))) * severity / scale**2
    dark = max(0.0, rng.uniform(*style.dark))
    spread = rng.uniform(*style.spread)
    # One layer is as likely near as far; several share the distances between them, far ones first.
    near = np.sort((np.arange(count) + rng.random(count)) / count)
    # Equal shares of the sight cone hold ever more drops the farther out they are.
    share = np.exp(-2.5 * near)
    share /= share.sum()
    long, wide, strong = rng.uniform(0.7, 1.2, (3, count))
    fan = rng.normal(0, style.fan, count)
    beads = rng.uniform(0, 0.8)
    layers = []
    for index in range(count):
        length = _between(style.length, near[index]) * long[index] * scale
        opacity = _between(style.opacity, near[index]) * strong[index]
        layers.append(
            Layer(
                distance=float(1 - near[index]),
                direction=float(direction + fan[index]),
                spread=spread,
                length=float(length),
                width=float(_between(style.width, near[index]) * wide[index] * scale**0.7),
                density=float(density * share[index]),
                opacity=float(opacity * (0.45 + 0.55 * severity)),
                speed=float(length / shutter),
                beads=float(beads * near[index]),
                dark=dark,
            )
        )
    return tuple(layers)


def _draw_textures(
    rng: np.random.Generator,
    style: Style,
    severity: float,
    scale: float,
    direction: float,
    shutter: float,
) -> tuple[TextureLayer, ...]:
    count = 1 + int(rng.random() < 0.35)
    drawn = rng.random((count, 5))
    fan = rng.normal(0, style.fan, count)
    return tuple(
        TextureLayer(
            choice=float(row[0]),
            direction=float(direction + turn),
            zoom=float(min((0.8 + 0.7 * row[1]) * scale, _MOST_ZOOM)),
            opacity=float((1.0 + 1.2 * row[2]) * severity),
            speed=float(40 * scale / shutter),
            start=(float(row[3]), float(row[4])),
        )
        for row, turn in zip(drawn, fan, strict=True)
    )


def _draw_veil(rng: np.random.Generator, style: Style, severity: float) -> Veil:
    thickness = severity * rng.uniform(*style.veil)
    light = np.clip(rng.uniform(0.4, 0.95) + rng.normal(0, 0.02, 3), 0, 1)
    cue = rng.uniform(0, 1) * float(rng.random() < 0.5)
    return Veil(
        thickness=thickness,
        light=_colour(light),
        nearest=rng.uniform(0.2, 1.0),
        cue=cue,
        clouds=rng.uniform(0, 0.3),
    )


def _between(ends: _Range, position: float) -> float:
    """Geometric interpolation: sizes differ by factors."""
    return float(ends[0] * (ends[1] / ends[0]) ** position)


def _colour(values: NDArray[np.float64]) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
