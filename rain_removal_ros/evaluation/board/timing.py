"""Time per frame of the candidate, the shipped model and the published PReNet, in turns.

Other load on the machine affects all three alike, so ratios are reliable even if times are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rain_removal_ros import engines
from rain_removal_ros.engines import Engine
from rain_removal_ros.evaluation._models import load_network
from rain_removal_ros.evaluation.board import marks
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.frames import Image
from rain_removal_ros.settings import EngineSettings

PUBLISHED = "peers/prenet_rain100l.pth"
"""Six stages, run in float32 as its authors do; below the data sets."""
Step: TypeAlias = Callable[[], float]
"""One turn of a model; returns the milliseconds of a frame."""

_SIZE = (480, 640, 3)
_THREADS = 2
_ROUNDS = 5
_FRAMES = 5
"""Frames of each model in a round; their median counts."""


def speed(models: Sequence[str], data: Path) -> list[list[Mark]]:
    """For each model, the shipped one first: the time per frame, absolute and relative to the
    others.
    """
    quick = EngineSettings(name="torch", precision="bfloat16", device="cpu", threads=_THREADS)
    plain = replace(quick, precision="float32")
    timed = [
        _Timed(engines.create(load_network(model), quick), frames=_FRAMES).step for model in models
    ]
    peer = _Timed(engines.create(load_network(f"prenet:{data / PUBLISHED}"), plain), frames=1).step
    return by_turns(timed, peer)


def by_turns(models: Sequence[Step], peer: Step) -> list[list[Mark]]:
    """The marks of each model from steps that return their milliseconds."""
    for step in (*models, peer):
        step()
    rounds = [([step() for step in models], peer()) for _ in range(_ROUNDS)]
    names = [f"round {number}" for number in range(_ROUNDS)]
    found = []
    for place in range(len(models)):
        taken = [own[place] for own, _ in rounds]
        beside = [peer_took for _, peer_took in rounds]
        shipped = [own[0] for own, _ in rounds]
        found.append(
            [
                marks.mean("speed/ms", dict(zip(names, taken, strict=True))),
                marks.share("speed/times_prenet", _paired(names, beside, taken)),
                marks.share("speed/of_shipped", _paired(names, taken, shipped)),
            ]
        )
    return found


def _paired(
    names: Sequence[str], first: Sequence[float], second: Sequence[float]
) -> dict[str, tuple[float, float]]:
    return dict(zip(names, zip(first, second, strict=True), strict=True))


class _Timed:
    """A model with carried state."""

    def __init__(self, engine: Engine, *, frames: int) -> None:
        self._engine, self._frames = engine, frames
        self._image: Image = np.random.default_rng(0).integers(0, 255, _SIZE, np.uint8)
        self._state: Any = None

    def step(self) -> float:
        """The median time of a few frames, in milliseconds."""
        taken = []
        for _ in range(self._frames):
            began = time.perf_counter()
            self._state = self._engine.step([self._image], [self._state])[0].state
            taken.append(1000 * (time.perf_counter() - began))
        return float(np.median(taken))
