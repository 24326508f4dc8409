"""What a simulated camera sees: a street, a video or a folder of pictures, in the rain.

Frames are numbered, and a number always gives the same frame: rainy, reference and ground truth.
The simulated camera, the demo and recordings made for tests all take their frames from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data.clips import VIDEO_SUFFIXES
from rain_removal_ros.data.rain import STYLES, Rain, render_frames, sample
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.media.videos import opened
from rain_removal_ros.settings import setting
from rain_removal_ros.simulation.drive import Box, Drive

__all__ = ["Film", "RainSettings", "Scene", "SceneSettings", "Shot", "View", "open_scene", "sight"]

_STREET_SIZE = (640, 480)
_HALFWAY_M = 25.0
_RAIN_FRAMES = 9000
"""The rain starts over after this many frames, because computing the positions of the drops takes
longer the longer it has rained."""


@dataclass(frozen=True)
class SceneSettings:
    """What the camera looks at."""

    source: str = setting(
        "drive", "drive for the built-in street, or a video, or a folder of pictures", live=False
    )
    width: int = setting(
        0,
        "width of the pictures, 0 for the source's; the street's is 640",
        unit="pixels",
        low=0,
        high=8192,
        live=False,
    )
    height: int = setting(
        0,
        "height of the pictures, 0 for the source's; the street's is 480",
        unit="pixels",
        low=0,
        high=8192,
        live=False,
    )
    fps: float = setting(30.0, "frames per second", unit="Hz", low=0.1, high=240.0, live=False)
    seed: int = setting(0, "the same seed, the same street", low=0, high=2**31 - 1, live=False)


@dataclass(frozen=True)
class RainSettings:
    """What falls in front of the camera."""

    style: str = setting("heavy", "kind of rain", choices=tuple(STYLES), live=False)
    severity: float = setting(
        0.3, "how hard it rains; 0 for no rain", low=0.0, high=1.0, live=False
    )
    seed: int = setting(0, "the same seed, the same rain", low=0, high=2**31 - 1, live=False)


@dataclass(frozen=True)
class Shot:
    """One moment without rain."""

    image: Image
    depth: NDArray[np.float32] | None = None
    """H x W in metres, where it is known."""
    boxes: tuple[Box, ...] = ()
    lens: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy in pixels, where they are known."""

    @property
    def calibration(self) -> dict[str, Any]:
        """Fields of a CameraInfo message; all zeros, which means uncalibrated, without a lens."""
        fx, fy, cx, cy = self.lens or (0.0,) * 4
        one = float(self.lens is not None)
        return {
            "height": self.image.shape[0],
            "width": self.image.shape[1],
            "distortion_model": "plumb_bob" if self.lens else "",
            "d": [0.0] * (5 if self.lens else 0),
            "k": [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, one],
            "r": [one, 0.0, 0.0, 0.0, one, 0.0, 0.0, 0.0, one],
            "p": [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, one, 0.0],
        }


@dataclass(frozen=True)
class View:
    """One moment with rain, and the same without."""

    rainy: Image
    shot: Shot


class Scene(Protocol):
    """Something to look at."""

    @property
    def frames(self) -> int | None:
        """How many there are; None for as many as one likes."""
        ...

    def shot(self, index: int) -> Shot: ...


def open_scene(settings: SceneSettings) -> Scene:
    """The scene that ``settings`` name; an error if it does not exist."""
    if settings.source == "drive":
        return _Street(settings)
    path = Path(settings.source)
    if path.is_dir():
        return _Folder(path, settings)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _Video(path, settings)
    raise DataError(f"scene.source is drive, a video or a folder of pictures, not {str(path)!r}")


def sight(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth in metres as synthetic rain takes it: 0 at the lens, 1 at infinity."""
    return np.asarray(1 - np.exp(depth_m * np.float32(-1 / _HALFWAY_M)), np.float32)


class Film:
    """A scene in the rain, frame by frame.

    With ``loop``, that many frames are kept and repeated; scene and rain start over at the end.
    """

    def __init__(self, scene: Scene, rain: RainSettings, *, loop: int = 0) -> None:
        self._scene = scene
        self._settings = rain
        self._rain: Rain | None = None
        self.loop = min(loop, scene.frames or loop)
        self._kept: list[View] = []

    @property
    def kept(self) -> int:
        """The number of frames of the loop that are ready."""
        return len(self._kept)

    @property
    def ready(self) -> bool:
        """Whether the whole loop has been rendered."""
        return self.kept >= self.loop

    def prepare(self) -> None:
        """Render the next frame of the loop."""
        if not self.ready:
            self._kept.append(self._rendered(self.kept))

    def view(self, index: int) -> View:
        """The frame of this number; numbers go on beyond the end of the loop."""
        if not self.loop:
            return self._rendered(index)
        while not self.ready:
            self.prepare()
        return self._kept[index % self.loop]

    def _rendered(self, index: int) -> View:
        shot = self._scene.shot(index % self._scene.frames if self._scene.frames else index)
        rain = self._rain = self._rain or self._drawn(shot.image.shape[1])
        depth = None if shot.depth is None else sight(shot.depth)
        rainy = render_frames(shot.image[None], rain, depth=depth, first=index % _RAIN_FRAMES)
        return View(rainy[0], shot)

    def _drawn(self, width: int) -> Rain:
        wanted = self._settings
        return sample(
            np.random.default_rng(wanted.seed),
            severity=wanted.severity,
            style=wanted.style,
            scale=width / 500,
        )


class _Street:
    """The built-in drive."""

    frames = None

    def __init__(self, settings: SceneSettings) -> None:
        usual = _STREET_SIZE
        width, height = settings.width or usual[0], settings.height or usual[1]
        self._drive = Drive(settings.seed, width, height, settings.fps)

    def shot(self, index: int) -> Shot:
        seen = self._drive.frame(index)
        lens = (seen.fx, seen.fy, seen.cx, seen.cy)
        return Shot(seen.image, seen.depth, tuple(seen.boxes), lens)


class _Folder:
    """Pictures in a folder, in the order of their names."""

    def __init__(self, folder: Path, settings: SceneSettings) -> None:
        self._paths = pictures.list_pictures(folder)
        if not self._paths:
            raise DataError(f"scene.source: there are no pictures in {folder}")
        first = pictures.read(self._paths[0])
        # A camera has one size; pictures of other sizes are fitted to the first.
        self._size = (settings.width or first.shape[1], settings.height or first.shape[0])

    @property
    def frames(self) -> int:
        return len(self._paths)

    def shot(self, index: int) -> Shot:
        return Shot(_resized(pictures.read(self._paths[index]), self._size))


class _Video:
    """A video file. Reading in order is fast, jumping is not."""

    def __init__(self, path: Path, settings: SceneSettings) -> None:
        self._path = path
        self._settings = settings
        self._capture = opened(path)
        self._next = 0
        self.frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if self.frames < 1:
            raise DataError(f"scene.source: {path} is not a video that can be decoded")

    def shot(self, index: int) -> Shot:
        if index != self._next:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        there, decoded = self._capture.read()
        self._next = index + 1
        if not there:
            raise DataError(f"{self._path} has no frame {index}, though it says so")
        image = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
        size = (self._settings.width or image.shape[1], self._settings.height or image.shape[0])
        return Shot(_resized(image, size))


def _resized(image: Image, size: tuple[int, int]) -> Image:
    if image.shape[1::-1] == size:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
