"""The board: compares a candidate with the shipped model and decides whether to ship it.

``measure`` gives a model's marks, part by part. Results with the same weights, code and data come
from a cache. ``rules`` interprets the marks, ``tables`` shows them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rain_removal_ros
from rain_removal_ros import checkpoints
from rain_removal_ros.checkpoints import Checkpoint
from rain_removal_ros.errors import DataError, SettingsError
from rain_removal_ros.evaluation._models import Runner, load_runners
from rain_removal_ros.evaluation.board.camera import still_part
from rain_removal_ros.evaluation.board.clips import clips_part, moving_part
from rain_removal_ros.evaluation.board.detections import detection_part
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.evaluation.board.pictures import clean_part, pairs_part
from rain_removal_ros.evaluation.board.rules import Verdict
from rain_removal_ros.evaluation.board.setup import BRIEF, FULL, QUICK, Extent, Part, Setup, digest
from rain_removal_ros.evaluation.board.strokes import strokes_part
from rain_removal_ros.evaluation.board.timing import speed
from rain_removal_ros.manifest import manifest
from rain_removal_ros.runtime import native
from rain_removal_ros.runtime.files import write_json
from rain_removal_ros.settings import EngineSettings

__all__ = [
    "BRIEF",
    "FULL",
    "PARTS",
    "QUICK",
    "Extent",
    "Measured",
    "Setup",
    "as_json",
    "choose",
    "compare",
    "counterpart",
]

PARTS: dict[str, Part] = {
    "pairs": pairs_part,
    "clean": clean_part,
    "still": still_part,
    "strokes": strokes_part,
    "clips": clips_part,
    "moving": moving_part,
    "detection": detection_part,
}
"""In the order in which they are measured. ``SPEED`` comes last; it measures the models
together."""
SPEED = "speed"

NEEDS: dict[str, tuple[str, ...]] = {
    "pairs": ("rain800/test", "rain100l/test", "roadscene/test"),
    "clean": ("clean/bsds500", "detection/pennfudan/images"),
    "still": ("roadscene/test", "detection/carla/images", "detection/pennfudan/images"),
    "strokes": ("roadscene/test", "rain100l/test", "detection/pennfudan/images"),
    "clips": ("video/highway.mp4",),
    "moving": ("video/highway.mp4",),
    "detection": ("detection",),
    SPEED: ("peers/prenet_rain100l.pth",),
}
"""What each part needs from the folder of data sets."""

_CODE = (
    "metrics.py",
    "data/pairs.py",
    "data/strokes.py",
    "data/rain/description.py",
    "data/rain/drops.py",
    "data/rain/rendering.py",
    "detection",
    "engines",
    "evaluation",
    "runtime/native.py",
    "simulation",
)
_SHOWING = ("__init__.py", "rules.py", "tables.py", "publishing.py", "sheet.py", "report.py")
"""Code below the package that only displays, on which figures do not depend."""


@dataclass(frozen=True)
class Measured:
    """All marks of one model, and the time they took."""

    model: Runner
    marks: dict[str, Mark] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by part; 0 for cached parts."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.model.as_manifest(),
            "seconds": self.seconds,
            "marks": {name: mark.as_json() for name, mark in self.marks.items()},
        }


def compare(
    candidate: str,
    shipped: str,
    setup: Setup,
    *,
    parts: Sequence[str],
    engine: EngineSettings,
    said: Callable[[str], None] = lambda line: None,
) -> tuple[Measured, Measured]:
    """Every mark of two models, each a name, a weight file, or ``NETWORK:FILE``."""
    if not setup.data.is_dir():
        raise DataError(f"there is no folder of data sets {setup.data}")
    _refuse_what_lacks(setup.data, parts)
    # The shipped model comes first: its figures are known already, so they show whether something
    # is wrong.
    names = list(dict.fromkeys((shipped, candidate)))
    both = [_measured(name, setup, parts, engine, said) for name in names]
    if SPEED in parts:
        said("speed: by turns")
        for done, found in zip(both, speed(names, setup.data), strict=True):
            done.marks.update((mark.name, mark) for mark in found)
    return both[-1], both[0]


def as_json(
    candidate: Measured, shipped: Measured, extent: Extent, verdict: Verdict
) -> dict[str, Any]:
    """All items in full precision."""
    return {
        "manifest": manifest(),
        "extent": extent.name,
        "candidate": candidate.as_json(),
        "shipped": shipped.as_json(),
        "ships": verdict.ships,
        "complete": verdict.complete,
        "reasons": list(verdict.reasons),
    }


def choose(only: str, extent: Extent) -> tuple[str, ...]:
    """The parts in a list with commas; without a list, those that belong to the extent."""
    wanted = tuple(filter(None, only.split(",")))
    known = (*PARTS, SPEED)
    if unknown := [part for part in wanted if part not in known]:
        raise SettingsError(f"the board has no part {unknown[0]!r}; it has {', '.join(known)}")
    return wanted or extent.parts


def _measured(
    name: str,
    setup: Setup,
    parts: Sequence[str],
    engine: EngineSettings,
    said: Callable[[str], None],
) -> Measured:
    (model,) = load_runners((name,), (0,), engine, "default")
    done = Measured(model)
    code = _code(model.network)
    for part in (part for part in PARTS if part in parts):
        said(f"{model.model}: {part}")
        began = time.perf_counter()
        found, known = _part(part, model, setup, (code, _data(setup.data, part)))
        done.seconds[part] = 0.0 if known else time.perf_counter() - began
        done.marks.update((mark.name, mark) for mark in found)
    return done


def counterpart(candidate: str) -> str:
    """The shipped model of the same network and size as a candidate, or else the default."""
    if ":" in candidate:
        return "auto"
    wanted = checkpoints.load(checkpoints.resolve(candidate))
    for path in checkpoints.shipped():
        same = checkpoints.name_of(path) == wanted.name
        if same and _size(checkpoints.load(path)) == _size(wanted):
            return path.stem
    return wanted.name if checkpoints.find(wanted.name) else "auto"


def _size(checkpoint: Checkpoint) -> Any:
    return getattr(checkpoint.network.config, "channels", None)


def _part(
    part: str, model: Runner, setup: Setup, rest: tuple[str, ...]
) -> tuple[Sequence[Mark], bool]:
    """The marks of one part, and whether they were cached."""
    path = setup.cache and setup.cache / f"{part}-{_key(part, model, setup, *rest)}.json"
    if path and (kept := _read(path)) is not None:
        return kept, True
    found = list(PARTS[part](model, setup))
    if path:
        write_json(path, {mark.name: mark.kept() for mark in found})
    return found, False


def _key(part: str, model: Runner, setup: Setup, *rest: str) -> str:
    """Changes with everything that the figures depend on."""
    engine = model.engine.info
    how = (engine.engine, engine.device, engine.precision, str(model.stages), model.network)
    parts = (part, setup.extent.name, model.checksum, *how, *rest)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _code(network: str) -> str:
    root = Path(rain_removal_ros.__path__[0])
    paths = [path for name in _CODE for path in (root / name, *(root / name).rglob("*"))]
    paths += [root / "networks" / f"{network}.py", *(root / "networks").glob("_*.py")]
    known = hashlib.sha256()
    for path in sorted(paths):
        if path.suffix in (".py", ".json") and path.name not in _SHOWING:
            known.update(f"{path.name} {_meaning(path)}".encode())
    # Compiled or not; two builds of one source differ in bytes that do not matter.
    return f"{known.hexdigest()} {native.library is not None}"


def _meaning(path: Path) -> str:
    """A file without comments and docstrings, which do not change figures."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [
                each
                for each in body
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
    return ast.dump(tree)


def _data(folder: Path, part: str) -> str:
    found = (path for name in NEEDS[part] for path in (folder / name, *(folder / name).rglob("*")))
    return digest(path for path in found if path.is_file())


def _refuse_what_lacks(folder: Path, parts: Sequence[str]) -> None:
    for part in parts:
        for name in NEEDS[part]:
            if not (folder / name).exists():
                raise DataError(f"there is no {folder / name}, which {part} needs; see --only")


def _read(path: Path) -> list[Mark] | None:
    """The cache entry, or None if there is none that can be used."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [Mark.from_json(name, mark) for name, mark in kept.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
