"""Draws a rain from the ranges of its style."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data.rain.description import (
    CameraEffects,
    Colour,
    Layer,
    Profile,
    Rain,
    Region,
    TextureLayer,
    Veil,
    Wind,
)
from rain_removal_ros.data.rain.styles import LARGEST_SLANT, STYLES, Range, Strokes, Style
from rain_removal_ros.errors import DataError

_MOST_ZOOM = 2.0
"""Beyond this zoom, a texture looks blurred."""

_DENSEST = 320.0
"""Drops per 1000 square pixels, of all layers together; more would be one surface."""

_SHORTEST_STROKE, _LONGEST_STROKE = 4.0, 130.0
"""Single strokes, in pixels. A longer one is more likely a lane line."""
_BROADEST = 12.0
"""Half the width of the widest drop, in pixels."""

CLEAR_SHARE = 0.12
"""The share of dry samples: a network must learn to leave dry pictures alone."""


def sample(
    rng: np.random.Generator,
    *,
    severity: float | None = None,
    style: str | None = None,
    textures: int = 0,
    scale: float = 1.0,
    styles: Mapping[str, Style] = STYLES,
) -> Rain:
    """Draw a rain of the given ``severity`` in [0, 1] and ``style``, or of random ones.

    With the same random numbers, higher severity is more of the same rain. ``textures`` is the
    number of streak textures that the renderer will have. ``scale`` is the size of drops relative
    to those in pictures some 500 pixels wide; around it they vary as between cameras. ``styles``
    are the styles to draw from.
    """
    if severity is not None and not 0 <= severity <= 1:
        raise DataError(f"rain severity is from 0 to 1, got {severity}")
    if style is not None and style not in styles:
        raise DataError(f"no rain style {style!r}; there are {', '.join(styles)}")
    seed = int(rng.integers(2**63))
    # Everything comes from a generator of its own in a fixed order, so that two severities differ
    # in severity alone and the caller's generator advances equally each time.
    own = np.random.default_rng(seed)
    dry, drawn = own.random(), float(own.beta(1.5, 0.85))
    if severity is None:
        severity = 0.0 if dry < CLEAR_SHARE else max(drawn, 0.02)
    weights = np.array([entry.weight for entry in styles.values()])
    choice = list(styles)[int(own.choice(len(weights), p=weights / weights.sum()))]
    style = style or choice
    scale *= math.exp(own.uniform(*np.log(styles[style].scales)))
    if severity == 0:
        return Rain(seed=seed, severity=0.0, style=style)
    return _draw(own, styles[style], style, seed, severity, textures, scale)


def _draw(
    rng: np.random.Generator,
    style: Style,
    name: str,
    seed: int,
    severity: float,
    textures: int,
    scale: float,
) -> Rain:
    # Ranges that were added later draw from a generator of their own, so that the older values
    # stay.
    more = np.random.default_rng((seed, 3_000))
    direction = rng.uniform(-style.slant, style.slant) * rng.random() ** 0.5
    if more.random() >= style.steep_share:
        direction = more.uniform(-LARGEST_SLANT, LARGEST_SLANT)
    shutter = rng.uniform(0.15, 0.9)
    layers = _draw_layers(rng, style, severity, scale, direction, shutter)
    from_texture = _draw_textures(rng, style, severity, scale, direction, shutter)
    if textures and rng.random() < style.texture_share:
        # Textures have the near and middle drops, so only the farthest layer is kept.
        layers = layers[: len(layers) // 2]
    else:
        from_texture = ()
    # Rain that darkens as much as it lightens is noise added to a picture, never paint.
    absorption = rng.uniform(*style.absorption) * (not any(layer.dark for layer in layers))
    grey = rng.uniform(*style.brightness)
    tint = rng.normal(0, 0.015, 3)
    veil = _draw_veil(rng, style, severity)
    dim = severity * rng.uniform(*style.dim)
    flatter = severity * rng.uniform(*style.dim)
    noise = max(0.0, rng.normal(-0.002, 0.004))
    quality = int(rng.integers(70, 100)) if rng.random() < 0.3 else None
    strokes = _draw_strokes(more, style, severity, scale, direction, shutter)
    # Mostly weak, sometimes strong.
    cast = more.normal(0, 2 * style.tint * more.random(), 3)
    light = _colour(np.clip(np.add(veil.light, cast), 0, 1))
    region = _draw_region(more) if more.random() < style.region_share else None
    return Rain(
        seed=seed,
        severity=severity,
        style=name,
        layers=layers + strokes,
        textures=from_texture,
        # Drops show the light of the air, plus a white of their own.
        colour=_colour(np.clip(grey + tint + 0.7 * cast, 0, 1)),
        absorption=absorption,
        accumulation=severity * more.uniform(*style.accumulation),
        region=region,
        wind=Wind(rng.uniform(0, 0.1), rng.uniform(90, 300), rng.uniform(0, 2 * math.pi)),
        veil=replace(veil, light=light),
        camera=CameraEffects(1 - dim, 1 - flatter, noise, quality),
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
    density = min(density, _DENSEST)
    dark = max(0.0, rng.uniform(*style.dark))
    spread = rng.uniform(*style.spread)
    # A single layer has any distance; several share the distances, far ones first.
    near = np.sort((np.arange(count) + rng.random(count)) / count)
    # Equal shares of the view cone have more drops the farther away they are.
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


def _draw_strokes(
    rng: np.random.Generator,
    style: Style,
    severity: float,
    scale: float,
    direction: float,
    shutter: float,
) -> tuple[Layer, ...]:
    drawn = []
    for ranges in style.strokes:
        there, sort = rng.random(2)
        shares, spread = rng.random(4), rng.uniform(*style.spread)
        if there < ranges.share:
            drawn.append(
                _stroke_layer(ranges, shares, sort, severity, scale, direction, spread, shutter)
            )
    return tuple(drawn)


def _stroke_layer(
    ranges: Strokes,
    shares: NDArray[np.float64],
    sort: float,
    severity: float,
    scale: float,
    direction: float,
    spread: float,
    shutter: float,
) -> Layer:
    count, length, width, opacity = (
        _between(ends, share)
        for ends, share in zip(
            (ranges.count, ranges.length, ranges.width, ranges.opacity), shares, strict=True
        )
    )
    profile: Profile = "gaussian"
    if sort < ranges.sharp_share + ranges.blurred_share:
        profile = "box" if sort < ranges.sharp_share else "disc"
    # A Gaussian is visible over some four standard deviations.
    width *= (0.25 if profile == "gaussian" else 0.5) * scale**0.7
    # Broad drops are near, and cross more of the picture while the shutter is open.
    length = max(min(length * scale, _LONGEST_STROKE), _SHORTEST_STROKE, 2 * width)
    return Layer(
        distance=0.1,
        direction=direction,
        spread=spread,
        length=length,
        width=min(width, _BROADEST),
        density=0.0,
        opacity=opacity,
        speed=length / shutter,
        beads=0.0,
        # From one streak up: lower severity has fewer, at least one.
        drops=count**severity,
        profile=profile,
    )


def _draw_region(rng: np.random.Generator) -> Region:
    return Region(
        facing=rng.uniform(-math.pi, math.pi),
        border=rng.uniform(-0.3, 0.3),
        softness=math.exp(rng.uniform(math.log(0.02), math.log(0.8))),
        patches=rng.uniform(0, 0.5) * float(rng.random() < 0.6),
    )


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


def _between(ends: Range, position: float) -> float:
    """Geometric interpolation: sizes differ by factors."""
    return float(ends[0] * (ends[1] / ends[0]) ** position)


def _colour(values: NDArray[np.float64]) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
