"""What is in the street, and where it is at a given time. Nothing here knows about pixels.

World axes: x right, y down, z along the street, metres. The street is bent by shifting it sideways:
a point ``d`` right of its middle at ``z`` lies at ``x = Street.middle(z) + d``. It is cut into
blocks of equal length, each beginning with a crossroads, each made from the seed and its number
alone. Everything that moves is a function of time alone, so frames can be rendered in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from rain_removal_ros.simulation import _meshes as models
from rain_removal_ros.simulation import _textures as textures
from rain_removal_ros.simulation._ground import ground
from rain_removal_ros.simulation._houses import WALLS, gable, house
from rain_removal_ros.simulation._textures import Array, Colour, Mipmap

BLOCK, CROSSING = 96.0, 14.0
REACH = 230.0
"""How far the street is drawn, in metres; cars and people less far."""
ROAD, WALL = 6.0, 10.0
LANE, PARKED = 1.75, 4.85
GROUND_HALF, GROUND_SCALE = 14.0, 50.0
TREES, TREE_ROW = tuple(np.arange(CROSSING + 6, BLOCK - 8, 13.0)), 6.95
STOP = -16.4
"""Where the camera stops, relative to a crossroads: one car waits in front of it."""
PAINTS: tuple[Colour, ...] = (
    (196, 198, 200), (40, 42, 46), (120, 124, 128), (226, 226, 222), (36, 62, 112), (146, 24, 28),
    (62, 70, 76), (28, 66, 58), (170, 150, 116), (60, 92, 140),
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A flat picture in the world."""

    texture: Mipmap
    frame: Array
    """As rows: the vectors along its upper and its left side, and its upper left corner."""
    reach: float
    """Beyond this many metres it is not drawn."""
    wall: bool = False
    """Whether things may stand in front of it that are no nearer than its middle."""


@dataclass(frozen=True)
class Car:
    """``heading`` is the angle from +z towards +x."""

    id: int
    kind: str
    paint: Colour
    x: float
    z: float
    heading: float
    moving: bool
    braking: bool = False

    @property
    def reach_m(self) -> float:
        """The distance from its middle to its nearest part."""
        return 0.8 + 1.4 * abs(float(np.cos(self.heading)))


@dataclass(frozen=True)
class Walker:
    """A pedestrian, at ``phase`` of the gait."""

    id: int
    clothes: models.Clothes
    x: float
    z: float
    heading: float
    phase: float
    reach_m: float = 0.0


@dataclass(frozen=True)
class Pose:
    """Where the camera is and looks: yaw towards +x, pitch upwards, in radians."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float


@dataclass(frozen=True)
class Route:
    """The camera's progress: from stop to stop, with constant acceleration and braking."""

    gaps: tuple[int, ...]
    waits: tuple[float, ...]
    speed: float = 11.0
    push: float = 1.7
    brake: float = 2.0

    @property
    def _legs(self) -> list[tuple[float, float]]:
        """Metres and seconds of each leg, including the wait at its end."""
        lost = self.speed / 2 * (1 / self.push + 1 / self.brake)
        return [
            (gap * BLOCK, gap * BLOCK / self.speed + lost + wait)
            for gap, wait in zip(self.gaps, self.waits, strict=True)
        ]

    def _leg(self, time: float) -> tuple[float, float, float, int]:
        """Where this leg began, seconds into it, its duration, and its index in the round."""
        legs = self._legs
        rounds, rest = divmod(time, sum(seconds for _, seconds in legs))
        start = rounds * sum(metres for metres, _ in legs) + STOP
        for number, (metres, seconds) in enumerate(legs):
            if rest < seconds:
                return start, rest, seconds, number
            start, rest = start + metres, rest - seconds
        return start, 0.0, legs[0][1], 0

    def place(self, time: float) -> float:
        start, rest, seconds, number = self._leg(time)
        drive = seconds - self.waits[number]
        risen, fallen = self.speed / self.push, self.speed / self.brake
        up = min(rest, risen)
        even = min(max(rest - risen, 0), drive - risen - fallen)
        down = min(max(rest - (drive - fallen), 0), fallen)
        return start + self.push * up**2 / 2 + self.speed * even + (
            self.speed * down - self.brake * down**2 / 2
        )  # fmt: skip

    def velocity(self, time: float) -> float:
        return (self.place(time + 0.02) - self.place(time - 0.02)) / 0.04

    def pull(self, time: float) -> float:
        """Acceleration, smoothed over a short time."""
        return (self.velocity(time + 0.4) - self.velocity(time - 0.4)) / 0.8

    def red(self, time: float) -> tuple[int, float] | None:
        """The crossroads whose light is red for the camera, and for how many seconds."""
        start, rest, seconds, number = self._leg(time)
        since = rest - (seconds - self.waits[number] - self.speed / self.brake - 1.5)
        # The light turns a moment before the cars start.
        if since >= 0 and rest < seconds - 0.7:
            return round((start - STOP) / BLOCK) + self.gaps[number], since
        return None


