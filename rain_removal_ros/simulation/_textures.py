"""The surfaces of the street: painted once from noise, then looked up in every frame.

All are made by a random generator, at a given number of pixels per metre. This module has the sky
and what stands on the pavement; ``_ground`` and ``_houses`` paint the rest. ``Mipmap`` reduces
textures along each axis separately, because a street is seen at grazing angles: a distant wall is
compressed a hundred times more along the road than upwards.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Colour: TypeAlias = tuple[float, float, float]

SKY_EXTENT = (2.2, 1.3, 0.12)
"""Extent of the sky texture, in tangents: to either side, up, and down."""
SKY_PIXELS = 420
HAZE: Colour = (201, 208, 214)


def array32(values: Any) -> Array:
    """Numbers as an array in single precision."""
    return np.asarray(values, np.float32)


class Mipmap:
    """RGBA with the colour multiplied by its opacity, and all its reductions by powers of two.

    Each has a transparent border of one pixel, which softens the edges.
    """

    def __init__(self, rgba: Array, *, reductions: int = 6) -> None:
        opacity = rgba[..., 3:].astype(np.float32) / 255
        whole = np.dstack((rgba[..., :3] * opacity, rgba[..., 3])).astype(np.uint8)
        self.height, self.width = whole.shape[:2]
        columns = [reduced(whole, self.width >> i, self.height) for i in range(reductions)]
        self.levels = [
            [
                cv2.copyMakeBorder(
                    reduced(column, column.shape[1], self.height >> j),
                    *(1, 1, 1, 1),
                    cv2.BORDER_CONSTANT,
                )
                for j in range(reductions)
            ]
            for column in columns
        ]


def reduced(image: Array, width: int, height: int) -> Array:
    """The picture averaged down to at least one pixel each way."""
    size = (max(width, 1), max(height, 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def noise(
    rng: np.random.Generator, height: int, width: int, cell: float, *, stretch: float = 1
) -> Array:
    """Smooth noise of deviation about 1; its blobs are ``cell`` pixels wide, ``stretch`` times
    as high."""
    size = int(height / (cell * stretch)) + 3, int(width / cell) + 3
    coarse = rng.standard_normal(size, dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def clouds(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int) -> Array:
    """Noise of several scales, each with half the size and strength of the one before."""
    return sum(
        (noise(rng, height, width, cell / 2**i) * 0.55**i for i in range(octaves)),
        start=np.zeros((height, width), np.float32),
    )


def tinted(value: Array, tint: Colour = (1, 1, 1)) -> Array:
    """A grey picture as RGB, in a tint."""
    coloured: Array = np.clip(value[..., None] * array32(tint), 0, 255).astype(np.uint8)
    return coloured


# --- the sky ---------------------------------------------------------------------------------


def sky(rng: np.random.Generator) -> Array:
    """The background of the street, flat, at ``SKY_PIXELS`` pixels per unit of tangent."""
    side, up, down = SKY_EXTENT
    height, width = int((up + down) * SKY_PIXELS), int(2 * side * SKY_PIXELS)
    rise = (up - np.arange(height, dtype=np.float32) / SKY_PIXELS)[:, None]
    across = (np.arange(width, dtype=np.float32) / SKY_PIXELS - side)[None]
    elevation = np.clip(rise / np.sqrt(1 + across**2), 0, 1)[..., None]
    blue = array32(HAZE) + (array32((118, 152, 196)) - array32(HAZE)) * (
        1 - np.exp(-3.2 * elevation)
    )
    # Clouds lie on a plane overhead, so they flatten towards the horizon.
    texture = clouds(rng, 768, 1536, 150, 6)
    reach = 1 / (np.maximum(rise, 0) + 0.16)
    x = array32(768 + 95 * across * reach)
    y = array32(110 * reach + 0 * across)
    thick = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    below = cv2.remap(texture, x, y + 9, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    cover = np.clip(0.62 * (thick + 0.35), 0, 1)[..., None]
    cover = cover * cover * (3 - 2 * cover)
    lit = np.clip(0.86 + 0.13 * (thick - below) - 0.07 * np.maximum(thick, 0), 0.62, 1)[..., None]
    image: Array = blue + (array32((250, 250, 250)) * lit - blue) * cover * 0.88
    image = np.clip(image, 0, 250)
    for rank, tone in enumerate((0.30, 0.55)):  # hills, then trees and roofs, in the haze
        ragged = clouds(rng, 1, width, 260 / (rank + 1), 3 + 3 * rank)
        top = 0.055 - 0.022 * rank + 0.014 * ragged
        mask = np.clip((top - rise) * SKY_PIXELS, 0, 1)[..., None] * tone
        image = image + (array32((128, 143, 146)) - image) * mask
    return image.astype(np.uint8)


# --- what stands on the pavement ----------------------------------------------------------------


def tree(rng: np.random.Generator) -> Array:
    """Seen from the side, 5.5 x 7.5 m: a trunk that forks, and leaves lit from above."""
    scale, wide, high = 64, 352, 480
    image = np.zeros((high, wide, 4), np.uint8)
    tips: list[Array] = []

    def grow(start: Array, angle: float, length: float, thick: float, depth: int) -> None:
        end = start + length * np.array([np.sin(angle), -np.cos(angle)])
        tone = rng.uniform(0.85, 1.1)
        bark = (74 * tone, 64 * tone, 54 * tone, 255)
        first, last = start.astype(int).tolist(), end.astype(int).tolist()
        cv2.line(image, first, last, bark, max(int(thick), 1), cv2.LINE_AA)
        first[0], last[0] = first[0] + int(thick) // 4, last[0] + int(thick) // 4
        dark = (48 * tone, 42 * tone, 37 * tone, 255)
        cv2.line(image, first, last, dark, max(int(thick) // 2, 1), cv2.LINE_AA)
        if depth < 3:
            tips.append(end)
        if depth:
            for side in (-1, 1, rng.uniform(-0.4, 0.4)):
                bend = side * rng.uniform(0.3, 0.62)
                grow(end, angle + bend, length * rng.uniform(0.62, 0.8), thick * 0.6, depth - 1)

    grow(np.array([wide / 2, high - 1.0]), rng.normal(0, 0.03), 2.2 * scale, 15, 4)
    spread = np.concatenate([tip + rng.normal(0, 17, (24, 2)) for tip in tips])
    inside = (np.abs(spread - (wide / 2, 170)) < (wide / 2 - 6, 164)).all(1)
    spread = spread[inside]
    near = np.linspace(0, 1, len(spread))
    green = array32([(70, 88, 42), (82, 96, 44), (62, 84, 50), (104, 98, 46)][rng.integers(4)])
    x, y = ((spread - spread.mean(0)) / 145).T
    lit = 0.42 + 0.42 * near + 0.3 * np.hypot(x, y) * (0.6 - y) + rng.normal(0, 0.09, len(near))
    leaves = np.clip(green * np.maximum(lit, 0.3)[:, None] * 1.25, 0, 255)
    shapes = rng.integers((2, 1, 0), (5, 4, 180), (len(near), 3))
    for at, (long, short, angle), leaf in zip(
        spread.astype(int).tolist(), shapes.tolist(), leaves.tolist(), strict=True
    ):
        cv2.ellipse(image, at, (long, short), angle, 0, 360, (*leaf, 255), -1, cv2.LINE_AA)
    return _straight(image)


def _straight(image: Array) -> Array:
    """Restore the colour of edges, which antialiasing on transparent black has darkened."""
    opacity = np.maximum(image[..., 3:].astype(np.float32), 1) / 255
    image[..., :3] = np.clip(image[..., :3] / opacity, 0, 255)
    return image


def lamp() -> Array:
    """A street lamp, 2.4 x 7 m, its arm to the left."""
    image = np.zeros((448, 154, 4), np.uint8)
    for shift, tone in ((0, 84), (2, 58)):
        cv2.line(image, (136 + shift, 447), (136 + shift, 40), (tone, tone + 3, tone + 5, 255), 4)
    cv2.rectangle(image, (131, 395), (143, 447), (70, 73, 75, 255), -1)
    cv2.ellipse(image, (96, 40), (41, 26), 0, -90, 0, (76, 79, 81, 255), 4, cv2.LINE_AA)
    cv2.line(image, (96, 14), (60, 14), (76, 79, 81, 255), 4, cv2.LINE_AA)
    head = np.array([(20, 12), (62, 9), (66, 19), (24, 21)], np.int32)
    cv2.fillConvexPoly(image, head, (92, 95, 97, 255), cv2.LINE_AA)
    cv2.line(image, (26, 21), (60, 20), (226, 224, 210, 255), 2, cv2.LINE_AA)
    return _straight(image)


def traffic_light(lit: int) -> Array:
    """A signal 0.9 x 3.6 m; ``lit`` counts its lamps from the top."""
    image = np.zeros((346, 86, 4), np.uint8)
    cv2.rectangle(image, (39, 90), (46, 345), (72, 76, 78, 255), -1)
    cv2.rectangle(image, (44, 90), (46, 345), (50, 53, 55, 255), -1)
    cv2.rectangle(image, (24, 4), (61, 100), (30, 32, 34, 255), -1)
    colours = ((255, 62, 40), (255, 190, 40), (60, 240, 130))
    for i, colour in enumerate(colours):
        centre = (42, 20 + 32 * i)
        shown = colour if i == lit else tuple(c * 0.2 for c in colour)
        cv2.circle(image, centre, 12, (*shown, 255), -1, cv2.LINE_AA)
        if i == lit:
            bright = np.minimum(np.array([*colour, 255]) + 90, 255).tolist()
            cv2.circle(image, centre, 5, bright, -1, cv2.LINE_AA)
        cv2.ellipse(image, centre, (14, 14), 0, 190, 350, (16, 17, 18, 255), 3, cv2.LINE_AA)
    return _straight(image)


def sign(kind: int) -> Array:
    """A traffic sign on its post, 0.8 x 2.8 m."""
    image = np.zeros((268, 78, 4), np.uint8)
    cv2.rectangle(image, (37, 60), (41, 267), (124, 127, 129, 255), -1)
    if kind == 0:
        cv2.circle(image, (39, 38), 34, (192, 40, 36, 255), -1, cv2.LINE_AA)
        cv2.circle(image, (39, 38), 25, (238, 238, 234, 255), -1, cv2.LINE_AA)
        cv2.putText(image, "30", (18, 49), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (20, 20, 20, 255), 4,
                    cv2.LINE_AA)  # fmt: skip
    else:
        cv2.rectangle(image, (8, 6), (70, 68), (44, 82, 156, 255), -1)
        cv2.putText(image, "P", (22, 56), cv2.FONT_HERSHEY_SIMPLEX, 1.7, (240, 240, 240, 255), 6,
                    cv2.LINE_AA)  # fmt: skip
    return _straight(image)


def shadow() -> Array:
    """The shadow of a car: black, its opacity fading outwards; 2.8 x 5.6 m."""
    image = np.zeros((112, 56, 4), np.uint8)
    image[14:-14, 12:-12, 3] = 215
    image[..., 3] = cv2.GaussianBlur(image[..., 3], (0, 0), 4.5)
    return image
