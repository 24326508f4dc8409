"""Measuring on single pictures: pairs with a reference, and dry pictures that should not change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rain_removal_ros.data import pairs
from rain_removal_ros.errors import DataError, EngineError
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.metrics import Scores, score

Advance = Callable[[str | None], None]
"""Called for every finished picture or clip, with its problem if there was one."""


@dataclass(frozen=True)
class PicturePair:
    """An input picture and its reference."""

    name: str
    files: tuple[Path, ...]
    load: Callable[[], tuple[Image, Image]]


@dataclass(frozen=True)
class PictureScores:
    """The scores of all runners on one picture."""

    item: PicturePair
    width: int
    height: int
    before: dict[int, Scores]
    """Scores of the untouched input, by the scale of the networks; 1 is always included."""
    after: list[Scores]
    """One for each runner."""


@dataclass(frozen=True)
class PictureResults:
    """All results on one set of pictures."""

    name: str
    kind: str
    folder: str
    labels: list[str]
    """The names of the runners."""
    scored: list[PictureScores] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def as_manifest(self) -> dict[str, Any]:
        return {
            "set": self.name,
            "kind": self.kind,
            "folder": self.folder,
            "sha256": _checksum([scored.item for scored in self.scored]),
            "sha256_of": "names and contents of the files of all pictures used, in order",
            "images": [scored.item.name for scored in self.scored],
            "skipped": self.skipped,
        }

    def as_records(self) -> list[dict[str, Any]]:
        """The scores of every picture."""
        return [
            {
                "set": self.name,
                "name": scored.item.name,
                "width": scored.width,
                "height": scored.height,
                "input": scored.before[1]._asdict(),
                "models": {
                    label: scores._asdict()
                    for label, scores in zip(self.labels, scored.after, strict=True)
                },
            }
            for scored in self.scored
        ]


@dataclass(frozen=True)
class PictureSet:
    """Pictures to measure on."""

    name: str
    kind: str
    folder: str
    items: list[PicturePair]

    def __len__(self) -> int:
        return len(self.items)

    def measure(self, runners: Sequence[Runner], advance: Advance) -> PictureResults:
        """Measure all runners on the same pictures; one on which any fails is left out for all."""
        done = PictureResults(
            self.name, self.kind, self.folder, [runner.label for runner in runners]
        )
        for item in self.items:
            problem = None
            try:
                done.scored.append(_scored(item, runners))
            except (DataError, EngineError) as error:
                problem = f"{item.name} of {self.name}: {' '.join(str(error).split())}"
                done.skipped.append(problem)
            advance(problem)
        if not done.scored:
            raise DataError(
                f"none of the {len(self)} pictures of {self.folder} could be used; the first: "
                f"{done.skipped[0]}"
            )
        return done


def paired_set(text: str) -> PictureSet:
    """``DIR`` or ``DIR:layout``, or a list file."""
    folder, layout = pairs.split_layout(text)
    items = [
        PicturePair(pair.name, tuple(dict.fromkeys((pair.rainy, pair.reference))), pair.load)
        for pair in pairs.find_pairs(folder, layout)
    ]
    return PictureSet(set_name(folder), "pairs", str(folder), items)


def clean_set(text: str) -> PictureSet:
    """Every picture in a folder and below."""
    folder = Path(text)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of dry pictures")
    found = pictures.find_pictures(folder)
    if not found:
        raise DataError(f"{folder} holds no pictures")
    items = [
        PicturePair(path.relative_to(folder).as_posix(), (path,), partial(_unchanged, path))
        for path in found
    ]
    return PictureSet(set_name(folder), "clean", str(folder), items)


def set_name(folder: Path) -> str:
    """The name of a set: its folder and the one above, as in ``rain100l/test``."""
    return "/".join(folder.resolve().parts[-2:]).lstrip("/")


def reduced_for(scale: int, rainy: Image, reference: Image) -> tuple[Image, Image, Image]:
    """The network's input, the same enlarged to the output's size, and the reference."""
    if scale == 1:
        return rainy, rainy, reference
    height, width = (side // scale * scale for side in reference.shape[:2])
    if not height or not width:
        raise DataError(f"too small for a network that enlarges {scale} times")
    small = _resized(rainy[:height, :width], (width // scale, height // scale), cv2.INTER_AREA)
    return small, _resized(small, (width, height), cv2.INTER_CUBIC), reference[:height, :width]


def _scored(item: PicturePair, runners: Sequence[Runner]) -> PictureScores:
    rainy, reference = item.load()
    given = {scale: reduced_for(scale, rainy, reference) for scale in _scales(runners)}
    after = [
        score(runner.derain(given[runner.scale][0]).image, given[runner.scale][2])
        for runner in runners
    ]
    before = {scale: score(parts[1], parts[2]) for scale, parts in given.items()}
    return PictureScores(item, reference.shape[1], reference.shape[0], before, after)


def _scales(runners: Sequence[Runner]) -> list[int]:
    return sorted({1, *(runner.scale for runner in runners)})


def _unchanged(path: Path) -> tuple[Image, Image]:
    picture = pictures.read(path)
    return picture, picture


def _resized(image: Image, size: tuple[int, int], how: int) -> Image:
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=how), np.uint8)


def _checksum(items: Sequence[PicturePair]) -> str:
    digest = hashlib.sha256()
    for item in items:
        for path in item.files:
            digest.update(f"{path.name} ".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
