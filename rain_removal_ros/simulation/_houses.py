"""Paints the fronts and side walls of houses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from rain_removal_ros.simulation._textures import Array, Colour, array32, noise, reduced, tinted

WALLS: tuple[Colour, ...] = (
    (205, 190, 160), (222, 212, 190), (176, 168, 158), (196, 168, 120), (150, 96, 76),
    (168, 112, 88), (190, 198, 200), (216, 196, 178), (128, 84, 70), (228, 226, 218),
)  # fmt: skip
_SIGNS: tuple[Colour, ...] = (
    (116, 34, 36), (34, 58, 92), (40, 76, 58), (52, 50, 52), (156, 112, 46), (92, 74, 60),
    (62, 96, 108), (188, 176, 150),
)  # fmt: skip
_FRAMES: tuple[Colour, ...] = ((232, 230, 224), (60, 52, 46), (92, 96, 94))
_SHUTTERS: tuple[Colour, ...] = ((70, 92, 78), (94, 70, 56), (72, 86, 104))
_WOODS: tuple[Colour, ...] = ((84, 58, 40), (46, 66, 62), (88, 34, 32), (52, 56, 66))
_SLATES: tuple[Colour, ...] = ((92, 94, 100), (118, 78, 64), (84, 80, 78))
_LETTERS: Colour = (232, 226, 208)
_AWNING: Colour = (222, 216, 204)
_DORMER: Colour = (206, 200, 188)
_IRON: Colour = (44, 44, 46)
_PANES, _SKY, _ROOM = (222, 218, 210), (120, 136, 150), (38, 42, 46)
_CURTAIN, _BLIND, _LAMPLIGHT = (176, 170, 158), (186, 182, 172), (120, 98, 58)

_DRAWN, _KEPT = 56, 28
"""Pixels per metre: painted at the first, stored at the second."""
_EDGE_M = 0.4
"""From the side of a front to its first bay."""
_GROUND_FLOOR_M, _ROOF_M = 3.9, 2.6
_GABLE_M = (12, 16)
_COURSE_M, _BRICK_M = 0.09, 0.26
_CURTAINS, _BLINDS, _LIT = 0.45, 0.58, 0.63
"""Bounds of a random number: below the first there are curtains, then a blind, then light."""

_Size: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class _Style:
    """What all windows of a front have in common; sizes are in metres."""

    frame: Colour
    window: _Size
    trim: Colour
    shutter: Colour | None
    balconies: bool


@dataclass(frozen=True)
class _Front:
    """A front that is being painted. Places are metres from the left and above the ground."""

    image: Array
    width: float
    bay: float
    bays: int
    wall: Colour

    def left(self, column: int, width: float) -> float:
        """Where something of this width begins in the middle of a bay."""
        return _EDGE_M + column * self.bay + (self.bay - width) / 2

    def box(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        """Fill a rectangle."""
        left, top = x * _DRAWN, self.image.shape[0] - (y + h) * _DRAWN
        corners = (round(left), round(top)), (round(left + w * _DRAWN), round(top + h * _DRAWN))
        cv2.rectangle(self.image, *corners, [float(c) for c in colour], -1)

    def dim(self, x: float, y: float, w: float, h: float, factor: float) -> None:
        """Darken a rectangle, as a shadow or a groove does."""
        high = self.image.shape[0]
        left, top = max(round(x * _DRAWN), 0), max(round(high - (y + h) * _DRAWN), 0)
        part = self.image[top : round(top + h * _DRAWN), left : round(left + w * _DRAWN)]
        part[:] = np.clip(part * factor, 0, 255)


def house(rng: np.random.Generator, wall: Colour) -> tuple[Array, float, float]:
    """A front towards the street, and its width and height in metres."""
    floors, bays = int(rng.integers(3, 6)), int(rng.integers(3, 6))
    bay, storey = rng.uniform(2.3, 3.0), rng.uniform(2.9, 3.3)
    roof = rng.choice([0.0, _ROOF_M])
    width = bays * bay + 2 * _EDGE_M
    height = _GROUND_FLOOR_M + (floors - 1) * storey + 0.9 + roof
    image = _plaster(rng, round(height * _DRAWN), round(width * _DRAWN), wall)
    front = _Front(image, width, bay, bays, wall)
    style = _style(rng, wall)
    for floor in range(floors - 1):
        for column in range(bays):
            _add_window(rng, front, style, column, _GROUND_FLOOR_M + floor * storey + 0.75)
    _ground_floor(rng, front, style.frame)
    _add_ledges(front, style.trim, height - roof)
    if roof:
        _roof(rng, front, height - roof, style.frame)
    _add_rain_pipe(front, height - roof)
    front.dim(0, 0, width, 0.5, 0.72)
    return _stored(image, width, height), width, height


def gable(rng: np.random.Generator, wall: Colour) -> Array:
    """A side wall with few windows, 12 x 16 m."""
    width, height = _GABLE_M
    image = _plaster(rng, height * _DRAWN, width * _DRAWN, tuple(array32(wall) * 0.88))
    for x in (1.6, 5.4, 9.0):
        for floor in range(4):
            if rng.random() < 0.7:
                _glaze(rng, image, x, 1.2 + 3.1 * floor, (1.1, 1.6), _PANES, panes=2)
    up = np.arange(height * _DRAWN, dtype=np.float32)[::-1]
    fade = 1 - 0.35 * np.exp(-up / _DRAWN / 0.5)
    image = (image * fade[:, None, None]).astype(np.uint8)
    return _stored(image, width, height)


def _style(rng: np.random.Generator, wall: Colour) -> _Style:
    frame = _FRAMES[rng.integers(3)]
    window = rng.uniform(1.0, 1.35), rng.uniform(1.55, 1.95)
    has_shutters = rng.random() < 0.35
    shutter = _SHUTTERS[rng.integers(3)]
    balconies = rng.random() < 0.35
    trim = tuple(np.clip(array32(wall) * 1.14 + 8, 0, 245))
    return _Style(frame, window, trim, shutter if has_shutters else None, balconies)


def _add_window(
    rng: np.random.Generator, front: _Front, style: _Style, column: int, base: float
) -> None:
    """An upper window with its sill, and shutters or a balcony if the front has them."""
    width, height = style.window
    left = front.left(column, width)
    front.box(left - 0.13, base - 0.05, width + 0.26, height + 0.22, style.trim)
    _glaze(rng, front.image, left, base, style.window, style.frame, panes=2)
    front.box(left - 0.2, base - 0.16, width + 0.4, 0.13, style.trim)
    front.dim(left - 0.2, base - 0.34, width + 0.4, 0.18, 0.72)
    if style.shutter is not None:
        for x in (left - 0.56, left + width + 0.12):
            front.box(x, base, 0.44, height, style.shutter)
            for slat in np.arange(0.1, height - 0.05, 0.12):
                front.dim(x + 0.05, base + slat, 0.34, 0.05, 0.75)
    elif style.balconies and column % 2 == 0:
        _add_balcony(front, left, base, width, style.trim)


def _add_balcony(front: _Front, left: float, base: float, width: float, trim: Colour) -> None:
    """Bars, a handrail, and a slab with the shadow below it."""
    for bar in np.arange(left - 0.35, left + width + 0.35, 0.13):
        front.box(bar, base - 0.1, 0.03, 0.95, _IRON)
    front.box(left - 0.4, base + 0.85, width + 0.8, 0.06, _IRON)
    front.box(left - 0.45, base - 0.24, width + 0.9, 0.16, trim)
    front.dim(left - 0.4, base - 0.62, width + 0.8, 0.38, 0.68)


def _add_ledges(front: _Front, trim: Colour, eaves: float) -> None:
    """The ledges over the ground floor and below the eaves, with their shadows."""
    width = front.width
    front.box(0, _GROUND_FLOOR_M - 0.1, width, 0.22, trim)
    front.dim(0, _GROUND_FLOOR_M - 0.34, width, 0.24, 0.74)
    front.box(0, eaves - 0.42, width, 0.42, trim)
    front.dim(0, eaves - 0.30, width, 0.05, 0.7)
    front.dim(0, eaves - 0.72, width, 0.3, 0.7)


def _add_rain_pipe(front: _Front, eaves: float) -> None:
    front.box(front.width - 0.22, 0.2, 0.1, eaves - 0.5, tuple(array32(front.wall) * 0.62))
    front.dim(front.width - 0.12, 0.2, 0.06, eaves - 0.5, 0.8)


def _plaster(rng: np.random.Generator, high: int, wide: int, wall: Colour) -> Array:
    """Plaster, or bricks if the wall is red."""
    shade = 1 + 0.035 * noise(rng, high, wide, 60) + 0.018 * noise(rng, high, wide, 9, stretch=14)
    shade += 0.035 * rng.standard_normal((high, wide), dtype=np.float32)
    if wall[0] > 1.35 * wall[2]:
        course, brick = round(_COURSE_M * _DRAWN), round(_BRICK_M * _DRAWN)
        tones = rng.normal(1, 0.09, (high // course + 1, wide // brick + 2)).astype(np.float32)
        rows = np.kron(tones, np.ones((course, brick), np.float32))[:high]
        for row in range(0, high, course):
            offset = brick // 2 * (row // course % 2)
            shade[row : row + course] *= rows[row : row + course, offset : offset + wide]
        shade[::course] *= 1.16
    return tinted(shade, wall)


def _glaze(
    rng: np.random.Generator, image: Array, x: float, y: float, size: _Size, frame: Colour,
    *, panes: int,
) -> None:  # fmt: skip
    """A window: glass and what is behind it, the frame, and the shadow at the top."""
    high, wide = round(size[1] * _DRAWN), round(size[0] * _DRAWN)
    top, left = image.shape[0] - round((y + size[1]) * _DRAWN), round(x * _DRAWN)
    pane = np.clip(_glass(rng, high, wide, size), 0, 255).astype(np.uint8)
    thick = max(round(0.07 * _DRAWN), 1)
    cv2.rectangle(pane, (0, 0), (wide - 1, high - 1), frame, thick)
    for i in range(1, panes):
        cv2.line(pane, (wide * i // panes, 0), (wide * i // panes, high), frame, thick)
    cv2.line(pane, (0, high // 3), (wide, high // 3), frame, max(thick - 1, 1))
    pane[: round(0.06 * _DRAWN)] //= 2
    part = image[max(top, 0) : top + high, left : left + wide]
    part[:] = pane[-part.shape[0] :, : part.shape[1]]


def _glass(rng: np.random.Generator, high: int, wide: int, size: _Size) -> Array:
    """A dark room with the sky mirrored in the upper part; curtains, a blind or light."""
    rows = np.linspace(0, 1, high, dtype=np.float32)[:, None, None]
    columns = np.linspace(0, 1, wide, dtype=np.float32)[None, :, None]
    mirrored = array32(_SKY) * rng.uniform(0.75, 1.15)
    room = array32(_ROOM)
    slope = np.clip(1.15 - 1.4 * rows - rng.uniform(-0.3, 0.3) * columns, 0, 1)
    glass = room + (mirrored - room) * slope * rng.uniform(0.5, 0.95)
    kind = rng.random()
    if kind < _CURTAINS:
        drawn = rng.uniform(0.14, 0.4)
        cloth = array32(_CURTAIN) * (0.72 + 0.12 * np.sin(columns * 60))
        is_cloth = np.abs(columns - 0.5) > 0.5 - drawn / 1.4
        glass = np.where(is_cloth, 0.45 * glass + 0.55 * cloth, glass)
    elif kind < _BLINDS:
        glass = np.where(rows < rng.uniform(0.3, 0.8), array32(_BLIND), glass)
    elif kind < _LIT:
        glass = 0.5 * glass + array32(_LAMPLIGHT)
    width, height = size
    recess = (1 - 0.5 * np.exp(-rows * height / 0.1)), (1 - 0.3 * np.exp(-columns * width / 0.08))
    shaded: Array = glass * recess[0] * recess[1]
    return shaded


def _ground_floor(rng: np.random.Generator, front: _Front, frame: Colour) -> None:
    """A door, and a shop or windows."""
    door = int(rng.integers(front.bays))
    wood = _WOODS[rng.integers(4)]
    is_shop = rng.random() < 0.6
    if is_shop:
        _add_shop_front(rng, front, wood)
    for column in range(front.bays):
        if column == door:
            _add_door(rng, front, front.left(column, 0), wood)
        elif is_shop:
            _add_shop_window(rng, front, _EDGE_M + column * front.bay, wood)
        else:
            _glaze(rng, front.image, front.left(column, 1.2), 1.1, (1.2, 1.7), frame, panes=2)
            sill = tuple(array32(front.wall) * 1.08)
            front.box(front.left(column, 1.5), 0.98, 1.5, 0.13, sill)
    if is_shop and rng.random() < 0.5:
        _add_awning(rng, front)


def _add_shop_front(rng: np.random.Generator, front: _Front, wood: Colour) -> None:
    """Panelling, and a sign with letters."""
    sign = _SIGNS[rng.integers(len(_SIGNS))]
    front.box(0.25, 0, front.width - 0.5, 3.55, tuple(array32(wood) * 0.8))
    front.box(0.25, 2.95, front.width - 0.5, 0.6, sign)
    letter = rng.uniform(0.8, front.width * 0.35)
    for _ in range(rng.integers(5, 11)):
        size = rng.uniform(0.14, 0.26)
        front.box(letter, 3.1, size, 0.3, _LETTERS)
        front.dim(letter + size * 0.3, 3.18, size * 0.4, 0.12, 0.5)
        letter += size + 0.08


def _add_door(rng: np.random.Generator, front: _Front, middle: float, wood: Colour) -> None:
    front.box(middle - 0.65, 0, 1.3, 2.6, tuple(array32(wood) * 0.6))
    front.box(middle - 0.55, 0.05, 1.1, 2.1, wood)
    for panel in (0.3, 1.2):
        front.dim(middle - 0.4, panel, 0.8, 0.7, 0.8)
    _glaze(rng, front.image, middle - 0.5, 2.2, (1.0, 0.36), wood, panes=1)


def _add_shop_window(rng: np.random.Generator, front: _Front, left: float, wood: Colour) -> None:
    """A window over a whole bay, with four pieces of goods."""
    _glaze(rng, front.image, left + 0.1, 0.5, (front.bay - 0.2, 2.35), wood, panes=1)
    for _ in range(4):
        goods = tuple(rng.uniform(50, 170, 3))
        at = left + rng.uniform(0.25, front.bay - 0.7)
        front.box(at, 0.55, 0.35, rng.uniform(0.2, 0.8), goods)


def _add_awning(rng: np.random.Generator, front: _Front) -> None:
    """Stripes, and the shade below."""
    stripe = _SIGNS[rng.integers(len(_SIGNS))]
    for i, x in enumerate(np.arange(0.3, front.width - 0.5, 0.35)):
        front.box(x, 2.35, 0.35, 0.65, _AWNING if i % 2 else stripe)
    front.dim(0.3, 2.35, front.width - 0.6, 0.16, 0.8)
    front.dim(0.3, 1.5, front.width - 0.6, 0.85, 0.66)


def _roof(rng: np.random.Generator, front: _Front, eaves: float, frame: Colour) -> None:
    """Rows of slates, with a dormer in every other bay."""
    slate = _SLATES[rng.integers(3)]
    front.box(0, eaves, front.width, _ROOF_M, slate)
    for i, row in enumerate(np.arange(0.0, _ROOF_M, 0.17)):
        front.dim(0, eaves + row, front.width, 0.05, 0.78)
        for x in np.arange(0.12 * (i % 2), front.width, 0.24):
            front.dim(x, eaves + row, 0.22, 0.17, rng.uniform(0.9, 1.1))
    for column in range(0, front.bays, 2):
        left = front.left(column, 1.3)
        front.dim(left - 0.15, eaves + 0.2, 1.85, 1.75, 0.62)
        front.box(left - 0.15, eaves + 0.3, 1.6, 1.75, _DORMER)
        _glaze(rng, front.image, left + 0.1, eaves + 0.42, (1.1, 1.4), frame, panes=2)
    front.dim(0, eaves + 2.45, front.width, 0.15, 0.6)


def _stored(image: Array, width: float, height: float) -> Array:
    """The picture at its final size, opaque."""
    small = reduced(image, round(width * _KEPT), round(height * _KEPT))
    return np.dstack((small, np.full(small.shape[:2], 255, np.uint8)))
