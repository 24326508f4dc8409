"""The shapes that move: cars as meshes of flat faces, people as jointed limbs.

Model axes are the camera's: x right, y down, z ahead; metres, the origin on the ground.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from rain_removal_ros.simulation._textures import Array, Colour, array32

PAINT, GLASS, RUBBER, TRIM, RIM, HEADLIGHT, TAILLIGHT, TAIL_CORE, PLATE, SEAM = range(10)
MATERIALS = array32([
    (0, 0, 0), (14, 17, 20), (24, 24, 25), (30, 31, 33), (146, 148, 151),
    (222, 226, 224), (92, 14, 16), (158, 22, 22), (206, 204, 194), (0, 0, 0),
])  # fmt: skip
SHINE = array32([0.42, 0.4, 0.02, 0.08, 0.2, 0.3, 0.3, 0.3, 0.05, 0.05])


@dataclass(frozen=True)
class Mesh:
    """Faces of any number of corners; ``corners`` are four of each, for normals and shading."""

    vertices: Array
    faces: list[Array]
    corners: Array
    centres: Array
    normals: Array
    material: Array
    layer: Array
    """Details lie on the face below. They count as so many metres nearer and are drawn later."""
    solid: Array
    """Whether it is more than a detail."""


class _Builder:
    def __init__(self) -> None:
        self.vertices: list[Array] = []
        self.faces: list[Array] = []
        self.material: list[int] = []
        self.layer: list[float] = []

    def add(self, points: Array, material: int, layer: float = 0) -> None:
        """One face, turned outwards: away from the middle of the car at this length."""
        points = np.asarray(points, np.float32)
        normal = _normals(points[None, _quarter(len(points))])[0]
        centre = points.mean(0)
        if normal @ (centre - array32([0, -0.7, 0.65 * centre[2]])) < 0:
            points = points[::-1]
        self.faces.append(np.arange(len(points)) + sum(map(len, self.vertices)))
        self.vertices.append(points)
        self.material.append(material)
        self.layer.append(layer)

    def both(self, points: Array, material: int, layer: float = 0) -> None:
        """One face on the right side and its mirror image."""
        self.add(points, material, layer)
        self.add(np.asarray(points) * _FLIP, material, layer)

    def mesh(self) -> Mesh:
        vertices = np.concatenate(self.vertices)
        corners = np.array([face[_quarter(len(face))] for face in self.faces])
        quads = vertices[corners]
        material, layer = np.array(self.material), array32(self.layer)
        solid = (layer <= 0) | (material == RUBBER)
        return Mesh(
            vertices, self.faces, corners, quads.mean(1), _normals(quads), material, layer, solid
        )


def _quarter(count: int) -> list[int]:
    return [0, count // 4, count // 2, 3 * count // 4]


def _normals(quads: Array) -> Array:
    across = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normals: Array = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return normals


# Length, width, then the profile from the rear: (place along 0..1, waist, top, is there a cabin).
_PROFILES: dict[str, tuple[float, float, list[tuple[float, float, float, int]]]] = {
    "hatchback": (4.1, 1.76, [
        (0.0, 0.66, 0.72, 0), (0.012, 0.88, 0.93, 0), (0.035, 0.96, 1.0, 0), (0.14, 0.96, 1.38, 1),
        (0.22, 0.95, 1.46, 1), (0.42, 0.94, 1.49, 1), (0.58, 0.93, 1.43, 1), (0.75, 0.92, 0.98, 0),
        (0.88, 0.86, 0.91, 0), (0.955, 0.77, 0.82, 0), (0.985, 0.66, 0.71, 0), (1.0, 0.5, 0.55, 0),
    ]),
    "saloon": (4.6, 1.8, [
        (0.0, 0.66, 0.70, 0), (0.012, 0.9, 0.94, 0), (0.03, 0.96, 1.0, 0), (0.14, 0.97, 1.02, 0),
        (0.29, 0.95, 1.38, 1), (0.34, 0.95, 1.42, 1), (0.45, 0.94, 1.45, 1), (0.58, 0.93, 1.39, 1),
        (0.74, 0.91, 0.96, 0), (0.88, 0.84, 0.88, 0), (0.96, 0.74, 0.79, 0), (0.987, 0.64, 0.68, 0),
        (1.0, 0.5, 0.54, 0),
    ]),
    "estate": (4.7, 1.88, [
        (0.0, 0.74, 0.8, 0), (0.012, 0.98, 1.04, 0), (0.03, 1.08, 1.12, 0), (0.09, 1.08, 1.62, 1),
        (0.2, 1.07, 1.69, 1), (0.42, 1.06, 1.71, 1), (0.6, 1.05, 1.64, 1), (0.74, 1.04, 1.1, 0),
        (0.89, 0.98, 1.04, 0), (0.965, 0.88, 0.94, 0), (0.988, 0.74, 0.8, 0), (1.0, 0.55, 0.6, 0),
    ]),
    "van": (5.1, 1.98, [
        (0.0, 1.08, 1.14, 0), (0.01, 1.18, 1.24, 0), (0.025, 1.18, 1.98, 1), (0.12, 1.18, 2.06, 1),
        (0.4, 1.18, 2.08, 1), (0.7, 1.16, 2.03, 1), (0.84, 1.14, 1.22, 0), (0.95, 1.0, 1.06, 0),
        (0.985, 0.86, 0.92, 0), (1.0, 0.6, 0.66, 0),
    ]),
}  # fmt: skip
CARS = tuple(_PROFILES)
_FLIP = array32([-1, 1, 1])


def _at(x: float, y: float, z: float) -> Array:
    return np.array([x, y, z])


def car(kind: str, *, detail: int) -> Mesh:
    """A car of one ``kind``, in detail 0 (seen from afar), 1 (its shape) or 2 (seen nearby)."""
    length, width, profile = _PROFILES[kind]
    half = width / 2
    cabin = [i for i, station in enumerate(profile) if station[3]]
    windscreen = profile[cabin[-1]]
    if detail == 0:
        kept = (0, cabin[0] - 1, cabin[0], cabin[-1], cabin[-1] + 1, len(profile) - 2)
        profile = [profile[i] for i in kept]
    build = _Builder()
    rings = [_ring(half, length, *station) for station in profile]
    for k, (rear, front) in enumerate(itertools.pairwise(rings)):
        one, two = (_rounded(ring) if detail == 2 else ring for ring in (rear, front))
        for j in range(len(one) - 1):
            build.both(np.stack([one[j], two[j], two[j + 1], one[j + 1]]), PAINT)
        roof = np.stack([rear[-1], front[-1], front[-1] * _FLIP, rear[-1] * _FLIP])
        build.add(roof, PAINT)
        if profile[k][3] != profile[k + 1][3]:
            build.add(_inset(roof, 0.06), GLASS, 0.04)
        if (profile[k][3] or profile[k + 1][3]) and (kind != "van" or profile[k + 1][0] > 0.75):
            window = np.stack([rear[-2], front[-2], front[-1], rear[-1]])
            build.both(_inset(window, 0.1), GLASS, 0.06)
    for ring in (rings[0], rings[-1]):
        build.add(np.concatenate([ring, ring[::-1] * _FLIP]), PAINT)
    _wheels(build, half, length, detail)
    _rear(build, half, -length / 2, rings, upright=kind == "van")
    _front(build, half, length / 2, rings)
    if detail > 0:
        _mirrors(build, half, length, windscreen)
    if detail == 2:
        _details(build, half, length, windscreen)
    return build.mesh()


def _ring(half: float, length: float, place: float, waist: float, top: float, cabin: int) -> Array:
    """Points up the right side: sill, bulge, shoulder, waist, edge of the roof or bonnet."""
    nose = 1 - 0.13 * max(0.0, 1 - min(place, 1 - place) / 0.06) ** 2
    points = [
        (0.95 * half, 0.24 + 0.06 * (nose < 1)), (half, 0.5), (0.985 * half, 0.62 * waist + 0.15),
        (0.92 * half, waist), (0.76 * half, top - 0.03 * cabin),
    ]  # fmt: skip
    return array32([(x * nose, -y, (place - 0.5) * length) for x, y in points])


def _rounded(ring: Array) -> Array:
    """The line with the corners between its ends cut off."""
    near, far = 0.75 * ring[:-1] + 0.25 * ring[1:], 0.25 * ring[:-1] + 0.75 * ring[1:]
    cut = np.stack([near, far], 1).reshape(-1, 3)
    return np.concatenate([ring[:1], cut[1:-1], ring[-1:]])


def _inset(quad: Array, margin: float) -> Array:
    inset: Array = quad + (quad.mean(0) - quad) * margin
    return inset


def _disc(x: float, y: float, z: float, radius: float, points: int, turn: float = 0) -> Array:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False) + turn
    return np.stack([np.full(points, x), y + radius * np.sin(angle), z + radius * np.cos(angle)], 1)


def _upright(x0: float, x1: float, y0: float, y1: float, z: float) -> Array:
    """A rectangle across the car, its heights counted upwards."""
    return array32([(x0, -y0, z), (x1, -y0, z), (x1, -y1, z), (x0, -y1, z)])


def _wheels(build: _Builder, half: float, length: float, detail: int) -> None:
    radius, points = 0.315, 10 + 5 * detail
    for place in (-0.305, 0.315):
        z = place * length
        arch = _disc(half + 0.004, -radius, z, radius + 0.065, points)
        arch[:, 1] = np.minimum(arch[:, 1], -0.22)
        build.both(arch, RUBBER, 0.25)
        build.both(_disc(half + 0.008, -radius, z, radius, points), RUBBER, 0.3)
        build.both(_disc(half + 0.01, -radius, z, radius * 0.68, points), RIM, 0.33)
        for spoke in range(5 if detail == 2 else 0):
            wedge = [
                _disc(half + 0.012, -radius, z, radius * share, 24, spoke * 2 * np.pi / 5)[:3]
                for share in (0.58, 0.22)
            ]
            build.both(np.concatenate([wedge[0], wedge[1][::-1]]), TRIM, 0.36)
        for end in (-0.8, 0.8):
            # Seen from behind or ahead, below the car: outwards is along it.
            tread = _upright(half - 0.2, half - 0.03, 0, 0.36, z + end * radius)
            build.both(tread, RUBBER, -0.2)


def _rear(build: _Builder, half: float, z: float, rings: list[Array], *, upright: bool) -> None:
    build.add(_upright(-0.86 * half, 0.86 * half, 0.28, 0.42, z - 0.012), TRIM, 0.12)
    build.add(_upright(-0.26, 0.26, 0.55, 0.66, z - 0.016), PLATE, 0.15)
    low, high = rings[0][3], rings[1][3]
    if upright:
        lamp = _upright(0.72 * half, 0.85 * half, 0.66, 1.04, z - 0.014)
    else:
        lamp = np.stack([low * (0.72, 1.04, 1), low * (1, 1.04, 1), high * (1, 0.98, 1),
                         high * (0.66, 0.98, 1)]) - _at(0, 0, 0.03)  # fmt: skip
    build.both(lamp, TAILLIGHT, 0.2)
    build.both(_inset(lamp, 0.4), TAIL_CORE, 0.22)


def _front(build: _Builder, half: float, z: float, rings: list[Array]) -> None:
    build.add(_upright(-0.62 * half, 0.62 * half, 0.28, 0.42, z + 0.012), TRIM, 0.12)
    build.add(_upright(-0.26, 0.26, 0.4, 0.5, z + 0.02), PLATE, 0.15)
    low, high, back = (ring[3] for ring in (rings[-1], rings[-2], rings[-3]))
    grille = np.stack([low * (0.5, 1, 1), high * (0.55, 1.02, 1)]) + _at(0, 0, 0.02)
    build.add(np.concatenate([grille, grille[::-1] * _FLIP]), TRIM, 0.13)
    lamp = np.stack([low * (0.66, 1.12, 1), low * (1.0, 1.14, 1),
                     (0.55 * high + 0.45 * back) * (1, 0.97, 1),
                     high * (0.64, 1.02, 1)])  # fmt: skip
    build.both(lamp + _at(0.004, 0, 0.02), TRIM, 0.16)
    build.both(_inset(lamp, 0.25) + _at(0.004, 0, 0.025), HEADLIGHT, 0.18)


def _details(
    build: _Builder, half: float, length: float, windscreen: tuple[float, float, float, int]
) -> None:
    """Door seams and handles."""
    waist = windscreen[1]
    for z in np.array([-0.18, 0.03, 0.2]) * length:
        x, y = 0.97 * half, -waist + 0.06
        seam = [(half, -0.42, z), (half, -0.42, z + 0.018), (x, y, z + 0.018), (x, y, z)]
        build.both(array32(seam), SEAM, 0.08)
        low, high = -waist + 0.17, -waist + 0.14
        handle = [(half, low, z + 0.1), (half, low, z + 0.27), (half, high, z + 0.27),
                  (half, high, z + 0.1)]  # fmt: skip
        build.both(array32(handle), SEAM, 0.09)


def _mirrors(
    build: _Builder, half: float, length: float, windscreen: tuple[float, float, float, int]
) -> None:
    place, waist = windscreen[:2]
    z = (place - 0.5) * length + 0.42
    for end, material in ((-0.07, GLASS), (0.07, PAINT)):
        mirror = _upright(0.93 * half, half + 0.17, waist + 0.01, waist + 0.16, z + end)
        build.both(mirror, material, 0.1)


# --- people -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clothes:
    """What distinguishes one walker from another."""

    height: float
    stout: float
    skin: Colour
    hair: Colour
    jacket: Colour
    trousers: Colour
    shoes: Colour
    bag: Colour | None


def dressed(rng: np.random.Generator) -> Clothes:
    """Random clothes."""
    jackets = [(46, 52, 66), (120, 38, 40), (66, 84, 62), (150, 126, 92), (36, 36, 40),
               (70, 96, 132), (182, 176, 164), (168, 120, 48), (96, 62, 84)]  # fmt: skip
    trousers = [(44, 50, 70), (34, 34, 38), (88, 80, 68), (58, 66, 84), (70, 62, 54)]
    skin = [(214, 170, 146), (192, 142, 114), (140, 94, 70), (92, 62, 48), (224, 184, 162)]
    hair = [(40, 32, 28), (74, 54, 38), (128, 98, 62), (26, 24, 24), (132, 130, 128)]

    def pick(colours: list[tuple[int, int, int]]) -> Colour:
        red, green, blue = colours[rng.integers(len(colours))]
        return (float(red), float(green), float(blue))

    bag = (*rng.uniform(30, 110, 3),) if rng.random() < 0.4 else None
    return Clothes(
        rng.uniform(1.58, 1.88), rng.uniform(0.92, 1.18), pick(skin), pick(hair), pick(jackets),
        pick(trousers), (38, 34, 32), bag,
    )  # fmt: skip


@dataclass(frozen=True)
class Limbs:
    """Tapered rods: both ends, 2 x N x 3, the radius at either, 2 x N, and the colour."""

    ends: Array
    radius: Array
    colour: Array
    above_hip: Array
    """Whether it covers the legs where they meet."""


def limbs(clothes: Clothes, phase: float) -> Limbs:
    """A walker facing +z; ``phase`` in radians, two steps a turn."""
    scale, stout = clothes.height / 1.75, clothes.stout
    rods: list[tuple[Array, Array, float, float, Colour]] = []

    def rod(first: Array, last: Array, r0: float, r1: float, colour: Colour) -> None:
        rods.append((first, last, r0, r1, colour))

    def swing(angle: float, length: float) -> Array:
        return np.array([0, length * np.cos(angle), length * np.sin(angle)])

    thighs = [0.46 * np.sin(phase + shift) for shift in (0, np.pi)]
    knees = [0.08 + 0.95 * max(0.0, np.cos(phase + shift - 0.25)) ** 2
             for shift in (0, np.pi)]  # fmt: skip
    reach = max(0.43 * np.cos(t) + 0.42 * np.cos(t - k) for t, k in zip(thighs, knees, strict=True))
    hip = np.array([0, -(reach + 0.075), 0])
    lean = np.array([0, 0, 0.05])
    shoulder = hip + _at(0, -0.5, 0) + lean
    for side, thigh, knee in zip((-1, 1), thighs, knees, strict=True):
        start = hip + _at(0.085 * side, 0.0, 0)
        bend = start + swing(thigh, 0.43)
        ankle = bend + swing(thigh - knee, 0.42)
        rod(start, bend, 0.092 * stout, 0.064 * stout, clothes.trousers)
        rod(bend, ankle, 0.066 * stout, 0.046, clothes.trousers)
        tip = (
            ankle + _at(0.01 * side, 0.045, 0) + swing(np.pi / 2 + 0.9 * min(thigh - knee, 0), 0.15)
        )
        rod(ankle + _at(0, 0.035, -0.04), tip, 0.046, 0.034, clothes.shoes)
        pit = shoulder + _at(0.185 * side * stout, 0.03, 0)
        arm = -0.85 * thigh
        elbow = pit + swing(arm - 0.05, 0.29) + _at(0.035 * side, 0, 0)
        wrist = elbow + swing(arm + 0.5, 0.25)
        rod(pit, elbow, 0.058 * stout, 0.047, clothes.jacket)
        rod(elbow, wrist, 0.047, 0.036, clothes.jacket)
        rod(wrist, wrist + swing(arm + 0.4, 0.07), 0.036, 0.03, clothes.skin)
        rod(shoulder + _at(0.115 * side * stout, 0.03, 0), hip + _at(0.07 * side * stout, 0.03, 0),
            0.088 * stout, 0.092 * stout, clothes.jacket)  # fmt: skip
    rod(
        shoulder + _at(0, 0.06, 0.0),
        hip + _at(0, 0.04, 0),
        0.10 * stout,
        0.10 * stout,
        clothes.jacket,
    )
    if clothes.bag is not None:
        rod(shoulder + _at(0, 0.1, -0.15), shoulder + _at(0, 0.38, -0.16), 0.12, 0.14, clothes.bag)
    head = shoulder + _at(0, -0.21, 0.03)
    rod(shoulder + _at(0, -0.02, 0), head + _at(0, 0.08, 0), 0.055, 0.05, clothes.skin)
    rod(head + _at(0, -0.03, -0.005), head + _at(0, 0.05, 0.012), 0.092, 0.072, clothes.skin)
    rod(head + _at(0, -0.055, -0.035), head + _at(0, 0.01, -0.05), 0.096, 0.082, clothes.hair)
    ends = np.array([[rod[0] for rod in rods], [rod[1] for rod in rods]])
    radius = np.array([[rod[2] for rod in rods], [rod[3] for rod in rods]])
    colour = array32([rod[4] for rod in rods])
    return Limbs(ends * scale, radius * scale, colour, ends[0, :, 1] < hip[1] - 0.05)
