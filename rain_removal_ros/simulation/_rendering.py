"""From a scene to pixels: flat pictures, meshes and people, drawn from far to near.

Everything flat goes through ``Canvas.panel``. The homography from pixels to the surface gives the
texture coordinates, and its last row gives the inverse distance, so colour and depth agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from rain_removal_ros.simulation import _meshes as models
from rain_removal_ros.simulation._street import BLOCK, GROUND_HALF, GROUND_SCALE, Pose, Street
from rain_removal_ros.simulation._textures import (
    HAZE,
    SKY_EXTENT,
    SKY_PIXELS,
    Array,
    Mipmap,
    array32,
    noise,
)

NEAR_M = 0.3
_SUN = array32([-0.45, -0.8, -0.4])
_SUN /= np.linalg.norm(_SUN)
_FRACTION = 4  # bits of a pixel, in what OpenCV fills
_LOOKUP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_SQUARE = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
_FAN = np.linspace(np.pi / 2, 1.5 * np.pi, 7) + np.array([[0], [np.pi]])


@dataclass(frozen=True)
class PinholeCamera:
    """Pixel = ``matrix`` (``rotation`` (world - ``position``)), pixel centres at whole numbers."""

    matrix: Array
    rotation: Array
    position: Array

    @classmethod
    def at(cls, pose: Pose, matrix: Array) -> PinholeCamera:
        cy, sy, cp, sp = (f(a) for a in (pose.yaw, pose.pitch) for f in (np.cos, np.sin))
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        return cls(matrix, nod @ turn, np.array([pose.x, pose.y, pose.z]))

    def see(self, points: Array) -> Array:
        """World points, ... x 3, in the camera's axes."""
        seen: Array = (points - self.position) @ self.rotation.T
        return seen

    def project(self, seen: Array) -> Array:
        """Pixels of points in the camera's axes, ... x 2."""
        flat = seen[..., :2] / np.maximum(seen[..., 2:], NEAR_M)
        pixels: Array = flat * self.matrix[[0, 1], [0, 1]] + self.matrix[:2, 2]
        return pixels


class Ground:
    """The road as a picture from above, reduced for each distance it is seen from."""

    _STEP = 16

    def __init__(self, plan: Array, focal: float, height_m: float, width: int) -> None:
        self._levels: list[tuple[float, Array]] = []
        # Along the road, a texel is as long as a row of pixels at this distance.
        distance = np.sqrt(focal * height_m / GROUND_SCALE)
        level = plan
        while distance < 110:
            long = max(int(BLOCK * focal * height_m / distance**2), 6)
            wide = min(int(2 * GROUND_HALF * focal / distance), plan.shape[1])
            size = (wide, min(long, plan.shape[0]))
            level = cv2.resize(level, size, interpolation=cv2.INTER_AREA)
            self._levels.append((distance, np.concatenate([level[-1:], level, level[:1]])))
            distance *= 2**0.25
        self._distances = np.array([distance for distance, _ in self._levels])
        # The bend is computed for some columns; between them it is straight enough.
        self._some = np.arange(0, width + self._STEP, self._STEP)
        away = np.abs(self._some[:, None] - np.arange(width)) / self._STEP
        self._between = np.maximum(1 - away, 0).astype(np.float32)

    def draw(self, canvas: Canvas, street: Street) -> None:
        camera = canvas.camera
        back = camera.rotation.T @ np.linalg.inv(camera.matrix)
        rows = np.arange(canvas.height)
        # Without roll the distance of the ground is the same along a row.
        inverse = (back[1, 1] * rows + back[1, 2]) / -camera.position[1]
        top = int(np.searchsorted(inverse, 1 / 600))
        inverse, below = inverse[top:, None], rows[top:, None]
        reach = 1 / inverse
        z = camera.position[2] + reach * (back[2, 0] * self._some + back[2, 1] * below + back[2, 2])
        x = camera.position[0] + reach * (back[0, 0] * self._some + back[0, 1] * below + back[0, 2])
        along = array32(z / BLOCK - np.floor(z.min() / BLOCK)) @ self._between
        along -= np.floor(along)
        share = (x - street.middle(z) + GROUND_HALF) / (2 * GROUND_HALF)
        across = array32(share) @ self._between
        chosen = np.searchsorted(self._distances, reach[:, 0] * 1.04).clip(1) - 1
        for level in np.unique(chosen):
            first, last = np.searchsorted(-chosen, [-level, -level + 1])
            plan = self._levels[level][1]
            map_x = across[first:last] * np.float32(plan.shape[1]) - np.float32(0.5)
            map_y = along[first:last] * np.float32(plan.shape[0] - 2) + np.float32(0.5)
            cv2.remap(plan, map_x, map_y, cv2.INTER_LINEAR, canvas.image[top + first : top + last],
                      cv2.BORDER_REFLECT)  # fmt: skip
        canvas.inverse[top:] = inverse


