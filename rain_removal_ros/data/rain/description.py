"""A description of rain in numbers.

A ``Rain`` describes everything but the background: rendering it twice gives the same rain. Lengths
are in pixels of the rendered picture, times in frames, angles in radians from the vertical
(positive: falling to the right), depths from 0 (at the lens) to 1 (as far as one can see).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Colour: TypeAlias = tuple[float, float, float]
Profile: TypeAlias = Literal["gaussian", "box", "disc"]
"""The brightness across a streak: blurred, flat with sharp edges, or an out-of-focus disc drawn
along it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Drops at one distance, drawn as streaks."""

    distance: float
    direction: float
    spread: float
    """Standard deviation of a single drop's direction."""
    length: float
    width: float
    """Standard deviation of the brightness across a streak: drop size and defocus together. Half
    the whole width where the profile is no Gaussian."""
    density: float
    """Drops per 1000 square pixels."""
    opacity: float
    speed: float
    """Pixels per frame. Length over speed is the share of a frame that the shutter is open."""
    beads: float
    """How strongly the brightness varies along a streak, as that of an oscillating drop does."""
    dark: float = 0.0
    """Share of drops that darken what is behind them."""
    drops: float | None = None
    """Number of drops in a picture, whatever its size; ``density`` is then ignored."""
    profile: Profile = "gaussian"


@dataclass(frozen=True, slots=True)
class TextureLayer:
    """Streaks cut out of a rendered texture."""

    choice: float
    """Which of the available textures, as a share of their number."""
    direction: float
    zoom: float
    """Pixels of the picture per pixel of the texture."""
    opacity: float
    speed: float
    start: tuple[float, float]
    """Where the cut begins, as shares of the available room."""


@dataclass(frozen=True, slots=True)
class Wind:
    """A slow change of the direction of all drops together."""

    swing: float = 0.0
    period: float = 150.0
    phase: float = 0.0

    def turn(self, frame: int) -> float:
        """How far the drops of ``frame`` are turned."""
        return self.swing * math.sin(2 * math.pi * frame / self.period + self.phase)


@dataclass(frozen=True, slots=True)
class Veil:
    """Rain too far away to see single drops: ``transmission = exp(-thickness * depth)``."""

    thickness: float = 0.0
    light: Colour = (0.8, 0.8, 0.8)
    nearest: float = 0.5
    """Depth assumed for the bottom of a picture if no depth is given. The top is at 1."""
    cue: float = 0.0
    """How far the assumed depth follows the picture (bright and colourless is far) instead of a
    plane."""
    clouds: float = 0.0
    """Relative unevenness."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where in a picture it rains: one side of a soft border, patches, or both together."""

    facing: float
    """Direction from the dry side to the wet one, in radians from the right."""
    border: float
    """Where the border is: 0 in the middle, -0.5 at the dry side of the picture."""
    softness: float
    """Width of the border, as a share of the picture."""
    patches: float = 0.0
    """How far patches shift the border to and fro, as a share of the picture."""


@dataclass(frozen=True, slots=True)
class CameraEffects:
    """What the camera does to the rainy scene."""

    exposure: float = 1.0
    contrast: float = 1.0
    noise: float = 0.0
    """Standard deviation on the scale of 0 to 1."""
    jpeg: int | None = None
    """Quality, or ``None`` for no compression."""


@dataclass(frozen=True, slots=True)
class Rain:
    """The full description of one rain."""

    seed: int
    severity: float
    style: str
    layers: tuple[Layer, ...] = ()
    textures: tuple[TextureLayer, ...] = ()
    colour: Colour = (1.0, 1.0, 1.0)
    absorption: float = 0.0
    """How much of the background a streak hides: 0 adds light, 1 covers like paint."""
    accumulation: float = 0.0
    """Opacity of streaks too fine to see singly: they lift the brightness evenly."""
    region: Region | None = None
    """``None`` if streaks fall everywhere. The veil is always everywhere."""
    wind: Wind = Wind()
    veil: Veil = Veil()
    camera: CameraEffects = CameraEffects()

    @property
    def clear(self) -> bool:
        """Whether there is nothing to render."""
        streaks = self.layers or self.textures or self.accumulation
        return not streaks and self.veil.thickness == 0

    def turned(self, angle: float) -> Rain:
        """The same rain, falling at another mean angle."""
        directions = [x.direction for x in self.layers] + [x.direction for x in self.textures]
        by = angle - sum(directions) / max(1, len(directions))
        return replace(
            self,
            layers=tuple(replace(x, direction=x.direction + by) for x in self.layers),
            textures=tuple(replace(x, direction=x.direction + by) for x in self.textures),
        )
