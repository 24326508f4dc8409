"""The board: what a model is worth in figures, measured the same way for a candidate and for what
ships, and whether the one may take the other's place.

``measure`` gives a model's marks, part by part; what was measured before with the same weights,
code and data is taken from a cache. ``rules`` says how marks are read, ``tables`` shows them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import rain_removal_ros
from rain_removal_ros import checkpoints
from rain_removal_ros.checkpoints import Checkpoint
from rain_removal_ros.errors import DataError, SettingsError
from rain_removal_ros.evaluation._models import Runner, load_runners
from rain_removal_ros.evaluation.board.camera import still_part
from rain_removal_ros.evaluation.board.extent import FULL, QUICK, Extent
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.evaluation.board.pictures import clean_part, pairs_part
from rain_removal_ros.evaluation.board.strokes import strokes_part
from rain_removal_ros.manifest import write_json
from rain_removal_ros.settings import EngineSettings

__all__ = ["FULL", "PARTS", "QUICK", "Extent", "Measured", "Setup", "default_cache", "measure"]

Part: TypeAlias = Callable[[Runner, Path, Extent], Iterator[Mark]]

PARTS: dict[str, Part] = {
    "pairs": pairs_part,
    "clean": clean_part,
    "still": still_part,
    "strokes": strokes_part,
}
"""In the order in which they are measured."""

_FOLDERS = ("rain800/test", "rain100l/test", "roadscene/test", "clean/bsds500", "detection")
_CODE = (
    "metrics.py",
    "data",
    "detection",
    "engines",
    "evaluation",
    "networks",
    "runtime",
    "simulation",
)
"""Below the package: what figures depend on beside weights and data."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the board is measured."""

    data: Path
    extent: Extent = FULL
    parts: tuple[str, ...] = tuple(PARTS)
    engine: EngineSettings = field(
        default_factory=lambda: EngineSettings(name="torch", precision="bfloat16", threads=1)
    )
    cache: Path | None = None
    """Where figures are kept; None for nowhere."""

    def __post_init__(self) -> None:
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise SettingsError(f"the board has no part {unknown[0]!r}; it has {', '.join(PARTS)}")
        if not self.data.is_dir():
            raise DataError(f"there is no folder of data sets {self.data}")


@dataclass(frozen=True)
class Measured:
    """All marks of one model, and what they took."""

    model: Runner
    marks: dict[str, Mark]
    seconds: dict[str, float]
    """By part; 0 for what was known."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.model.as_manifest(),
            "seconds": self.seconds,
            "marks": {name: mark.as_json() for name, mark in self.marks.items()},
        }


def measure(
    name: str, setup: Setup, *, said: Callable[[str], None] = lambda line: None
) -> Measured:
    """Every mark of a model: a name, a weight file, or ``NETWORK:FILE`` published elsewhere."""
    (model,) = load_runners((name,), (0,), setup.engine, "default")
    done = Measured(model, {}, {})
    for part in setup.parts:
        said(f"{model.model}: {part}")
        began = time.perf_counter()
        found, known = _part(part, model, setup)
        done.seconds[part] = 0.0 if known else time.perf_counter() - began
        done.marks.update((mark.name, mark) for mark in found)
    return done


def counterpart(candidate: str) -> str:
    """What ships of the same network and size as a candidate, or else the default."""
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


def default_cache() -> Path:
    """The user's cache folder, as other programs have theirs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "rain_removal_ros" / "board"


def _part(part: str, model: Runner, setup: Setup) -> tuple[Sequence[Mark], bool]:
    """The marks of one part, and whether they were known."""
    path = setup.cache and setup.cache / f"{part}-{_key(part, model, setup)}.json"
    if path and (kept := _read(path)) is not None:
        return [Mark.from_json(name, mark) for name, mark in kept.items()], True
    found = list(PARTS[part](model, setup.data, setup.extent))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {mark.name: mark.as_json() for mark in found})
    return found, False


def _key(part: str, model: Runner, setup: Setup) -> str:
    """Changes with all that the figures depend on."""
    engine = model.engine
    how = (engine.name, engine.device, engine.precision, str(model.stages), model.network)
    parts = (part, setup.extent.name, model.checksum, *how, _code(), _data(setup.data))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _code() -> str:
    root = Path(rain_removal_ros.__path__[0])
    paths = [path for name in _CODE for path in (root / name, *(root / name).rglob("*"))]
    return _digest(p for p in (*paths, *root.glob("*.so")) if p.suffix in (".py", ".json", ".so"))


def _data(folder: Path) -> str:
    paths = (path for name in _FOLDERS for path in (folder / name).rglob("*") if path.is_file())
    return _digest(paths)


def _digest(paths: Iterator[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> Any:
    """What was kept, or None if there is nothing that can be used."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