class Canvas:
    """A frame being drawn: colour, inverse distance, and the object that each pixel shows."""

    def __init__(self, camera: PinholeCamera, width: int, height: int) -> None:
        self.camera, self.width, self.height = camera, width, height
        self.image = np.empty((height, width, 3), np.uint8)
        self.inverse = np.zeros((height, width), np.float32)
        self.object = np.zeros((height, width), np.uint8)

    def sky(self, picture: Array) -> None:
        side, up, _ = SKY_EXTENT
        flat = np.array([[SKY_PIXELS, 0, side * SKY_PIXELS], [0, SKY_PIXELS, up * SKY_PIXELS],
                         [0, 0, 1]])  # fmt: skip
        lookup = flat @ self.camera.rotation.T @ np.linalg.inv(self.camera.matrix)
        cv2.warpPerspective(
            picture, lookup, (self.width, self.height), self.image, _LOOKUP, cv2.BORDER_REPLICATE
        )

    def place(self, frames: Array) -> tuple[Array, Array, Array]:
        """Where flat things appear, given N x 3 x 3 as rows (across, down, corner).

        Returns, for each, the lookup from a pixel to (a, b, 1) times the inverse distance, where a
        and b run from 0 to 1 along the sides; the pixels it may touch (left, top, right, bottom);
        and the minimum, mean and maximum distance of its corners.
        """
        seen = frames - [[[0, 0, 0], [0, 0, 0], self.camera.position]]
        seen = seen @ self.camera.rotation.T
        corners = _SQUARE @ seen
        distance = corners[..., 2]
        pixels = self.camera.project(corners)
        low, high = pixels.min(1), pixels.max(1)
        for i in np.flatnonzero((distance.min(1) < NEAR_M) & (distance.max(1) > NEAR_M)):
            ahead = self.camera.project(_cut(corners[i]))
            low[i], high[i] = ahead.min(0), ahead.max(0)
        low = np.clip(np.floor(low), 0, None)
        high = np.clip(np.ceil(high) + 1, None, (self.width, self.height))
        high[distance.max(1) < NEAR_M] = 0
        lookup = np.linalg.inv(self.camera.matrix @ np.swapaxes(seen, 1, 2))
        extent = np.stack([distance.min(1), distance.mean(1), distance.max(1)], 1)
        return lookup, np.concatenate([low, high], 1).astype(int), extent

    def panel(self, texture: Mipmap, lookup: Array, box: list[int], strength: float) -> None:
        """Draw a picture where ``place`` puts it; with ``strength`` below 1 it is translucent."""
        left, top, right, bottom = box
        # Cut into strips in which the distance, and so the mipmap level, changes little.
        (_, _, _), (_, _, _), (slope, drop, base) = lookup.tolist()
        offset = drop * (top + bottom) / 2 + base
        first, last = max(slope * left + offset, 1e-3), max(slope * right + offset, 1e-3)
        strips = 1 + int(abs(math.log(last / first)) / 0.7)
        edge = left
        for strip in range(1, strips + 1):
            end = right
            if strip < strips:
                end = round((first * (last / first) ** (strip / strips) - offset) / slope)
            if edge < end <= right:
                self._strip(texture, lookup, (edge, top, end, bottom), strength)
                edge = end

    def _strip(
        self, texture: Mipmap, lookup: Array, box: tuple[int, int, int, int], strength: float
    ) -> None:
        left, top, right, bottom = box
        picture = _reduced(texture, lookup, (left + right - 1) / 2, (top + bottom - 1) / 2)
        drawn = _looked_up(picture, lookup, left, top, right, bottom)
        if strength < 1:
            drawn = cv2.multiply(drawn, np.full(4, strength))
        opacity = drawn[..., 3]
        part = self.image[top:bottom, left:right]
        clear = cv2.cvtColor(cv2.bitwise_not(opacity), cv2.COLOR_GRAY2RGB)
        behind = cv2.multiply(part, clear, scale=1 / 255)
        cv2.add(behind, cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB), dst=part)
        solid = cv2.threshold(opacity, 127, 255, cv2.THRESH_BINARY)[1]
        slope, drop, base = array32(lookup[2])
        inverse = (slope * np.arange(left, right, dtype=np.float32)) + (
            drop * np.arange(top, bottom, dtype=np.float32) + base
        )[:, None]
        cv2.copyTo(inverse, solid, self.inverse[top:bottom, left:right])
        shown = self.object[top:bottom, left:right]
        cv2.subtract(shown, solid, dst=shown)

    def shade(self, texture: Mipmap, lookup: Array, box: list[int]) -> None:
        """A shadow on the ground: it darkens, but changes neither distance nor object."""
        left, top, right, bottom = box
        drawn = _looked_up(texture.levels[0][0], lookup, left, top, right, bottom)
        clear = cv2.cvtColor(cv2.bitwise_not(drawn[..., 3]), cv2.COLOR_GRAY2RGB)
        part = self.image[top:bottom, left:right]
        cv2.multiply(part, clear, dst=part, scale=1 / 255)

    def car(
        self, looks: models.Mesh, shape: models.Mesh, materials: Array, stand: Array, name: int
    ) -> Array:
        """Draw a car, with distances from a mesh that may be coarser; return its outline in pixels.

        ``stand`` is the car's rotation with its place as a fourth column.
        """
        shown, faces, distances = self._faces(looks, stand)
        kind = looks.material[shown]
        rays = looks.centres[shown] @ stand[:, :3].T + (stand[:, 3] - self.camera.position)
        normals = looks.normals[shown] @ stand[:, :3].T
        colours = _lit(materials[kind], models.SHINE[kind], normals, rays).tolist()
        for face, colour in zip(faces, colours, strict=True):
            cv2.fillConvexPoly(self.image, face, colour, cv2.LINE_AA, _FRACTION)
        if shape is not looks:
            shown, faces, distances = self._faces(shape, stand)
        for k in np.flatnonzero(shape.solid[shown]).tolist():
            cv2.fillConvexPoly(self.inverse, faces[k], 1 / distances[k], cv2.LINE_8, _FRACTION)
            cv2.fillConvexPoly(self.object, faces[k], name, cv2.LINE_8, _FRACTION)
        seen = self.camera.see(looks.vertices @ stand[:, :3].T + stand[:, 3])
        outline: Array = self.camera.project(seen[seen[:, 2] > NEAR_M])
        return outline

    def _faces(self, mesh: models.Mesh, stand: Array) -> tuple[Array, list[Array], list[float]]:
        """The faces turned to the camera, far to near: their numbers, pixels and distances."""
        seen = self.camera.see(mesh.vertices @ stand[:, :3].T + stand[:, 3])
        pixels = self.camera.project(seen)
        # Faces that run anticlockwise on the screen are seen from outside.
        x, y = pixels[mesh.corners].transpose(2, 1, 0)
        area = (x[2] - x[0]) * (y[3] - y[1]) - (y[2] - y[0]) * (x[3] - x[1])
        depth = seen[:, 2][mesh.corners]
        shown = np.flatnonzero((area < -0.3) & (depth.min(1) > NEAR_M))
        distance = depth[shown].mean(1)
        order = np.argsort(mesh.layer[shown] - distance)
        shown = shown[order]
        fixed = _fixed(pixels)
        return shown, [fixed[mesh.faces[k]] for k in shown.tolist()], distance[order].tolist()

    def limbs(self, limbs: models.Limbs, stand: Array, name: int) -> Array:
        """Draw a person; return the outline in pixels."""
        seen = self.camera.see(limbs.ends @ stand[:, :3].T + stand[:, 3])
        pixels = self.camera.project(seen)
        radius = limbs.radius * (self.camera.matrix[0, 0] / seen[..., 2])
        axis = pixels[1] - pixels[0]
        angle = np.arctan2(axis[:, 1], axis[:, 0])
        # Half a circle around each end.
        around = _FAN[:, None, :] + angle[:, None]
        circle = np.stack([np.cos(around), np.sin(around)], -1) * radius[..., None, None]
        outline = pixels[:, :, None] + circle
        # A bright core on the sunny side makes flat outlines look like round rods.
        core = (pixels + radius[..., None] * (-0.3, -0.2))[:, :, None] + 0.6 * circle
        order = np.argsort(0.12 * limbs.above_hip - seen[..., 2].mean(0))
        inverse = float(1 / seen[..., 2].mean())
        shades = [(outline, limbs.colour * 0.68), (core, limbs.colour * 0.97)]
        shades = shades[: 1 + (np.ptp(outline[..., 1]) > 30)]
        shapes = [
            (_fixed(np.concatenate([shape[0], shape[1]], 1)), np.minimum(colour, 255).tolist())
            for shape, colour in shades
        ]
        for k in order.tolist():
            for shape, colours in shapes:
                cv2.fillConvexPoly(self.image, shape[k], colours[k], cv2.LINE_AA, _FRACTION)
            cv2.fillConvexPoly(self.inverse, shapes[0][0][k], inverse, cv2.LINE_8, _FRACTION)
            cv2.fillConvexPoly(self.object, shapes[0][0][k], name, cv2.LINE_8, _FRACTION)
        whole: Array = outline.reshape(-1, 2)
        return whole