@dataclass(frozen=True)
class _Props:
    """The textures that all blocks share."""

    houses: list[tuple[Mipmap, float, float]]
    gables: list[Mipmap]
    trees: list[Mipmap]
    lamps: list[Mipmap]
    signs: list[Mipmap]
    lights: list[Mipmap]
    clothes: list[models.Clothes]


@dataclass(frozen=True)
class StreetBlock:
    """What never moves between two crossroads."""

    panels: list[Panel] = field(default_factory=list)
    cars: list[Car] = field(default_factory=list)


class Street:
    """The whole scene of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        rng = np.random.default_rng(seed)
        walls = [WALLS[i] for i in rng.permutation(len(WALLS))]
        fronts = [house(rng, wall) for wall in walls]
        self._props = _Props(
            [(Mipmap(image), width, height) for image, width, height in fronts],
            [Mipmap(gable(rng, wall)) for wall in walls[:3]],
            [Mipmap(textures.tree(rng)) for _ in range(4)],
            [Mipmap(textures.lamp()), Mipmap(textures.lamp()[:, ::-1])],
            [Mipmap(textures.sign(kind)) for kind in range(2)],
            [Mipmap(textures.traffic_light(lit)) for lit in (0, 2)],
            [models.dressed(rng) for _ in range(24)],
        )
        self.ground = ground(
            rng,
            length=BLOCK,
            half=GROUND_HALF,
            road=ROAD,
            crossing=CROSSING,
            scale=GROUND_SCALE,
            trees=[(side * TREE_ROW, place) for side in (-1, 1) for place in TREES],
        )
        self.sky = textures.sky(rng)
        self.route = Route(tuple(rng.permutation([2, 3, 2, 4]).tolist()),
                           tuple(rng.uniform(4.5, 7, 4).tolist()))  # fmt: skip
        self._start = float(rng.uniform(8, 14))
        self._bends = rng.uniform(0, 2 * np.pi, 2)
        self._leader = Car(1, *self._make(rng), 0, 0, 0, True)
        self.block = functools.lru_cache(maxsize=8)(self._block)

    def middle(self, z: Array) -> Array:
        """How far the middle of the street lies to the right of the z axis."""
        first, second = self._bends
        bent: Array = 11 * np.sin(z / 67 + first) + 3.2 * np.sin(z / 27 + second)
        return bent

    def slope(self, z: float) -> float:
        first, second = self._bends
        return float(11 / 67 * np.cos(z / 67 + first) + 3.2 / 27 * np.cos(z / 27 + second))

    def pose(self, seconds: float) -> Pose:
        """The camera, 1.45 m above the road, nodding when the car brakes or meets a bump."""
        time = seconds + self._start
        z = self.route.place(time)
        bump = 0.006 * np.sin(z / 1.9) + 0.004 * np.sin(z / 0.83 + 1)
        yaw = np.arctan(0.5 * self.slope(z + 4) + 0.5 * self.slope(z + 12))
        return Pose(
            float(self.middle(np.asarray(z))) + LANE + 0.12 * np.sin(z / 31),
            -1.45 + bump, z, float(yaw),
            0.003 * self.route.pull(time) + 0.0016 * np.sin(z / 2.7) + 0.001 * np.sin(z / 1.1),
        )  # fmt: skip

    def _make(self, rng: np.random.Generator) -> tuple[str, Colour]:
        kind = str(rng.choice(models.CARS, p=[0.36, 0.26, 0.26, 0.12]))
        return kind, PAINTS[rng.integers(len(PAINTS))]

    def _rng(self, *key: int) -> np.random.Generator:
        # Numbers of blocks and cars may be negative, which seeds may not.
        return np.random.default_rng([self._seed, *(value & 0xFFFFFFFF for value in key)])

    def _at(self, d: float, height: float, z: float) -> Array:
        return np.array([self.middle(np.asarray(z)) + d, -height, z])

    def _standing(
        self,
        texture: Mipmap,
        d: float,
        z: float,
        width: float,
        height: float,
        *,
        reach: float = 110,
    ) -> Panel:
        corner = self._at(d - width / 2, height, z)
        return Panel(texture, np.array([(width, 0, 0), (0, height, 0), corner]), reach)

    def _block(self, number: int) -> StreetBlock:
        rng = self._rng(1, number)
        block, start = StreetBlock(), number * BLOCK
        for side in (-1, 1):
            self._houses(rng, block, start, side)
            for place in TREES:
                tree = self._props.trees[rng.integers(4)]
                size = rng.uniform(0.9, 1.2)
                d, z = side * TREE_ROW, start + place
                block.panels.append(self._standing(tree, d, z, 5.5 * size, 7.5 * size, reach=REACH))
            for place in (CROSSING + 11, CROSSING + 50):
                lamp = self._props.lamps[side < 0]
                d = side * 6.4 - side * 0.93
                block.panels.append(self._standing(lamp, d, start + place, 2.4, 7))
            sign = self._props.signs[rng.integers(2)]
            block.panels.append(
                self._standing(sign, side * 6.35, start + rng.uniform(24, 80), 0.8, 2.8)
            )
            for slot, place in enumerate(np.arange(CROSSING + 11, BLOCK - 14, 6.4)):
                if rng.random() < 0.55:
                    z = start + place + 0.1 + rng.uniform(-0.3, 0.3)
                    d = side * PARKED + rng.uniform(-0.1, 0.1)
                    heading = np.arctan(self.slope(z)) + rng.normal(0, 0.01) + np.pi * (side < 0)
                    name = ((number & 0xFFFF) << 8) + slot + 128 * (side > 0) + (1 << 24)
                    x = float(self._at(d, 0, z)[0])
                    block.cars.append(Car(name, *self._make(rng), x, z, heading, False))
        return block

    def _houses(
        self, rng: np.random.Generator, block: StreetBlock, start: float, side: int
    ) -> None:
        chosen: list[int] = []
        room = BLOCK - CROSSING - 2.0
        while sum(self._props.houses[i][1] for i in chosen) < room - 4:
            choice = int(rng.integers(len(self._props.houses)))
            if choice not in chosen[-2:]:
                chosen.append(choice)
        fit = room / sum(self._props.houses[i][1] for i in chosen)
        z, before = start + CROSSING + 1.5, 0.0
        for choice in chosen:
            texture, width, height = self._props.houses[choice]
            height *= rng.uniform(0.95, 1.05)
            d = side * (WALL + rng.choice([0, 0, 0.25]))
            near, far = self._at(d, height, z), self._at(d, height, z + width * fit)
            if height > before + 0.3:
                gable = self._props.gables[choice % 3]
                for part in range(1 if before else 3):
                    corner = near + np.array([12.0 * side * part, 0, 0])
                    frame = np.array([(12.0 * side, 0, 0), (0, height, 0), corner])
                    block.panels.append(Panel(gable, frame, REACH, wall=True))
            # Seen from the road, a front reads from left to right: on the right it ends nearby.
            corner, across = (near, far - near) if side < 0 else (far, near - far)
            frame = np.array([across, (0, height, 0), corner])
            block.panels.append(Panel(texture, frame, REACH, wall=True))
            z, before = z + width * fit, height

    # --- what moves ---------------------------------------------------------------------------

    def panels(self, seconds: float) -> Iterator[Panel]:
        """All flat things within the visible range, and some beyond."""
        time = seconds + self._start
        red, z = self.route.red(time), self.route.place(time)
        for number in range(int((z - 2) // BLOCK), int((z + REACH) // BLOCK) + 1):
            yield from self.block(number).panels
            light = self._props.lights[0 if red and red[0] == number + 1 else 1]
            for d in (6.4, -6.4):
                yield self._standing(light, d, (number + 1) * BLOCK - 5.8, 0.9, 3.6)

    def cars(self, seconds: float, *, reach: float) -> Iterator[Car]:
        """All cars from the camera's place to ``reach`` metres ahead."""
        time = seconds + self._start
        z, speed = self.route.place(time), self.route.velocity(time)
        for number in range(int((z - 6) // BLOCK), int((z + reach) // BLOCK) + 1):
            yield from self.block(number).cars
        ahead = z + 7.5 + 1.8 * speed
        braking = self.route.pull(time) < -0.6 or speed < 0.3
        yield self._driving(self._leader, LANE, ahead, 1, braking=braking)
        # Oncoming traffic mirrors the camera's own: it too stops at the lights.
        for slot, offset in enumerate((6.5, 15.0, 37.0, 60.0)):
            first = int(np.floor((2 * z - offset - 6) / BLOCK))
            for number in range(first, first + int(reach / BLOCK) + 2):
                rng = self._rng(2, number, slot)
                if rng.random() < (0.6, 0.35, 0.3, 0.4)[slot]:
                    car = Car((2 << 24) + (number & 0xFFFFF) * 4 + slot, *self._make(rng),
                              0, 0, 0, True)  # fmt: skip
                    yield self._driving(car, -LANE, number * BLOCK + offset - z, -1)
        yield from self._crossing_cars(time)

    def _driving(
        self, car: Car, d: float, z: float, way: int, *, braking: bool = False
    ) -> Car:  # fmt: skip
        heading = float(np.arctan(self.slope(z))) + (np.pi if way < 0 else 0.0)
        x = float(self._at(d, 0, z)[0])
        return Car(car.id, car.kind, car.paint, x, z, heading, True, braking)

    def _crossing_cars(self, time: float) -> Iterator[Car]:
        red = self.route.red(time)
        if red is None:
            return
        number, since = red
        for way, lane in ((1, 3.8), (-1, 10.2)):
            for slot in range(3):
                rng = self._rng(3, number, slot, way)
                across = (since - 3.6 - 2.3 * slot - rng.uniform(0, 0.9)) * 8.5
                kind, paint = self._make(rng)
                if abs(across) < 40 and rng.random() < 0.8:
                    z = number * BLOCK + lane
                    x = float(self._at(way * across, 0, z)[0])
                    name = (3 << 24) + (number & 0xFFFF) * 8 + slot * 2 + (way > 0)
                    yield Car(name, kind, paint, x, z, way * np.pi / 2, True)

    def walkers(self, seconds: float, *, reach: float) -> Iterator[Walker]:
        """The people on the pavements up to ``reach`` metres ahead, and those crossing at a red."""
        time = seconds + self._start
        z = self.route.place(time)
        for lane, (d, pace) in enumerate(((7.7, 1.3), (8.7, -1.2), (-7.6, -1.35), (-8.8, 1.25))):
            spacing = 13.0
            first = int(np.floor((z - pace * time) / spacing))
            for number in range(first, first + int(reach / spacing) + 1):
                rng = self._rng(4, number, lane)
                if rng.random() < 0.5:
                    along = number * spacing + rng.uniform(0, 9) + pace * time
                    side = d + rng.uniform(-0.3, 0.3)
                    heading = float(np.arctan(self.slope(along))) + (np.pi if pace < 0 else 0.0)
                    yield self._walker(
                        (4 << 24) + (number & 0xFFFFF) * 4 + lane,
                        rng,
                        self._at(side, 0, along),
                        heading,
                        abs(pace) * time,
                    )
        red = self.route.red(time)
        if red is not None:
            for slot in range(5):
                rng = self._rng(5, red[0], slot)
                way = 1 if rng.random() < 0.5 else -1
                across = 1.35 * (red[1] - 3.5 - rng.uniform(0, 4)) - 7.5
                if abs(across) < 7.5:
                    spot = self._at(way * across, 0, red[0] * BLOCK - rng.uniform(2.2, 4.8))
                    yield self._walker((5 << 24) + (red[0] & 0xFFFF) * 8 + slot, rng, spot,
                                       way * np.pi / 2, 1.35 * time)  # fmt: skip

    def _walker(
        self, name: int, rng: np.random.Generator, spot: Array, heading: float, walked: float
    ) -> Walker:
        clothes = self._props.clothes[rng.integers(len(self._props.clothes))]
        # Two steps, one cycle of the gait, cover 1.45 m.
        phase = walked / 1.45 * 2 * np.pi + rng.uniform(0, 2 * np.pi)
        return Walker(name, clothes, float(spot[0]), float(spot[2]), heading, phase)
