"""Where pictures come from: photos under synthetic rain, rainy recordings, the simulated drive.

A source gives the same frames every time, in order, under each of its conditions. Their labels are
known in advance, or there are none.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from rain_removal_ros import simulation
from rain_removal_ros.data import rain
from rain_removal_ros.detection import truth
from rain_removal_ros.detection.boxes import Truths
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.manifest import code_checksum
from rain_removal_ros.media import pictures
from rain_removal_ros.simulation.drive import Drive

__all__ = [
    "Condition",
    "Drives",
    "Falling",
    "FrameSource",
    "Item",
    "Photos",
    "Recorded",
    "SourceFrame",
]

_REFERENCE_SIZE = 500
"""Longer side, in pixels, of the pictures that drops of scale 1 suit."""
_STILL_NS = 10_000_000_000
"""Time between photos that do not follow one another."""
_BLOCK_S = 2.0
"""In a single long sequence, frames this far apart count as independent."""


@dataclass(frozen=True)
class Condition:
    """The weather of one pass over the pictures."""

    name: str
    severity: float | None = None
    """Severity of synthetic rain; None for recorded rain."""


@dataclass(frozen=True)
class Item:
    """One frame's name, its sequence, and its labels."""

    name: str
    sequence: str
    truth: Truths | None = None
    block: str = ""
    """The part of a long sequence; empty if the sequence is drawn as a whole."""

    @property
    def group(self) -> str:
        """What is drawn together when resampling."""
        return self.block or self.sequence


@dataclass(frozen=True)
class SourceFrame:
    """One frame from the camera, and its reference if there is one."""

    rainy: Image
    reference: Image | None
    stamp_ns: int
    online: Mapping[str, Image] = field(default_factory=dict)
    """Images recorded for it, by topic."""


@dataclass(frozen=True, kw_only=True)
class Falling:
    """The synthetic rain that falls on clear pictures."""

    severities: tuple[float, ...] = (0.3, 0.6, 1.0)
    style: str = "heavy"
    seed: int = 0

    def __post_init__(self) -> None:
        for severity in self.severities:
            rain.sample(np.random.default_rng(0), severity=severity, style=self.style)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        levels = sorted({0.0, *self.severities})
        return tuple(Condition(f"rain {level:g}" if level else "clear", level) for level in levels)

    def on(self, image: Image, name: str, severity: float, frame: int) -> Image:
        """The rainy picture; the rain depends only on the seed and ``name``."""
        rng = np.random.default_rng((self.seed, zlib.crc32(name.encode())))
        scale = max(image.shape[:2]) / _REFERENCE_SIZE
        drops = rain.sample(rng, severity=severity, style=self.style, scale=scale)
        return np.asarray(rain.render_frames(image[None], drops, first=frame)[0])

    @property
    def fingerprint(self) -> str:
        """Changes with the options and with the code that draws the rain."""
        code = code_checksum(Path(rain.__file__).parent)
        return f"{self.style} {self.seed} {code[:16]}"


class FrameSource(Protocol):
    """Frames, one sequence after another."""

    name: str
    items: list[Item]
    conditions: tuple[Condition, ...]
    has_reference: bool
    frame_s: float | None
    """Seconds between consecutive frames; None for single photos."""
    fingerprint: str
    notes: list[str]

    def scenes(self, condition: Condition) -> Iterator[SourceFrame]:
        """One frame for each item, in order."""
        ...


@dataclass
class _Folder:
    """Pictures on disk, with or without labels."""

    folder: Path
    labels: Path | None = None
    form: str = "auto"
    video_fps: float | None = None
    """The pictures of each folder follow each other at this rate; None for single photos."""
    limit: int | None = None
    paths: list[Path] = field(init=False)
    items: list[Item] = field(init=False)
    notes: list[str] = field(init=False, default_factory=list)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise DataError(f"there is no folder of pictures {self.folder}")
        self.paths = pictures.find_pictures(self.folder)[: self.limit]
        if not self.paths:
            raise DataError(f"{self.folder} holds no pictures")
        names = [path.relative_to(self.folder).with_suffix("").as_posix() for path in self.paths]
        truths = self._truths()
        self.items = [
            self._item(index, name, path, truths.get(path.stem))
            for index, (name, path) in enumerate(zip(names, self.paths, strict=True))
        ]

    @property
    def frame_s(self) -> float | None:
        return None if self.video_fps is None else 1 / self.video_fps

    def stamp_ns(self, index: int) -> int:
        return round(index * (_STILL_NS if self.frame_s is None else self.frame_s * 1e9))

    def _item(self, index: int, name: str, path: Path, known: Truths | None) -> Item:
        if self.video_fps is None:
            return Item(name, name, known)
        sequence = path.parent.relative_to(self.folder).as_posix()
        return Item(name, sequence, known, block(sequence, index / self.video_fps))

    def _truths(self) -> Mapping[str, Truths]:
        digest, sizes = hashlib.sha256(), {}
        for path in self.paths:
            digest.update(path.read_bytes())
            if self.labels is not None:
                if path.stem in sizes:
                    raise DataError(f"{self.folder} has two pictures {path.stem}; labels have one")
                height, width = pictures.read(path).shape[:2]
                sizes[path.stem] = (width, height)
        self.digest = digest.hexdigest()[:32]
        if self.labels is None:
            return {}
        labelled = truth.read(self.labels, sizes, form=self.form)
        self.notes += labelled.notes
        return labelled.truths