def _fixed(pixels: Array) -> Array:
    """Pixels as OpenCV's whole numbers with ``_FRACTION`` bits behind the point."""
    fixed: Array = np.round(np.clip(pixels, -4000, 8000) * 2**_FRACTION).astype(np.int32)
    return fixed


def _cut(corners: Array) -> Array:
    """The part of a polygon that lies ahead of the camera."""
    ahead = []
    for one, two in zip(corners, np.roll(corners, -1, 0), strict=True):
        if one[2] > NEAR_M:
            ahead.append(one)
        if (one[2] > NEAR_M) != (two[2] > NEAR_M):
            ahead.append(one + (two - one) * (NEAR_M - one[2]) / (two[2] - one[2]))
    return np.array(ahead)


def _reduced(texture: Mipmap, lookup: Array, u: float, v: float) -> Array:
    """The mipmap level of a texture that fits the pixel at (u, v)."""
    (a0, a1, a2), (b0, b1, b2), (c0, c1, c2) = lookup.tolist()
    near = max(c0 * u + c1 * v + c2, 1e-3)
    a, b = (a0 * u + a1 * v + a2) / near, (b0 * u + b1 * v + b2) / near
    # Texels covered by a step of one pixel, along each side of the texture.
    step_a = max(abs(a0 - a * c0), abs(a1 - a * c1)) / near * texture.width
    step_b = max(abs(b0 - b * c0), abs(b1 - b * c1)) / near * texture.height
    i = min(int(math.log2(max(step_a, 1)) + 0.6), len(texture.levels) - 1)
    j = min(int(math.log2(max(step_b, 1)) + 0.6), len(texture.levels[i]) - 1)
    return texture.levels[i][j]


