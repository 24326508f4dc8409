"""A simulated drive along a street: what a camera would see, with exact depth, motion and boxes.

It replaces a camera in the demo and the tests, and renders at a camera's rate on one core.
``Drive(seed)`` always shows the same street, and frames can be rendered in any order.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.simulation import _meshes as models
from rain_removal_ros.simulation import _textures as textures
from rain_removal_ros.simulation._rendering import NEAR_M, Canvas, Ground, Lens, PinholeCamera
from rain_removal_ros.simulation._street import Car, Street, Walker
from rain_removal_ros.simulation._textures import array32

__all__ = ["SKY_M", "Box", "Drive", "DriveFrame"]

SKY_M = 1000.0
"""The depth of the sky: finite, so that it needs no special treatment."""
_CARS_M, _WALKERS_M = 150.0, 80.0
_DETAIL_M = (45.0, 14.0)
"""At 640 pixels across, cars nearer than these are drawn in the next level of detail."""
_SEEN_SHARE = 0.12


class Box(NamedTuple):
    """Where an object is, in pixels from the top left corner of the picture.

    Labels are COCO's. ``distance`` is the depth of the object's middle in metres.
    """

    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    id: int
    distance: float


@dataclass(frozen=True)
class DriveFrame:
    """One picture and its ground truth."""

    image: Image
    """H x W x 3, RGB, without rain."""
    depth: NDArray[np.float32]
    """H x W, metres along the optical axis, ``SKY_M`` at most."""
    boxes: list[Box]
    """Cars and people that are sufficiently visible, nearest first."""
    fx: float
    fy: float
    cx: float
    cy: float
    _moving: NDArray[np.bool_] = field(repr=False)
    _camera: PinholeCamera = field(repr=False)
    _previous: PinholeCamera | None = field(repr=False)

    @functools.cached_property
    def flow(self) -> NDArray[np.float32]:
        """H x W x 2: the point seen at p was at ``p + flow[p]`` in the previous frame, if visible.

        NaN on moving objects, and everywhere in the first frame. Computed on first use.
        """
        height, width = self.depth.shape
        if self._previous is None:
            return np.full((height, width, 2), np.nan, np.float32)
        now, then = self._camera, self._previous
        relative = then.matrix @ then.rotation
        turn = (relative @ now.rotation.T @ np.linalg.inv(now.matrix)).astype(np.float32)
        move = (relative @ (now.position - then.position)).astype(np.float32)
        inverse = np.where(self.depth < SKY_M, 1 / self.depth, np.float32(0))
        u = np.arange(width, dtype=np.float32)[None]
        v = np.arange(height, dtype=np.float32)[:, None]
        x, y, w = (turn[i, 0] * u + turn[i, 1] * v + turn[i, 2] + move[i] * inverse
                   for i in range(3))  # fmt: skip
        flow = np.dstack((x / w - u, y / w - v)).astype(np.float32)
        flow[self._moving] = np.nan
        return flow


class Drive:
    """A camera driving along a street. The same seed shows the same drive."""

    def __init__(
        self, seed: int = 0, width: int = 640, height: int = 480, fps: float = 30.0
    ) -> None:
        if width < 32 or height < 32 or fps <= 0:
            raise DataError(
                f"a drive needs at least 32x32 pixels and a rate above 0, "
                f"got {width}x{height} at {fps}"
            )
        self.seed, self.width, self.height, self.fps = seed, width, height, fps
        focal = 0.8 * width
        self._matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2],
                                 [0, 0, 1]])  # fmt: skip
        self._street = Street(seed)
        self._ground = Ground(self._street.ground, focal, 1.45, width)
        self._lens = Lens(np.random.default_rng(seed), width, height)
        self._shadow = textures.Mipmap(textures.shadow())
        self._meshes = {
            kind: [models.car(kind, detail=detail) for detail in range(3)] for kind in models.CARS
        }

    def frame(self, index: int) -> DriveFrame:
        """The picture at ``index / fps`` seconds."""
        if index < 0:
            raise DataError(f"frames are counted from 0, got {index}")
        seconds = index / self.fps
        camera = self._camera(index)
        canvas = Canvas(camera, self.width, self.height)
        canvas.sky(self._street.sky)
        self._ground.draw(canvas, self._street)
        cars = [
            car
            for car in self._street.cars(seconds, reach=_CARS_M)
            if self._ahead(camera, car, _CARS_M)
        ]
        walkers = [
            walker
            for walker in self._street.walkers(seconds, reach=_WALKERS_M)
            if self._ahead(camera, walker, _WALKERS_M)
        ]
        self._draw_shadows(canvas, [*cars, *walkers])
        boxes = self._draw_things(canvas, seconds, cars, walkers)
        moving = self._moving(canvas, cars, walkers)
        depth = array32(np.minimum(1 / np.maximum(canvas.inverse, 0.5 / SKY_M), SKY_M))
        focal, cx, cy = (float(self._matrix[at]) for at in ((0, 0), (0, 2), (1, 2)))
        return DriveFrame(
            self._lens.expose(canvas, index), depth, boxes,
            focal, focal, cx, cy,
            moving, camera, self._camera(index - 1) if index else None,
        )  # fmt: skip

    def _camera(self, index: int) -> PinholeCamera:
        return PinholeCamera.at(self._street.pose(index / self.fps), self._matrix)

    def _ahead(self, camera: PinholeCamera, thing: Car | Walker, reach: float) -> bool:
        """Whether part of it may be visible, and near enough."""
        x, _, z = camera.see(np.array([thing.x, 0, thing.z])).tolist()
        return bool(-2 < z < reach and abs(x) < z * self._matrix[0, 2] / self._matrix[0, 0] + 4)

    def _draw_shadows(self, canvas: Canvas, things: list[Car | Walker]) -> None:
        frames = [_footprint(thing) for thing in things]
        if not frames:
            return
        lookups, boxes, extents = canvas.place(np.array(frames))
        for lookup, box, extent in zip(lookups, boxes.tolist(), extents, strict=True):
            if extent[0] > NEAR_M and box[0] < box[2] and box[1] < box[3]:
                canvas.shade(self._shadow, lookup, box)

    def _draw_things(
        self, canvas: Canvas, seconds: float, cars: list[Car], walkers: list[Walker]
    ) -> list[Box]:
        """Everything above the ground, from far to near."""
        panels = list(self._street.panels(seconds))
        lookups, areas, extents = canvas.place(np.array([panel.frame for panel in panels]))
        # An object in front of a wall is nearer than the wall's far end.
        ranks = np.where([panel.wall for panel in panels], extents[:, 2], extents[:, 1])
        reach = np.array([panel.reach for panel in panels])
        strength = np.clip((reach - extents[:, 2]) / (0.15 * reach), 0, 1)
        shown = np.flatnonzero(((areas[:, 2:] - areas[:, :2]).min(1) > 1) & (strength > 0))
        queue: list[tuple[float, int, Car | Walker | None]] = [
            (float(ranks[i]), int(i), None) for i in shown
        ]
        things: list[Car | Walker] = [*cars, *walkers]
        for number, moved in enumerate(things, 1):
            distance = float(canvas.camera.see(np.array([moved.x, 0, moved.z]))[2])
            # Things beside a car are on the pavement, behind it, so the car's nearer end counts.
            queue.append((distance - moved.reach_m, number, moved))
        boxes: list[Box] = []
        for _, i, thing in sorted(queue, key=lambda item: -item[0]):
            if thing is None:
                canvas.panel(panels[i].texture, lookups[i], areas[i].tolist(), float(strength[i]))
            else:
                boxes += self._draw_object(canvas, thing, i)
        visible = [box for box in boxes if self._share(canvas, box) > _SEEN_SHARE]
        # During drawing, the id was the object's number in this frame.
        visible.sort(key=lambda box: box.distance)
        return [box._replace(id=things[box.id - 1].id) for box in visible]

    def _draw_object(self, canvas: Canvas, thing: Car | Walker, number: int) -> list[Box]:
        stand = _stand(thing)
        distance = float(canvas.camera.see(stand[:, 3])[2])
        if isinstance(thing, Car):
            meshes = self._meshes[thing.kind]
            near = sum(distance * 640 < limit * self.width for limit in _DETAIL_M)
            materials = models.MATERIALS.copy()
            materials[models.PAINT] = thing.paint
            materials[models.SEAM] = array32(thing.paint) * 0.55
            if thing.braking:
                materials[models.TAILLIGHT] = (214, 34, 28)
                materials[models.TAIL_CORE] = (255, 116, 92)
            outline = canvas.car(meshes[near], meshes[min(near, 1)], materials, stand, number)
        elif distance > 2:
            limbs = models.limbs(thing.clothes, thing.phase)
            outline = canvas.limbs(limbs, stand, number)
        else:
            return []
        if not len(outline):
            return []
        size = (self.width, self.height)
        x1, y1 = np.clip(outline.min(0) + 0.5, 0, size).tolist()
        x2, y2 = np.clip(outline.max(0) + 0.5, 0, size).tolist()
        if min(x2 - x1, y2 - y1) < 3:
            return []
        label = "car" if isinstance(thing, Car) else "person"
        return [Box(label, x1, y1, x2, y2, number, distance)]

    @staticmethod
    def _share(canvas: Canvas, box: Box) -> float:
        """The share of a box in which its object is visible."""
        part = canvas.object[int(box.y1) : int(box.y2) + 1, int(box.x1) : int(box.x2) + 1]
        return float(np.count_nonzero(part == box.id)) / max(part.size, 1)

    @staticmethod
    def _moving(canvas: Canvas, cars: list[Car], walkers: list[Walker]) -> NDArray[np.bool_]:
        """Pixels that show moving objects, including one pixel of their soft edges."""
        moves = np.array([0, *(car.moving for car in cars), *(1 for _ in walkers)], np.uint8)
        shown = cv2.LUT(canvas.object, np.resize(moves, 256))
        return cv2.dilate(shown, np.ones((3, 3), np.uint8)).astype(bool)


def _stand(thing: Car | Walker) -> NDArray[np.float64]:
    """Rotation, and place as the fourth column."""
    sine, cosine = np.sin(thing.heading), np.cos(thing.heading)
    return np.array([[cosine, 0, sine, thing.x], [0, 1, 0, 0], [-sine, 0, cosine, thing.z]])


def _footprint(thing: Car | Walker) -> NDArray[np.float64]:
    """The area of its shadow, as across, down, corner."""
    stand = _stand(thing)
    wide, long = (2.8, 5.6) if isinstance(thing, Car) else (1.0, 0.9)
    across, down = stand[:, 0] * wide, stand[:, 2] * long
    return np.array([across, down, stand[:, 3] - across / 2 - down / 2])
