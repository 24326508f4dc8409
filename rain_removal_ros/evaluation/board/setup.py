"""The setup of the board: where the data is, how much of it is used, and the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.runtime.files import write_whole


@dataclass(frozen=True)
class Extent:
    """How much is measured. Only whole items are left out, so the rest compares with the full
    board.
    """

    name: str
    parts: tuple[str, ...]
    every: int
    """Use every N-th picture and scene."""
    clips: int
    """Clips of each kind."""
    clip_frames: int
    still_frames: int
    """Frames of the still camera."""
    strokes: tuple[str, ...] | None
    """Fields of the stroke board; None for all."""


_ALONE = ("pairs", "clean", "still", "strokes", "clips", "moving")
_MAIN_STROKES = (
    "count_3", "count_20", "count_120", "width_5", "width_8", "angle_60", "opacity_0.3",
)  # fmt: skip
FULL = Extent(
    "full",
    (*_ALONE, "detection", "speed"),
    every=1,
    clips=3,
    clip_frames=150,
    still_frames=300,
    strokes=None,
)
QUICK = Extent(
    "quick",
    _ALONE,
    every=4,
    clips=1,
    clip_frames=150,
    still_frames=60,
    strokes=_MAIN_STROKES,
)
BRIEF = Extent(
    "brief",
    _ALONE,
    every=8,
    clips=1,
    clip_frames=30,
    still_frames=20,
    strokes=_MAIN_STROKES,
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every part of the board needs."""

    data: Path
    extent: Extent = FULL
    cache: Path | None = None
    """Cache folder of drawn pictures and results; None for no cache."""


Part: TypeAlias = Callable[[Runner, Setup], Iterator[Mark]]


def drawn(
    setup: Setup, key: str, count: int, make: Callable[[], Iterator[Image]]
) -> Iterator[Image]:
    """Pictures that take longer to draw than to read; whole sets are cached under ``key``.

    One is in memory at a time: a clip of five seconds would take half a gigabyte.
    """
    if setup.cache is None:
        yield from make()
        return
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    folder = setup.cache / "drawn" / name
    paths = [folder / f"{index:04d}.png" for index in range(count)]
    if not all(path.is_file() for path in paths):
        # Packed lightly, which is quick, and disks are large.
        lightly = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        for path, image in zip(paths, make(), strict=True):
            _, packed = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]), lightly)
            write_whole(path, packed.tobytes())
    yield from map(pictures.read, paths)


def digest(paths: Iterable[Path]) -> str:
    """Changes with the name or the content of any of these files."""
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