def _looked_up(
    picture: Array, lookup: Array, left: int, top: int, right: int, bottom: int
) -> Array:
    """A picture with its clear border, as seen in a part of the canvas."""
    high, wide = picture.shape[0] - 2, picture.shape[1] - 2
    texel = np.array([[wide, 0, 0.5], [0, high, 0.5], [0, 0, 1]])
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
    return cv2.warpPerspective(
        picture, texel @ lookup @ shift, (right - left, bottom - top), flags=_LOOKUP
    )


def _lit(albedo: Array, shine: Array, normals: Array, rays: Array) -> Array:
    """Colours in daylight: sky above, road below, a soft sun, and the sky mirrored."""
    up = -normals[:, 1]
    light = 0.62 + 0.2 * up + 0.42 * np.maximum(normals @ _SUN, 0)
    towards = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    along = (towards * normals).sum(1)
    mirrored_up = -(towards[:, 1] - 2 * along * normals[:, 1])
    sky = np.clip(0.5 + 2.2 * mirrored_up, 0, 1)
    grazing = shine * (0.35 + 0.65 * (1 - np.abs(along)) ** 2)
    mirrored = array32([84, 86, 88]) + sky[:, None] * array32([132, 140, 148])
    lit: Array = albedo * light[:, None] * (1 - grazing[:, None]) + mirrored * grazing[:, None]
    return lit.clip(0, 250)