class Photos:
    """Clear pictures on which synthetic rain falls."""

    has_reference = True

    def __init__(
        self,
        folder: Path,
        falling: Falling,
        *,
        labels: Path | None = None,
        form: str = "auto",
        video_fps: float | None = None,
        limit: int | None = None,
    ) -> None:
        self._files = _Folder(folder, labels, form, video_fps, limit)
        self._falling = falling
        self.name = _short(folder)
        self.items = self._files.items
        self.conditions = falling.conditions
        self.frame_s = self._files.frame_s
        self.notes = self._files.notes
        self.fingerprint = f"photos {self._files.digest} {video_fps} {falling.fingerprint}"

    def scenes(self, condition: Condition) -> Iterator[SourceFrame]:
        begun: dict[str, int] = {}
        for index, (path, item) in enumerate(zip(self._files.paths, self.items, strict=True)):
            reference = pictures.read(path)
            frame = begun[item.sequence] = begun.get(item.sequence, -1) + 1
            rainy = reference
            if condition.severity:
                rainy = self._falling.on(reference, item.sequence, condition.severity, frame)
            yield SourceFrame(rainy, reference, self._files.stamp_ns(index))


class Recorded:
    """Real rainy pictures, with or without references of the same names."""

    conditions: tuple[Condition, ...] = (Condition("as recorded"),)

    def __init__(
        self,
        folder: Path,
        reference: Path | None = None,
        *,
        labels: Path | None = None,
        form: str = "auto",
        video_fps: float | None = None,
        limit: int | None = None,
    ) -> None:
        self._files = _Folder(folder, labels, form, video_fps, limit)
        self._reference = (
            None if reference is None else _counterparts(self._files.paths, folder, reference)
        )
        self.name = _short(folder)
        self.items = self._files.items
        self.has_reference = reference is not None
        self.frame_s = self._files.frame_s
        self.notes = self._files.notes
        digest = hashlib.sha256()
        for path in self._reference or ():
            digest.update(path.read_bytes())
        self.fingerprint = f"recorded {self._files.digest} {digest.hexdigest()[:16]} {video_fps}"

    def scenes(self, condition: Condition) -> Iterator[SourceFrame]:
        for index, path in enumerate(self._files.paths):
            rainy = pictures.read(path)
            reference = None if self._reference is None else pictures.read(self._reference[index])
            if reference is not None and reference.shape != rainy.shape:
                raise DataError(f"{path} and its reference differ in size")
            yield SourceFrame(rainy, reference, self._files.stamp_ns(index))


class Drives:
    """Drives along simulated streets, whose cars and people are known to the pixel."""

    has_reference = True
    name = "simulated drive"

    def __init__(
        self,
        falling: Falling,
        *,
        sequences: int = 8,
        frames: int = 30,
        width: int = 640,
        height: int = 384,
        fps: float = 30.0,
    ) -> None:
        if sequences < 1 or frames < 1:
            raise DataError(f"drives need frames, got {sequences} drives of {frames}")
        self._falling = falling
        self._frames, self._size, self._fps = frames, (width, height), fps
        self.frame_s: float | None = 1 / fps
        self.conditions = falling.conditions
        self.notes: list[str] = []
        self._drives = [
            Drive(falling.seed + number, width, height, fps) for number in range(sequences)
        ]
        self.items = [
            Item(f"drive-{drive.seed}-{index:03d}", f"drive-{drive.seed}", _seen(drive, index))
            for drive in self._drives
            for index in range(frames)
        ]
        code = code_checksum(Path(simulation.__file__).parent)
        self.fingerprint = (
            f"drive {sequences} {frames} {width}x{height} {fps} {code[:16]} {falling.fingerprint}"
        )

    def scenes(self, condition: Condition) -> Iterator[SourceFrame]:
        for number, drive in enumerate(self._drives):
            for index in range(self._frames):
                reference = drive.frame(index).image
                rainy = reference
                if condition.severity:
                    name = f"drive-{drive.seed}"
                    rainy = self._falling.on(reference, name, condition.severity, index)
                yield SourceFrame(
                    rainy, reference, number * _STILL_NS + round(index * 1e9 / self._fps)
                )


def block(sequence: str, seconds: float) -> str:
    """The part of a sequence that a moment belongs to."""
    return f"{sequence} {int(seconds / _BLOCK_S)}"


def _seen(drive: Drive, index: int) -> Truths:
    boxes = drive.frame(index).boxes
    return truth.as_truths(
        [box.label for box in boxes],
        [(box.x1, box.y1, box.x2, box.y2) for box in boxes],
        tracks=[box.id for box in boxes],
    )


def _short(path: Path) -> str:
    """A path for a report, without its place on this machine."""
    return "/".join(path.resolve().parts[-2:])


def _counterparts(paths: Sequence[Path], folder: Path, reference: Path) -> list[Path]:
    if not reference.is_dir():
        raise DataError(f"there is no folder of reference pictures {reference}")
    known = {
        path.relative_to(reference).with_suffix(""): path
        for path in pictures.find_pictures(reference)
    }
    names = [path.relative_to(folder).with_suffix("") for path in paths]
    if missing := [name for name in names if name not in known]:
        raise DataError(f"{len(missing)} pictures have no reference in {reference}, {missing[0]}")
    return [known[name] for name in names]
