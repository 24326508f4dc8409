"""Reproducible measurements of models on pictures and clips.

``evaluate`` runs every model of a ``Plan`` over every set and gives rows, one for each model and
set, with the untouched input as a model called ``input``; ``tables`` and ``report`` show them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.evaluation._clips import ClipResults, ClipSet, find_clip_set, simulated_drives
from rain_removal_ros.evaluation._models import PROTOCOLS, Runner, load_runners
from rain_removal_ros.evaluation._pictures import PictureResults, PictureSet, clean_set, paired_set
from rain_removal_ros.evaluation._rows import INPUT, Row, clip_rows, picture_rows
from rain_removal_ros.manifest import manifest
from rain_removal_ros.settings import EngineSettings

__all__ = ["INPUT", "PROTOCOLS", "Evaluation", "Plan", "Row", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which models are measured on which sets."""

    models: tuple[str, ...] = ("auto",)
    """``all`` and ``default`` for those that ship, names, weight files, or ``NETWORK:FILE`` for
    weights published elsewhere."""
    pairs: tuple[str, ...] = ()
    """Folders of rainy pictures and their references, ``DIR`` or ``DIR:layout``."""
    clean: tuple[str, ...] = ()
    """Folders of dry pictures, which should not change."""
    clips: tuple[str, ...] = ()
    """Folders of videos without rain, or of folders of frames; rain is drawn over them."""
    drives: int = 0
    """Number of simulated drives, whose motion is known."""
    protocol: str = "default"
    stages: tuple[int, ...] = (0,)
    """Passes over a frame, each measured; 0 is the network's own number."""
    engine: EngineSettings = dataclasses.field(
        default_factory=lambda: EngineSettings(name="torch", precision="float32")
    )
    every: int = 1
    limit: int = 0
    frames: int = 16
    """Frames of a clip."""
    rains: int = 2
    """The number of rains per clip, each over another part of it."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.pairs or self.clean or self.clips or self.drives):
            raise SettingsError("nothing to measure on: give --data, --clean, --clips or --drive")
        least = {"every": 1, "limit": 0, "frames": 2, "rains": 1, "drives": 0, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise SettingsError(f"--{name} is {low} or more, not {getattr(self, name)}")
        if any(count < 0 or count > 32 for count in self.stages):
            raise SettingsError(f"--stages are 0 to 32, not {' '.join(map(str, self.stages))}")


@dataclass(frozen=True)
class Evaluation:
    """All results."""

    plan: Plan
    runners: list[Runner]
    stills: list[PictureResults]
    moving: list[ClipResults]
    rows: list[Row]

    @property
    def measured(self) -> list[PictureResults | ClipResults]:
        """All results, set by set."""
        return [*self.stills, *self.moving]

    @property
    def skipped(self) -> list[str]:
        """What was left out, and why."""
        return [problem for each in self.measured for problem in each.skipped]

    def as_json(self) -> dict[str, Any]:
        """``results`` by model and set, ``pictures`` one by one, and a ``manifest``."""
        sets = [measured.as_manifest() for measured in self.measured]
        how = {
            "protocol": {"name": self.plan.protocol, **PROTOCOLS[self.plan.protocol]},
            "models": [runner.as_manifest() for runner in self.runners],
            "sets": sets,
            "plan": dataclasses.asdict(self.plan),
        }
        return {
            "manifest": {**manifest(), **how},
            "results": [dict(row) for row in self.rows],
            "skipped": self.skipped,
            "pictures": [each for measured in self.stills for each in measured.as_records()],
        }


def evaluate(plan: Plan) -> Evaluation:
    """Measure as planned. What cannot be used is named, left out for all models, and counted."""
    still_sets = list(_still_sets(plan))
    clip_sets = list(_clip_sets(plan))
    runners = load_runners(plan.models, plan.stages, plan.engine, plan.protocol)
    total = sum(map(len, still_sets)) + sum(map(len, clip_sets))
    with tqdm(total=total, unit="picture or clip", disable=None) as bar:

        def advance(problem: str | None) -> None:
            bar.update()
            if problem:
                tqdm.write(f"left out: {problem}", file=sys.stderr)

        stills = [each.measure(runners, advance) for each in still_sets]
        moving = [each.measure(runners, advance) for each in clip_sets]
    rows = [row for each in stills for row in picture_rows(each, runners)]
    rows += [row for each in moving for row in clip_rows(each)]
    return Evaluation(plan, runners, stills, moving, rows)


def _still_sets(plan: Plan) -> Iterator[PictureSet]:
    for text in plan.pairs:
        yield _thinned(paired_set(text), plan)
    for text in plan.clean:
        yield _thinned(clean_set(text), plan)


def _thinned(found: PictureSet, plan: Plan) -> PictureSet:
    return dataclasses.replace(found, items=_some(found.items, plan))


def _clip_sets(plan: Plan) -> Iterator[ClipSet]:
    for text in plan.clips:
        found = find_clip_set(text, frames=plan.frames, rains=plan.rains, seed=plan.seed)
        yield dataclasses.replace(found, scenes=_some(found.scenes, plan))
    if plan.drives:
        yield simulated_drives(plan.drives, frames=plan.frames, seed=plan.seed)


def _some(found: Sequence[Any], plan: Plan) -> list[Any]:
    return list(found[:: plan.every][: plan.limit or None])
