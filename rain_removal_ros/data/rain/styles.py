"""Kinds of rain, each as ranges to draw from.

``STYLES`` resemble published sets, and networks are compared on them. ``TRAINING_STYLES`` are for
training: the same with wider ranges, and rain that no set has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

Range: TypeAlias = tuple[float, float]

LARGEST_SLANT = 1.22
"""70 degrees."""


@dataclass(frozen=True, slots=True)
class Strokes:
    """Ranges of a layer whose drops are counted, all uniform in the logarithm."""

    count: Range
    """Number in a picture, at the highest severity."""
    length: Range
    width: Range
    """Full visible widths."""
    opacity: Range
    sharp_share: float
    """The share with sharp edges."""
    blurred_share: float
    """The share of out-of-focus discs; the rest are Gaussian."""
    share: float = 1.0
    """How often there are any."""


@dataclass(frozen=True, slots=True)
class Style:
    """Ranges that ``sample`` draws from. Values that grow with severity are for severity 1."""

    weight: float
    """How often it is drawn, relative to the others."""
    layers: tuple[int, int]
    slant: float
    """The largest mean direction."""
    fan: float
    """How far the layers' directions differ."""
    spread: Range
    length: Range
    """Of the farthest and the nearest drops; width and opacity likewise."""
    width: Range
    opacity: Range
    density: Range
    """Of all layers together."""
    absorption: Range = (0.0, 0.0)
    brightness: Range = (0.85, 1.0)
    dark: Range = (0.0, 0.0)
    texture_share: float = 0.0
    """How often the streaks come from textures, if there are any."""
    veil: Range = (0.0, 0.0)
    dim: Range = (0.0, 0.0)
    """Loss of exposure and contrast."""
    strokes: tuple[Strokes, ...] = ()
    """Counted strokes in addition to the layers."""
    steep_share: float = 1.0
    """How often the slant is that of most rain, instead of anything up to ``LARGEST_SLANT``."""
    scales: Range = (0.65, 1.7)
    """The range of a factor on the size of all drops."""
    tint: float = 0.0
    """Standard deviation of the colour of the light, in addition to that of ``Rain.colour``."""
    region_share: float = 0.0
    """How often it rains in a part of the picture only."""
    accumulation: Range = (0.0, 0.0)


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
    # Near, middle and far drops in mist: heavy rain as it looks, and as Outdoor-Rain draws it.
    "heavy": Style(
        weight=0.3, layers=(3, 5), slant=0.6, fan=0.08, spread=(0.01, 0.1), length=(6, 80),
        width=(0.3, 2.0), opacity=(0.25, 0.8), density=(20, 130), absorption=(0.3, 1.0),
        brightness=(0.7, 1.0), texture_share=0.25, veil=(0.3, 1.6), dim=(0.0, 0.15),
    ),
    # The same without much mist: ordinary rain at a short shutter time.
    "shower": Style(
        weight=0.1, layers=(3, 4), slant=0.5, fan=0.06, spread=(0.02, 0.15), length=(4, 40),
        width=(0.3, 2.0), opacity=(0.2, 0.9), density=(15, 130), absorption=(0.2, 1.0),
        brightness=(0.7, 1.0), texture_share=0.2, veil=(0.0, 0.3), dim=(0.0, 0.05),
    ),
}  # fmt: skip


_SINGLE = Strokes(
    count=(1, 900), length=(4, 140), width=(0.8, 5), opacity=(0.2, 1.0),
    sharp_share=0.45, blurred_share=0.1,
)  # fmt: skip
_NEAR = Strokes(
    count=(1, 50), length=(8, 140), width=(4, 14), opacity=(0.2, 1.0),
    sharp_share=0.5, blurred_share=0.3,
)  # fmt: skip


def _widened(style: Style) -> Style:
    """A published set's rain with the variation of other cameras."""
    return replace(
        style, weight=0.7 * style.weight, strokes=(replace(_NEAR, share=0.15),), steep_share=0.8,
        scales=(0.33, 3.4), tint=0.06, region_share=0.25,
    )  # fmt: skip


TRAINING_STYLES: dict[str, Style] = {
    **{name: _widened(style) for name, style in STYLES.items()},
    # More of the thin rain that robots mostly meet.
    "sparse": replace(_widened(STYLES["sparse"]), weight=0.6),
    # Light rain: from a single streak on.
    "single": Style(
        weight=0.8, layers=(0, 0), slant=LARGEST_SLANT, fan=0.0, spread=(0.0, 0.12), length=(1, 1),
        width=(1, 1), opacity=(1, 1), density=(1, 1), absorption=(0.0, 1.0), brightness=(0.75, 1.0),
        strokes=(_SINGLE,), steep_share=0.5, scales=(0.5, 2.0), tint=0.04, region_share=0.25,
    ),
    # Drops close to the camera: broad, opaque or out of focus, mostly in front of others.
    "near": Style(
        weight=0.4, layers=(0, 2), slant=LARGEST_SLANT, fan=0.05, spread=(0.0, 0.12),
        length=(6, 60), width=(0.3, 1.2), opacity=(0.25, 0.9), density=(1, 20),
        absorption=(0.3, 1.0), brightness=(0.7, 1.0), strokes=(_NEAR,), steep_share=0.5,
        scales=(0.5, 2.0), tint=0.05, region_share=0.2, veil=(0.0, 0.2),
    ),
    # So dense that it lifts the brightness of the whole picture.
    "dense": Style(
        weight=0.1, layers=(2, 4), slant=0.8, fan=0.3, spread=(0.0, 0.12), length=(8, 90),
        width=(0.3, 1.3), opacity=(0.3, 0.7), density=(15, 60), absorption=(0.0, 1.0),
        brightness=(0.75, 1.0), steep_share=0.8, scales=(0.5, 2.5), tint=0.06, region_share=0.15,
        accumulation=(0.03, 0.3),
    ),
}  # fmt: skip