class Lens:
    """Effects of air and camera: haze, a soft lens, dark corners, grain."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        depth = np.arange(256, dtype=np.float32) / 255 / self._NEAR
        clear = np.exp(-1 / np.maximum(depth, 1e-6) / self._VISIBILITY_M)
        clear[0] = 1  # the sky texture includes haze
        self._clear = np.round(255 * clear).astype(np.uint8)
        veil = (1 - clear)[:, None] * array32(HAZE)
        self._veil = np.round(veil).astype(np.uint8)[None]
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        self._corners = cv2.merge([np.round(255 * (1 - 0.11 * (x**2 + y**2))).astype(np.uint8)] * 3)
        self._grain = []
        for _ in range(4):
            fine = 1.7 * rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
            blotches = 0.8 * noise(rng, height + 64, width + 64, 2)[..., None]
            self._grain.append(np.clip(128 + fine + blotches, 0, 255).astype(np.uint8))

    _NEAR = 8.0
    _VISIBILITY_M = 420.0
    _CONTRAST, _BLACK = 1.12, 11

    def expose(self, canvas: Canvas, index: int) -> Array:
        height, width = canvas.height, canvas.width
        nearness = cv2.convertScaleAbs(canvas.inverse, alpha=255 * self._NEAR)
        clear = cv2.cvtColor(cv2.LUT(nearness, self._clear), cv2.COLOR_GRAY2RGB)
        veil = cv2.LUT(cv2.cvtColor(nearness, cv2.COLOR_GRAY2RGB), self._veil)
        image = cv2.add(cv2.multiply(canvas.image, clear, scale=1 / 255), veil)
        image = cv2.GaussianBlur(image, (3, 3), 0.55)
        image = cv2.multiply(image, self._corners, scale=1.04 / 255)
        y, x = (int(v) for v in np.random.default_rng(index).integers(0, 64, 2))
        grain = self._grain[index % len(self._grain)][y : y + height, x : x + width]
        return cv2.addWeighted(image, self._CONTRAST, grain, 1, -128 - self._BLACK)
