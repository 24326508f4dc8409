"""The surfaces of the street: painted once from noise, then looked up in every frame.

All are made by a random generator, at a given number of pixels per metre. ``Mipmap`` reduces them
along each axis separately, because a street is seen at grazing angles: a distant wall is compressed
a hundred times more along the road than upwards.
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
        columns = [_reduced(whole, self.width >> i, self.height) for i in range(reductions)]
        self.levels = [
            [
                cv2.copyMakeBorder(
                    _reduced(column, column.shape[1], self.height >> j),
                    *(1, 1, 1, 1),
                    cv2.BORDER_CONSTANT,
                )
                for j in range(reductions)
            ]
            for column in columns
        ]


def _reduced(image: Array, width: int, height: int) -> Array:
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


def _rgb(value: Array, tint: Colour = (1, 1, 1)) -> Array:
    coloured: Array = np.clip(value[..., None] * array32(tint), 0, 255).astype(np.uint8)
    return coloured


# --- the ground -----------------------------------------------------------------------------


def ground(
    rng: np.random.Generator, *, length: float, half: float, road: float, crossing: float,
    scale: float, trees: list[tuple[float, float]],
) -> Array:  # fmt: skip
    """One block of street from above, first row at its start: ``length`` x 2 ``half`` metres.

    The first ``crossing`` metres are a crossroads; beyond ``road`` from the middle is pavement.
    ``trees`` are places across and along.
    """
    height, width = round(length * scale), round(2 * half * scale)
    metres_s = (np.arange(height, dtype=np.float32) / scale)[:, None]
    metres_d = (np.arange(width, dtype=np.float32) / scale - half)[None]

    grain = rng.standard_normal((height, width), dtype=np.float32)
    shade = 104 + 2.2 * clouds(rng, height, width, 120, 4)
    shade += 2.5 * noise(rng, height, width, 10, stretch=6) + 7 * grain
    tracks = np.abs(np.abs(np.abs(metres_d) - 1.8) - 0.8)
    shade -= 7 * np.exp(-((tracks / 0.3) ** 2)) * (1 + 0.3 * noise(rng, height, width, 200))
    shade -= 5 * np.exp(-(((np.abs(metres_d) - 1.8) / 0.35) ** 2))
    for _ in range(9):  # repairs
        s, d = rng.uniform(0, length - 8), rng.uniform(-road, road - 1.5)
        patch = _part(shade, scale, half, s, d, rng.uniform(1.5, 7), rng.uniform(0.7, 1.5))
        patch += rng.choice([-13, -8, 9])
    for _ in range(26):  # cracks
        point = np.array([rng.uniform(-road, road) + half, rng.uniform(0, length)])
        steps = rng.normal(0, 0.16, (14, 2)) + rng.normal(0, 0.14, 2)
        line = ((point + np.cumsum(steps, 0)) * scale).astype(np.int32)
        cv2.polylines(shade, [line], False, float(rng.uniform(52, 66)), 1)
    image: Array = _rgb(shade, (1.0, 1.0, 1.015))
    for _ in range(6):
        centre = rng.uniform(-road + 1, road - 1) + half, rng.uniform(crossing, length - 6)
        at = (int(centre[0] * scale), int(centre[1] * scale))
        cv2.circle(image, at, int(0.33 * scale), (62, 61, 60), -1, cv2.LINE_AA)
        cv2.circle(image, at, int(0.33 * scale), (88, 86, 84), 1, cv2.LINE_AA)
        cv2.circle(image, at, int(0.2 * scale), (76, 75, 73), 1, cv2.LINE_AA)

    _mark_lanes(rng, image, length, half, road, crossing, scale)
    side = np.abs(metres_d) - road
    # Corners are rounded: the distance to a pavement that ends short of the crossroads.
    along = np.minimum(metres_s - crossing, length - metres_s)
    corner = np.where(
        (along < 3) & (side < 3), 3 - np.hypot(3 - along, 3 - side), np.minimum(side, along)
    )
    slabs = _slabs(rng, height, width, scale)
    edge = np.clip((corner - 0.22) * scale + 0.5, 0, 1)[..., None]
    stone = np.clip(corner * scale + 0.5, 0, 1)[..., None]
    kerb = _rgb(158 + 4 * grain - 26 * (np.mod(metres_s, 1) < 0.03))
    gutter = 1 - 0.42 * np.exp(-(((corner + 0.06) / 0.12) ** 2))
    image = (image * gutter[..., None]).astype(np.uint8)
    image = (image + (array32(kerb) - image) * stone).astype(np.uint8)
    image = (image + (array32(slabs) - image) * edge).astype(np.uint8)
    for d, s in trees:
        soil = _part(image, scale, half, s - 0.55, d - 0.5, 1.1, 1.0)
        soil[:] = _rgb(74 + 9 * rng.standard_normal(soil.shape[:2]), (1.08, 0.96, 0.8))
        below = _part(image, scale, half, s - 3, d - 3, 6, 6)
        away = np.hypot(*np.mgrid[-3 : 3 : below.shape[0] * 1j, -3 : 3 : below.shape[1] * 1j])
        below[:] = below * (1 - 0.42 * np.exp(-((away / 1.5) ** 2)))[..., None]
    return image


def _part(
    plan: Array, scale: float, half: float, s: float, d: float, length: float, width: float
) -> Array:
    """The view of a plan that begins at ``s`` along and ``d`` across, in metres."""
    top, left = round(s * scale), round((d + half) * scale)
    return plan[max(top, 0) : top + round(length * scale), left : left + round(width * scale)]


def _mark_lanes(
    rng: np.random.Generator, image: Array, length: float, half: float, road: float,
    crossing: float, scale: float,
) -> None:  # fmt: skip
    high, wide = image.shape[:2]
    paint: Array = np.zeros((high, wide), np.float32)

    def mark(s: float, d: float, along: float, across: float) -> None:
        _part(paint, scale, half, s, d, along, across)[:] = 1

    for s in np.arange(crossing + 10, length - 12, 8):
        mark(s, -0.07, 3, 0.14)
    mark(length - 18, -0.07, 11.5, 0.14)
    for d in (-road + 2.35, road - 2.45):
        mark(crossing + 8, d, length - crossing - 22, 0.1)
        for s in np.arange(crossing + 8, length - 13, 6.4):
            mark(s, d if d > 0 else -road + 0.3, 0.1, 2.1)
    for d in np.arange(-road + 0.5, road - 0.5, 1):  # zebra crossings
        mark(length - 5, d, 3, 0.5)
        mark(crossing + 2, d, 3, 0.5)
    mark(length - 6.5, 0.15, 0.4, road - 0.4)
    mark(crossing + 6.1, -road + 0.25, 0.4, road - 0.4)
    worn = 0.78 + 0.16 * noise(rng, high, wide, 5) + 0.1 * noise(rng, high, wide, 60)
    paint = cv2.GaussianBlur(paint, (3, 3), 0) * np.clip(worn, 0.15, 0.95)
    image[:] = image + (array32((212, 211, 205)) - image) * paint[..., None]


def _slabs(rng: np.random.Generator, height: int, width: int, scale: float) -> Array:
    side = round(0.6 * scale)
    tones = rng.normal(0, 4.5, (height // side + 1, width // side + 1)).astype(np.float32)
    shade = 142 + np.kron(tones, np.ones((side, side), np.float32))[:height, :width]
    shade[::side] -= 26
    shade[:, ::side] -= 26
    shade += 4 * rng.standard_normal((height, width), dtype=np.float32)
    shade += 5 * noise(rng, height, width, 70)
    metres = np.abs(np.arange(width) / scale - width / scale / 2)
    shade *= 1 - 0.45 * np.exp(-np.abs(metres - 10) / 0.55).astype(np.float32)  # foot of the walls
    return _rgb(shade, (1.0, 0.985, 0.955))


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


# --- houses ----------------------------------------------------------------------------------

WALLS: tuple[Colour, ...] = (
    (205, 190, 160), (222, 212, 190), (176, 168, 158), (196, 168, 120), (150, 96, 76),
    (168, 112, 88), (190, 198, 200), (216, 196, 178), (128, 84, 70), (228, 226, 218),
)  # fmt: skip
SIGNS: tuple[Colour, ...] = (
    (116, 34, 36), (34, 58, 92), (40, 76, 58), (52, 50, 52), (156, 112, 46), (92, 74, 60),
    (62, 96, 108), (188, 176, 150),
)  # fmt: skip
_DRAWN, _KEPT = 56, 28  # pixels per metre: drawn at the first, stored at the second


def house(rng: np.random.Generator, wall: Colour) -> tuple[Array, float, float]:
    """A front towards the street, and its width and height in metres."""
    floors, bays = int(rng.integers(3, 6)), int(rng.integers(3, 6))
    bay, storey, ground_floor = rng.uniform(2.3, 3.0), rng.uniform(2.9, 3.3), 3.9
    roof = rng.choice([0.0, 2.6])
    width, height = bays * bay + 0.8, ground_floor + (floors - 1) * storey + 0.9 + roof
    wide, high = round(width * _DRAWN), round(height * _DRAWN)
    image = _plaster(rng, high, wide, wall)

    def box(x: float, y: float, w: float, h: float, colour: Colour) -> None:
        """Filled, ``x`` from the left and ``y`` above the ground, in metres."""
        left, top = x * _DRAWN, high - (y + h) * _DRAWN
        corners = (round(left), round(top)), (round(left + w * _DRAWN), round(top + h * _DRAWN))
        cv2.rectangle(image, *corners, [float(c) for c in colour], -1)

    def dim(x: float, y: float, w: float, h: float, factor: float) -> None:
        left, top = max(round(x * _DRAWN), 0), max(round(high - (y + h) * _DRAWN), 0)
        part = image[top : round(top + h * _DRAWN), left : round(left + w * _DRAWN)]
        part[:] = np.clip(part * factor, 0, 255)

    frame: Colour = [(232, 230, 224), (60, 52, 46), (92, 96, 94)][rng.integers(3)]
    window = rng.uniform(1.0, 1.35), rng.uniform(1.55, 1.95)
    trim = tuple(np.clip(array32(wall) * 1.14 + 8, 0, 245))
    shutters = rng.random() < 0.35
    shutter: Colour = [(70, 92, 78), (94, 70, 56), (72, 86, 104)][rng.integers(3)]
    balconies = rng.random() < 0.35
    for floor in range(floors - 1):
        base = ground_floor + floor * storey + 0.75
        for column in range(bays):
            left = 0.4 + column * bay + (bay - window[0]) / 2
            box(left - 0.13, base - 0.05, window[0] + 0.26, window[1] + 0.22, trim)
            _glaze(rng, image, left, base, *window, frame, panes=2)
            box(left - 0.2, base - 0.16, window[0] + 0.4, 0.13, trim)
            dim(left - 0.2, base - 0.34, window[0] + 0.4, 0.18, 0.72)
            if shutters:
                for x in (left - 0.56, left + window[0] + 0.12):
                    box(x, base, 0.44, window[1], shutter)
                    for slat in np.arange(0.1, window[1] - 0.05, 0.12):
                        dim(x + 0.05, base + slat, 0.34, 0.05, 0.75)
            elif balconies and column % 2 == 0:
                for bar in np.arange(left - 0.35, left + window[0] + 0.35, 0.13):
                    box(bar, base - 0.1, 0.03, 0.95, (44, 44, 46))
                box(left - 0.4, base + 0.85, window[0] + 0.8, 0.06, (44, 44, 46))
                box(left - 0.45, base - 0.24, window[0] + 0.9, 0.16, trim)
                dim(left - 0.4, base - 0.62, window[0] + 0.8, 0.38, 0.68)
    _ground_floor(rng, image, box, dim, width, bay, bays, frame, wall)
    box(0, ground_floor - 0.1, width, 0.22, trim)
    dim(0, ground_floor - 0.34, width, 0.24, 0.74)
    eaves = height - roof
    box(0, eaves - 0.42, width, 0.42, trim)
    dim(0, eaves - 0.30, width, 0.05, 0.7)
    dim(0, eaves - 0.72, width, 0.3, 0.7)
    if roof:
        _roof(rng, image, box, dim, eaves, width, bay, bays, frame)
    box(width - 0.22, 0.2, 0.1, eaves - 0.5, tuple(array32(wall) * 0.62))  # rain pipe
    dim(width - 0.12, 0.2, 0.06, eaves - 0.5, 0.8)
    dim(0, 0, width, 0.5, 0.72)
    small = _reduced(image, round(width * _KEPT), round(height * _KEPT))
    return np.dstack((small, np.full(small.shape[:2], 255, np.uint8))), width, height


def _plaster(rng: np.random.Generator, high: int, wide: int, wall: Colour) -> Array:
    shade = 1 + 0.035 * noise(rng, high, wide, 60) + 0.018 * noise(rng, high, wide, 9, stretch=14)
    shade += 0.035 * rng.standard_normal((high, wide), dtype=np.float32)
    if wall[0] > 1.35 * wall[2]:  # brick
        course, brick = round(0.09 * _DRAWN), round(0.26 * _DRAWN)
        tones = rng.normal(1, 0.09, (high // course + 1, wide // brick + 2)).astype(np.float32)
        rows = np.kron(tones, np.ones((course, brick), np.float32))[:high]
        for row in range(0, high, course):
            offset = brick // 2 * (row // course % 2)
            shade[row : row + course] *= rows[row : row + course, offset : offset + wide]
        shade[::course] *= 1.16
    return _rgb(shade, wall)


def _glaze(
    rng: np.random.Generator, image: Array, x: float, y: float, w: float, h: float,
    frame: Colour, *, panes: int,
) -> None:  # fmt: skip
    """A window: dark room, curtains, the sky mirrored in the upper part, frame, shade on top."""
    high, wide = round(h * _DRAWN), round(w * _DRAWN)
    top, left = image.shape[0] - round((y + h) * _DRAWN), round(x * _DRAWN)
    rows = np.linspace(0, 1, high, dtype=np.float32)[:, None, None]
    columns = np.linspace(0, 1, wide, dtype=np.float32)[None, :, None]
    mirrored = array32((120, 136, 150)) * rng.uniform(0.75, 1.15)
    dark = array32((38, 42, 46))
    slope = np.clip(1.15 - 1.4 * rows - rng.uniform(-0.3, 0.3) * columns, 0, 1)
    glass = dark + (mirrored - dark) * slope * rng.uniform(0.5, 0.95)
    kind = rng.random()
    if kind < 0.45:
        drawn = rng.uniform(0.14, 0.4)
        cloth = array32((176, 170, 158)) * (0.72 + 0.12 * np.sin(columns * 60))
        glass = np.where(np.abs(columns - 0.5) > 0.5 - drawn / 1.4, 0.45 * glass + 0.55 * cloth,
                         glass)  # fmt: skip
    elif kind < 0.58:
        glass = np.where(rows < rng.uniform(0.3, 0.8), array32((186, 182, 172)), glass)
    elif kind < 0.63:
        glass = 0.5 * glass + array32((120, 98, 58))
    glass = glass * (1 - 0.5 * np.exp(-rows * h / 0.1)) * (1 - 0.3 * np.exp(-columns * w / 0.08))
    pane = np.clip(glass, 0, 255).astype(np.uint8)
    thick = max(round(0.07 * _DRAWN), 1)
    cv2.rectangle(pane, (0, 0), (wide - 1, high - 1), frame, thick)
    for i in range(1, panes):
        cv2.line(pane, (wide * i // panes, 0), (wide * i // panes, high), frame, thick)
    cv2.line(pane, (0, high // 3), (wide, high // 3), frame, max(thick - 1, 1))
    pane[: round(0.06 * _DRAWN)] //= 2
    part = image[max(top, 0) : top + high, left : left + wide]
    part[:] = pane[-part.shape[0] :, : part.shape[1]]


def _ground_floor(
    rng: np.random.Generator, image: Array, box: Any, dim: Any, width: float, bay: float,
    bays: int, frame: Colour, wall: Colour,
) -> None:  # fmt: skip
    door = int(rng.integers(bays))
    wood: Colour = [(84, 58, 40), (46, 66, 62), (88, 34, 32), (52, 56, 66)][rng.integers(4)]
    shop = rng.random() < 0.6
    if shop:
        sign = SIGNS[rng.integers(len(SIGNS))]
        box(0.25, 0, width - 0.5, 3.55, tuple(array32(wood) * 0.8))
        box(0.25, 2.95, width - 0.5, 0.6, sign)
        letter = rng.uniform(0.8, width * 0.35)
        for _ in range(rng.integers(5, 11)):
            size = rng.uniform(0.14, 0.26)
            box(letter, 3.1, size, 0.3, (232, 226, 208))
            dim(letter + size * 0.3, 3.18, size * 0.4, 0.12, 0.5)
            letter += size + 0.08
    for column in range(bays):
        left = 0.4 + column * bay
        if column == door:
            box(left + bay / 2 - 0.65, 0, 1.3, 2.6, tuple(array32(wood) * 0.6))
            box(left + bay / 2 - 0.55, 0.05, 1.1, 2.1, wood)
            for panel in (0.3, 1.2):
                dim(left + bay / 2 - 0.4, panel, 0.8, 0.7, 0.8)
            _glaze(rng, image, left + bay / 2 - 0.5, 2.2, 1.0, 0.36, wood, panes=1)
        elif shop:
            _glaze(rng, image, left + 0.1, 0.5, bay - 0.2, 2.35, wood, panes=1)
            for _ in range(4):  # goods
                goods = tuple(rng.uniform(50, 170, 3))
                box(left + rng.uniform(0.25, bay - 0.7), 0.55, 0.35, rng.uniform(0.2, 0.8), goods)
        else:
            _glaze(rng, image, left + (bay - 1.2) / 2, 1.1, 1.2, 1.7, frame, panes=2)
            box(left + (bay - 1.5) / 2, 0.98, 1.5, 0.13, tuple(array32(wall) * 1.08))
    if shop and rng.random() < 0.5:  # awning
        stripe = SIGNS[rng.integers(len(SIGNS))]
        for i, x in enumerate(np.arange(0.3, width - 0.5, 0.35)):
            box(x, 2.35, 0.35, 0.65, (222, 216, 204) if i % 2 else stripe)
        dim(0.3, 2.35, width - 0.6, 0.16, 0.8)
        dim(0.3, 1.5, width - 0.6, 0.85, 0.66)


def _roof(
    rng: np.random.Generator, image: Array, box: Any, dim: Any, eaves: float, width: float,
    bay: float, bays: int, frame: Colour,
) -> None:  # fmt: skip
    slate: Colour = [(92, 94, 100), (118, 78, 64), (84, 80, 78)][rng.integers(3)]
    box(0, eaves, width, 2.6, slate)
    for i, row in enumerate(np.arange(0.0, 2.6, 0.17)):
        dim(0, eaves + row, width, 0.05, 0.78)
        for x in np.arange(0.12 * (i % 2), width, 0.24):
            dim(x, eaves + row, 0.22, 0.17, rng.uniform(0.9, 1.1))
    for column in range(0, bays, 2):
        left = 0.4 + column * bay + (bay - 1.3) / 2
        dim(left - 0.15, eaves + 0.2, 1.85, 1.75, 0.62)
        box(left - 0.15, eaves + 0.3, 1.6, 1.75, (206, 200, 188))
        _glaze(rng, image, left + 0.1, eaves + 0.42, 1.1, 1.4, frame, panes=2)
    dim(0, eaves + 2.45, width, 0.15, 0.6)


def gable(rng: np.random.Generator, wall: Colour) -> Array:
    """A side wall with few windows, 12 x 16 m."""
    image = _plaster(rng, 16 * _DRAWN, 12 * _DRAWN, tuple(array32(wall) * 0.88))
    for x in (1.6, 5.4, 9.0):
        for floor in range(4):
            if rng.random() < 0.7:
                _glaze(rng, image, x, 1.2 + 3.1 * floor, 1.1, 1.6, (222, 218, 210), panes=2)
    fade = 1 - 0.35 * np.exp(-np.arange(16 * _DRAWN, dtype=np.float32)[::-1] / _DRAWN / 0.5)
    image = (image * fade[:, None, None]).astype(np.uint8)
    small = _reduced(image, 12 * _KEPT, 16 * _KEPT)
    return np.dstack((small, np.full(small.shape[:2], 255, np.uint8)))


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
