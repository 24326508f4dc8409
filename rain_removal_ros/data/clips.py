"""Clips to cut training samples from: still pictures, videos and folders of frames.

A still becomes a clip by a camera that pans over it. Pictures are decoded once and kept as 8 bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data import still_camera
from rain_removal_ros.data.cache import Cache, Views
from rain_removal_ros.data.pairs import Pair
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.media.videos import opened

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})


@dataclass(frozen=True)
class Still:
    """One picture, or one pair."""

    name: str
    load: Callable[[], Views]
    frames: int = 1
    scene: str = ""
    """What several pairs may share: their reference. Empty for a name of its own."""

    def frame(self, index: int, cache: Cache) -> Views:
        return cache.get((self.name, 0), self.load)

    def read_through(self, cache: Cache) -> Iterator[Views]:
        yield self.frame(0, cache)


@dataclass(frozen=True)
class FrameFolder:
    """Frames in files, in order."""

    name: str
    loads: tuple[Callable[[], Views], ...]

    @property
    def frames(self) -> int:
        return len(self.loads)

    def frame(self, index: int, cache: Cache) -> Views:
        return cache.get((self.name, index), self.loads[index])

    def read_through(self, cache: Cache) -> Iterator[Views]:
        for index in range(self.frames):
            yield self.frame(index, cache)


@dataclass(frozen=True)
class Video:
    """Frames of a video file, read with OpenCV."""

    name: str
    path: Path
    frames: int = field(default=0)

    @staticmethod
    def open(path: Path) -> Video:
        capture = opened(path)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if frames < 1:
            raise DataError(f"{path} is not a video that can be decoded")
        return Video(str(path), path, frames)

    def frame(self, index: int, cache: Cache) -> Views:
        return cache.get((self.name, index), lambda: (self._seek(index),))

    def read_through(self, cache: Cache) -> Iterator[Views]:
        """All frames that can be read, which may be fewer than the file claims."""
        if cache.holds((self.name, self.frames - 1)):
            yield from (self.frame(index, cache) for index in range(self.frames))
            return
        capture = opened(self.path)
        for index in itertools.count():
            there, decoded = capture.read()
            if not there:
                break
            views = (_rgb(decoded),)
            cache.put((self.name, index), views)
            yield views
        capture.release()

    def _seek(self, index: int) -> Image:
        capture = opened(self.path)
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        there, decoded = capture.read()
        capture.release()
        if not there:
            raise DataError(f"{self.path} has no frame {index}")
        return _rgb(decoded)


Clip = Still | FrameFolder | Video


def find_stills(path: Path) -> list[Clip]:
    """All pictures and videos at a path: one file, or a folder and everything below it."""
    found: list[Clip] = []
    for file in _files(path):
        if pictures.is_picture(file):
            found.append(_still(file))
        elif file.suffix.lower() in VIDEO_SUFFIXES:
            found.append(Video.open(file))
    if not found:
        raise DataError(f"{path} holds neither pictures nor videos")
    return found


def find_clips(path: Path) -> list[Clip]:
    """All videos at a path, and every folder with pictures as the frames of a clip."""
    folders: dict[Path, list[Still]] = {}
    found: list[Clip] = []
    for clip in find_stills(path):
        if isinstance(clip, Still):
            folders.setdefault(Path(clip.name).parent, []).append(clip)
        else:
            found.append(clip)
    return found + [
        FrameFolder(f"clip {folder}", tuple(still.load for still in stills))
        for folder, stills in folders.items()
    ]


def pair_stills(found: Iterable[Pair]) -> list[Clip]:
    """Each pair by itself."""
    return [_still_pair(pair) for pair in found]


def references(found: Iterable[Pair]) -> list[Clip]:
    """The reference of each pair, once if several pairs share it."""
    stills: dict[Path, Still] = {}
    for pair in found:
        stills.setdefault(pair.reference, _reference(pair))
    return list(stills.values())


def pair_clips(found: Iterable[Pair]) -> list[Clip]:
    """The pairs whose rainy pictures share a folder are the frames of one clip."""
    folders: dict[Path, list[Still]] = {}
    for pair in found:
        folders.setdefault(pair.rainy.parent, []).append(_still_pair(pair))
    return [
        FrameFolder(f"clip of pairs {folder}", tuple(still.load for still in stills))
        for folder, stills in folders.items()
    ]


def find_still_cameras(path: Path) -> list[Clip]:
    """Each folder of frames as a clip of pairs: each frame, and the same without its rain."""
    folders = [clip for clip in find_clips(path) if isinstance(clip, FrameFolder)]
    if not folders:
        raise DataError(f"{path} holds no folder with frames of a still camera")
    return [_still_camera(folder) for folder in folders]


def _still_camera(folder: FrameFolder) -> FrameFolder:
    def paired(index: int) -> Callable[[], Views]:
        window = still_camera.window(index, folder.frames)

        def load() -> Views:
            frame = folder.loads[index]()[0]
            others = [folder.loads[other]()[0] for other in window if other != index]
            return frame, still_camera.reference(frame, others)

        return load

    return FrameFolder(f"still camera {folder.name}", tuple(map(paired, range(folder.frames))))


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    return [path] if path.is_file() else sorted(path.rglob("*"), key=pictures.natural_order)


def _still(path: Path) -> Still:
    return Still(str(path), lambda: (pictures.read(path),))


def _still_pair(pair: Pair) -> Still:
    # Names are the cache's keys, and another source may use the picture by itself.
    return Still(f"pair {pair.rainy}", pair.load, scene=str(pair.reference))


def _reference(pair: Pair) -> Still:
    # The name is the cache's key, and a file may hold both halves of a pair.
    return Still(f"reference {pair.reference}", lambda: pair.load()[1:])


def scene(clip: Clip) -> str:
    """The same for clips of one scene."""
    return (clip.scene if isinstance(clip, Still) else "") or clip.name


@dataclass(frozen=True)
class Window:
    """The size of a sample that is cut from a clip."""

    height: int
    width: int
    frames: int


def cut(
    clip: Clip,
    window: Window,
    cache: Cache,
    rng: np.random.Generator,
    retouch: Callable[[Image], Image] | None = None,
) -> Views:
    """A random part of a clip, each view as T x H x W x 3.

    If a clip has too few frames, one of them is panned over like a still. ``retouch`` changes that
    frame before the camera moves, and single frames. It does not change consecutive frames, where
    its result would not move with the scene.
    """
    if clip.frames < window.frames:
        moment = clip.frame(int(rng.integers(clip.frames)), cache)
        return pan(tuple(map(retouch, moment)) if retouch else moment, window, rng)
    start = int(rng.integers(clip.frames - window.frames + 1))
    moments = [clip.frame(start + offset, cache) for offset in range(window.frames)]
    check_size(moments[0][0], window, clip.name)
    height, width = moments[0][0].shape[:2]
    top = int(rng.integers(height - window.height + 1))
    left = int(rng.integers(width - window.width + 1))
    rows, columns = slice(top, top + window.height), slice(left, left + window.width)
    parts = [[view[rows, columns] for view in track] for track in zip(*moments, strict=True)]
    if retouch and window.frames == 1:
        parts = [[retouch(track[0])] for track in parts]
    return tuple(map(np.stack, parts))


def turn(parts: Views, rng: np.random.Generator, how: str) -> Views:
    """All parts randomly mirrored (``mirror``), or mirrored and turned (``all``)."""
    mirrored, upside_down, transposed = rng.random(3) < 0.5
    if how != "none" and mirrored:
        parts = tuple(part[:, :, ::-1] for part in parts)
    if how == "all" and upside_down:
        parts = tuple(part[:, ::-1] for part in parts)
    if how == "all" and transposed and parts[0].shape[1] == parts[0].shape[2]:
        parts = tuple(part.swapaxes(1, 2) for part in parts)
    return tuple(np.ascontiguousarray(part) for part in parts)


def shrink(clip: Image, scale: int) -> Image:
    """A clip T x H x W x 3 reduced by area, as a camera with fewer pixels would see it."""
    if scale == 1:
        return clip
    size = (clip.shape[2] // scale, clip.shape[1] // scale)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in clip])


def check_size(view: Image, window: Window, name: str) -> None:
    height, width = view.shape[:2]
    if height < window.height or width < window.width:
        raise DataError(
            f"{name} is {width}x{height}, smaller than the crop of {window.width}x{window.height}"
        )


_SLOW_PIXELS, _FASTEST_PIXELS = 6.0, 48.0
"""Pixels per frame: what a car's camera sees near its vanishing point at 30 Hz, and of near
objects."""
_SLOW_ZOOM, _FAST_ZOOM = 0.006, 0.03
_FAST_SHARE = 0.3
"""The share of clips with fast motion. Without it, a network takes a lane line that moved for
rain."""
_STILL_SHARE = 0.2
"""The share of clips in which the camera does not move."""


def pan(
    moment: Views, window: Window, rng: np.random.Generator, fast_share: float = _FAST_SHARE
) -> Views:
    """A clip of a camera that moves smoothly over a still, or not at all: path, sway and zoom."""
    height, width = moment[0].shape[:2]
    time = np.arange(window.frames, dtype=np.float64)
    room = (width - window.width, height - window.height)
    widest = min(width / window.width, height / window.height)
    zoom_rate = _SLOW_ZOOM
    # Squared, because slow motion is more common on the road.
    speed = _SLOW_PIXELS * rng.uniform(-1, 1, 2) * rng.uniform(0, 1, 2)
    if rng.random() < fast_share:
        zoom_rate = _FAST_ZOOM
        pixels = math.exp(rng.uniform(math.log(_SLOW_PIXELS), math.log(_FASTEST_PIXELS)))
        direction = rng.uniform(0, 2 * math.pi)
        speed = pixels * np.array([math.cos(direction), math.sin(direction)])
    path = np.stack([_drift(time, *axis, rng) for axis in zip(room, speed, strict=True)])
    zoom = np.exp(rng.normal(0, zoom_rate) * (time - time.mean())).clip(0.5, widest)
    if rng.random() < _STILL_SHARE:
        path, zoom = np.repeat(path[:, :1], window.frames, 1), np.ones_like(time)
    picture, seen = np.array([width, height]), np.array([window.width, window.height])
    tracks = []
    for view in moment:
        frames = np.empty((window.frames, window.height, window.width, *view.shape[2:]), np.uint8)
        for index in range(window.frames):
            scale = zoom[index]
            offset = path[:, index] + (seen - 1) / 2 * (1 - scale)
            offset = offset.clip(0, np.maximum(0, picture - 1 - scale * (seen - 1)))
            matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
            cv2.warpAffine(
                view,
                matrix,
                (window.width, window.height),
                dst=frames[index],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        tracks.append(frames)
    return tuple(tracks)


def _drift(
    time: NDArray[np.float64], room: int, speed: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Positions along one axis: constant speed plus sway, reflected at the picture's edges."""
    sway = rng.uniform(0, 1.5) * np.sin(time * rng.uniform(0.1, 0.8) + rng.uniform(0, 2 * np.pi))
    if room <= 0:
        return np.zeros_like(time)
    position = rng.uniform(0, room) + speed * time + sway
    return room - np.abs(position % (2 * room) - room)


def _rgb(decoded: Any) -> Image:
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
