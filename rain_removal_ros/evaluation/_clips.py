"""Measuring on clips: what carried state is worth, and how steady the result is.

The clips are dry, and rain is drawn from a seed, so the same plan gives the same frames. In a
simulated drive the motion of every pixel is known, so steadiness can be measured along it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data import clips
from rain_removal_ros.data.cache import MemoryCache
from rain_removal_ros.data.rain import render_frames, sample
from rain_removal_ros.errors import DataError, EngineError
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation._pictures import Advance, reduced_for, set_name
from rain_removal_ros.frames import Image
from rain_removal_ros.metrics import Correspondence, Plane, flicker, luma, psnr, ssim
from rain_removal_ros.simulation.drive import Drive
from rain_removal_ros.simulation.scenes import sight

_SEVERITY = (0.3, 1.0)
"""Never dry: without rain there is nothing to gain."""
_DROP_REFERENCE = 500
"""The longer side, in pixels, of pictures for which drops of scale 1 are made."""
_DRIVE_START = 60


@dataclass(frozen=True)
class RainyClip:
    """A clip with and without rain."""

    rainy: NDArray[np.uint8]
    """T x H x W x 3, as is ``reference``."""
    reference: NDArray[np.uint8]
    flows: list[NDArray[np.float32]] | None = None
    """For every frame, where its pixels were in the previous one, if known."""


@dataclass(frozen=True)
class LazyClip:
    """One scene, rendered when it is needed."""

    name: str
    load: Callable[[], RainyClip]


@dataclass(frozen=True)
class Variant:
    """A runner, with or without its state carried; without a runner, the untouched input."""

    runner: Runner | None
    carried: bool

    @property
    def label(self) -> str:
        if self.runner is None:
            return "input"
        if not self.runner.recurrent:
            return self.runner.label
        return f"{self.runner.label}, {'state carried' if self.carried else 'afresh'}"


@dataclass
class FrameTrace:
    """The scores of one variant on one set, frame by frame."""

    psnr_y: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)
    psnr_rgb: list[float] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    warping: list[float] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    """The number of the frame within its clip."""

    def extend(self, other: FrameTrace) -> None:
        for name, values in vars(other).items():
            getattr(self, name).extend(values)


@dataclass
class ClipResults:
    """All results on one set of clips."""

    name: str
    kind: str
    folder: str
    ways: list[Variant]
    traces: list[FrameTrace] = field(default_factory=list)
    """One for each variant."""
    before: dict[int, FrameTrace] = field(default_factory=dict)
    """Scores of the untouched input, by scale."""
    reference_change: list[float] = field(default_factory=list)
    """How much the reference changes in each step, in grey levels."""
    reference_warping: list[float] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    checksum: str = ""

    def as_manifest(self) -> dict[str, Any]:
        return {
            "set": self.name,
            "kind": self.kind,
            "folder": self.folder,
            "sha256": self.checksum,
            "sha256_of": "pixels of all clips used, rainy and reference, in order",
            "clips": self.used,
            "skipped": self.skipped,
        }


@dataclass(frozen=True)
class ClipSet:
    """Clips to measure on."""

    name: str
    kind: str
    folder: str
    scenes: list[LazyClip]

    def __len__(self) -> int:
        return len(self.scenes)

    def measure(self, runners: Sequence[Runner], advance: Advance) -> ClipResults:
        """Measure all variants on the same clips; a clip on which one fails is left out for all."""
        ways = [Variant(None, False), *(way for runner in runners for way in _ways(runner))]
        done = ClipResults(self.name, self.kind, self.folder, ways, [FrameTrace() for _ in ways])
        digest = hashlib.sha256()
        for take in self.scenes:
            problem = None
            try:
                scene = take.load()
                _add(done, scene)
                digest.update(scene.rainy.tobytes() + scene.reference.tobytes())
                done.used.append(take.name)
            except (DataError, EngineError) as error:
                problem = f"{take.name}: {' '.join(str(error).split())}"
                done.skipped.append(problem)
            advance(problem)
        if not done.used:
            raise DataError(f"no clip of {self.folder} could be used; {done.skipped[0]}")
        done.checksum = digest.hexdigest()
        return done


def find_clip_set(text: str, *, frames: int, rains: int, seed: int) -> ClipSet:
    """All clips below a folder, each in several rains over evenly spread parts of it."""
    folder = Path(text)
    takes = []
    for number, clip in enumerate(clips.find_clips(folder)):
        room = max(0, clip.frames - frames)
        for rain in range(rains):
            start = room * (2 * rain + 1) // (2 * rains)
            window = range(start, clip.frames)[:frames]
            takes.append(_take(clip, window, (seed, number, rain)))
    return ClipSet(set_name(folder), "clips", str(folder), takes)


def simulated_drives(count: int, *, frames: int, seed: int) -> ClipSet:
    """Streets by number, each in its own rain."""
    takes = [
        LazyClip(f"drive {seed + number}", lambda number=number: _drive(seed + number, frames))  # type: ignore[misc]
        for number in range(count)
    ]
    return ClipSet("drive", "drive", f"simulated, seeds {seed} to {seed + count - 1}", takes)


def _take(clip: clips.Clip, window: range, seed: tuple[int, ...]) -> LazyClip:
    def load() -> RainyClip:
        if len(window) < 2:
            raise DataError("a clip needs two frames or more")
        cache = MemoryCache(0)
        reference = np.stack([clip.frame(index, cache)[-1] for index in window])
        return RainyClip(_rained_on(reference, seed), reference)

    name = clip.name.removeprefix("clip ")
    return LazyClip(f"{name}, frames {window.start} to {window.stop - 1}, rain {seed[-1]}", load)


def _drive(seed: int, frames: int) -> RainyClip:
    drive = Drive(seed)
    seen = [drive.frame(_DRIVE_START + index) for index in range(frames)]
    reference = np.stack([frame.image for frame in seen])
    depth = np.stack([sight(frame.depth) for frame in seen])
    return RainyClip(
        _rained_on(reference, (seed,), depth), reference, [frame.flow for frame in seen]
    )


def _rained_on(
    reference: NDArray[np.uint8], seed: tuple[int, ...], depth: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    rain = sample(
        rng, severity=rng.uniform(*_SEVERITY), scale=max(reference.shape[1:3]) / _DROP_REFERENCE
    )
    return render_frames(reference, rain, depth=depth)


def _ways(runner: Runner) -> list[Variant]:
    return (
        [Variant(runner, False), Variant(runner, True)]
        if runner.recurrent
        else [Variant(runner, False)]
    )


def _add(done: ClipResults, scene: RainyClip) -> None:
    """Measure one scene with all variants; keep the results only if all succeed."""
    truth = _Truth(scene)
    scales = sorted({1, *(way.runner.scale for way in done.ways if way.runner)})
    before = {scale: truth.trace(_untouched(scene, scale), scale) for scale in scales}
    traces = [
        before[1] if way.runner is None else truth.trace(_derained(way, scene), way.runner.scale)
        for way in done.ways
    ]
    for kept, trace in zip(done.traces, traces, strict=True):
        kept.extend(trace)
    for scale, trace in before.items():
        done.before.setdefault(scale, FrameTrace()).extend(trace)
    done.reference_change += truth.changes
    done.reference_warping += truth.warping


def _untouched(scene: RainyClip, scale: int) -> Iterator[Image]:
    for rainy, reference in zip(scene.rainy, scene.reference, strict=True):
        yield reduced_for(scale, rainy, reference)[1]


def _derained(way: Variant, scene: RainyClip) -> Iterator[Image]:
    runner = way.runner
    assert runner is not None
    state = None
    for rainy, reference in zip(scene.rainy, scene.reference, strict=True):
        given = reduced_for(runner.scale, rainy, reference)[0]
        result = runner.derain(given, state)
        state = result.state if way.carried else None
        yield result.image


class _Truth:
    """The reference, with which all variants are compared."""

    def __init__(self, scene: RainyClip) -> None:
        self._scene = scene
        planes = [luma(image) for image in scene.reference]
        self._planes = planes
        self.changes = [
            float(np.abs(now - then).mean()) for then, now in itertools.pairwise(planes)
        ]
        self._followed: list[Correspondence | None] = [None] * len(planes)
        if scene.flows is not None:
            self._followed[1:] = [
                Correspondence(flow, then, now)
                for flow, then, now in zip(scene.flows[1:], planes, planes[1:], strict=False)
            ]
        self.warping = [
            error
            for index, known in enumerate(self._followed)
            if known
            and (error := known.warping_error(planes[index - 1], planes[index])) is not None
        ]

    def trace(self, produced: Iterator[Image], scale: int) -> FrameTrace:
        trace = FrameTrace()
        before: Plane | None = None
        for index, image in enumerate(produced):
            height, width = image.shape[:2]
            reference = self._scene.reference[index][:height, :width]
            truth, now = self._planes[index][:height, :width], luma(image)
            trace.number.append(index)
            trace.psnr_y.append(psnr(now, truth))
            trace.ssim_y.append(ssim(now, truth))
            trace.psnr_rgb.append(psnr(image, reference))
            if before is not None:
                then = self._planes[index - 1][:height, :width]
                trace.flicker.append(flicker(before, now, then, truth))
                known = self._followed[index]
                error = known.warping_error(before, now) if known and scale == 1 else None
                trace.warping += [] if error is None else [error]
            before = now
        return trace
