"""Clips of five seconds in synthetic rain: what carried state is worth, and whether that lasts.

Every frame is derained with carried state. Those early and late in the clip are also derained
without state; the difference is what the state is worth there. And the same scenes without rain,
which should stay as they are: to carried state, a lane line that is elsewhere in the next frame
looks like rain.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import rain_removal_ros.simulation as simulation_package
from rain_removal_ros.data.rain import render_frames
from rain_removal_ros.errors import DataError
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board import marks, rains
from rain_removal_ros.evaluation.board.marks import MOST_DB, Mark
from rain_removal_ros.evaluation.board.setup import Setup, digest, drawn
from rain_removal_ros.frames import Image
from rain_removal_ros.metrics import Plane, flicker, luma, psnr
from rain_removal_ros.simulation.drive import Drive
from rain_removal_ros.simulation.scenes import sight

_FRAMES = 150
_EARLY, _LATE = range(10, 30), range(100, 150)
_BLOCK = 10
"""Frames that are drawn together when resampling."""
_HIGHWAY = "video/highway.mp4"
"""The one video that no recipe for clips trains on; its frames are 960 x 540."""
_STARTS = (0, 35, 71)
"""Where the clips begin in it; the last one ends with the video."""
_DRIVE_START = 60


@dataclass(frozen=True)
class Clip:
    """Frames with and without rain."""

    name: str
    rainy: Iterable[Image]
    reference: Iterable[Image]


def clips_part(model: Runner, setup: Setup) -> Iterator[Mark]:
    """The marks of each kind of clip, and how much of the state's worth is lost by its end."""
    if model.scale != 1:
        return
    lost: dict[str, float] = {}
    for kind, load in _KINDS.items():
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for number in range(setup.extent.clips):
            clip = load(setup, number)
            trace = _trace(model, clip, setup.extent.clip_frames)
            for figure, by_block in trace.items():
                found[figure].update(by_block)
            if model.recurrent and setup.extent.clip_frames >= _FRAMES:
                lost[clip.name] = _lost(trace["state"], clip.name)
        for figure, by_block in found.items():
            yield marks.mean(f"{kind}/{figure}", by_block)
    if lost:
        yield marks.mean("clips/lost", lost)


def moving_part(model: Runner, setup: Setup) -> Iterator[Mark]:
    """How close dry scenes stay to what they were while the camera moves through them."""
    if model.scale != 1:
        return
    worst: dict[str, float] = {}
    for kind, load in _KINDS.items():
        likeness = _likeness(model, load(setup, 0), setup.extent.clip_frames)
        yield marks.mean(
            f"moving/{kind}", {b: float(np.mean(each)) for b, each in likeness.items()}
        )
        worst |= {block: min(each) for block, each in likeness.items()}
    yield marks.least("moving/worst", worst)


def _likeness(model: Runner, clip: Clip, frames: int) -> dict[str, list[float]]:
    """PSNR-Y of every frame to the same frame put in, block by block."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    state = None
    for number, dry in enumerate(itertools.islice(clip.reference, frames)):
        result = model.derain(dry, state)
        state = result.state
        block = f"{clip.name} {number // _BLOCK * _BLOCK}"
        found[block].append(min(MOST_DB, psnr(luma(result.image), luma(dry))))
    return found


def _trace(model: Runner, clip: Clip, frames: int = _FRAMES) -> dict[str, dict[str, float]]:
    """Each figure, averaged over blocks of frames."""
    values: defaultdict[str, defaultdict[str, list[float]]]
    values = defaultdict(lambda: defaultdict(list))
    state = None
    before: tuple[Plane, Plane] | None = None
    pairs = itertools.islice(zip(clip.rainy, clip.reference, strict=True), frames)
    for number, (rainy, reference) in enumerate(pairs):
        if number not in _EARLY and number not in _LATE:
            if model.recurrent:
                state = model.derain(rainy, state).state
            before = None
            continue
        block = f"{clip.name} {number // _BLOCK * _BLOCK}"
        result = model.derain(rainy, state)
        reference_y, made = luma(reference), luma(result.image)
        score = psnr(made, reference_y)
        values["psnr_y"][block].append(score)
        values["gain"][block].append(score - psnr(luma(rainy), reference_y))
        if before is not None:
            values["flicker"][block].append(flicker(before[0], made, before[1], reference_y))
        if model.recurrent:
            state = result.state
            alone = psnr(luma(model.derain(rainy).image), reference_y)
            values["state"][block].append(score - alone)
        before = made, reference_y
    return {
        figure: {block: float(np.mean(each)) for block, each in by_block.items()}
        for figure, by_block in values.items()
    }


def _lost(worth: dict[str, float], clip: str) -> float:
    """How much less the state is worth late in a clip than early."""
    early = [worth[f"{clip} {number}"] for number in _EARLY[::_BLOCK]]
    late = [worth[f"{clip} {number}"] for number in _LATE[::_BLOCK]]
    return float(np.mean(early) - np.mean(late))


def _highway(setup: Setup, number: int) -> Clip:
    path, name = setup.data / _HIGHWAY, f"highway {number}"

    def wet() -> Iterator[Image]:
        fallen = rains.rain(name)
        for index, image in enumerate(_frames(path, _STARTS[number])):
            yield render_frames(image[None], fallen, first=index)[0]

    rainy = drawn(setup, f"{digest([path])} {_key(name)}", _FRAMES, wet)
    return Clip(name, rainy, _frames(path, _STARTS[number]))


def _drive(setup: Setup, number: int) -> Clip:
    name = f"drive {number}"
    drive = Drive(number)
    code = digest(Path(simulation_package.__path__[0]).glob("*.py"))

    def street() -> Iterator[Image]:
        for index in range(_FRAMES):
            yield drive.frame(_DRIVE_START + index).image

    def wet() -> Iterator[Image]:
        fallen = rains.rain(name)
        for index in range(_FRAMES):
            seen = drive.frame(_DRIVE_START + index)
            depth = sight(seen.depth)
            yield render_frames(seen.image[None], fallen, depth=depth, first=index)[0]

    return Clip(
        name,
        drawn(setup, f"{code} {_key(name)}", _FRAMES, wet),
        drawn(setup, f"{code} {name} dry", _FRAMES, street),
    )


_KINDS: dict[str, Callable[[Setup, int], Clip]] = {"highway": _highway, "drive": _drive}


def _key(name: str) -> str:
    return f"{name} {rains.fingerprint()}"


def _frames(path: Path, first: int) -> Iterator[Image]:
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_POS_FRAMES, first)
    for index in range(first, first + _FRAMES):
        there, decoded = capture.read()
        if not there:
            raise DataError(f"{path} has no frame {index}")
        yield np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    capture.release()
