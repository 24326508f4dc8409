"""COCO's scores, and some that it lacks, for many draws of pictures at once.

pycocotools matches detections and objects once, and the matches are kept as tables. A draw of
pictures only changes how often each row counts, so a thousand draws are a few cumulative sums.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.detection.bootstrap import Values, Weights
from rain_removal_ros.detection.boxes import Detections, Truths, areas
from rain_removal_ros.errors import DataError, with_extra

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
SIZES = ("all", "small", "medium", "large")
_HALF, _THREE_QUARTERS = IOUS.index(0.5), IOUS.index(0.75)
_RECALLS = np.linspace(0, 1, 101)
_CHUNK = 64
"""Draws processed together: few enough to stay in the processor's cache."""
_CALIBRATION_BINS = 10
_NONE: NDArray[np.intp] = np.zeros(0, np.intp)


@dataclass(frozen=True)
class RankedDetections:
    """Detections of one class and size, highest score first; one entry for each in every array."""

    scores: NDArray[np.float64]
    picture: NDArray[np.intp]
    hit: NDArray[np.bool_]
    """IoU thresholds x detections: whether it found an object that counts."""
    ignored: NDArray[np.bool_]
    """IoU thresholds x detections: whether it is ignored."""

    def take(self, chosen: NDArray[Any]) -> RankedDetections:
        """Those at some places, in that order, or those where a mask is true."""
        return RankedDetections(
            self.scores[chosen], self.picture[chosen], self.hit[:, chosen], self.ignored[:, chosen]
        )

    @classmethod
    def joined(cls, parts: Sequence[RankedDetections]) -> RankedDetections:
        """Several as one, ranked again."""
        every = cls(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.picture for part in parts]),
            np.concatenate([part.hit for part in parts], axis=1),
            np.concatenate([part.ignored for part in parts], axis=1),
        )
        return every.take(np.argsort(-every.scores, kind="stable"))


@dataclass(frozen=True)
class CountedObjects:
    """The objects of one class and size that count, picture after picture."""

    found_at: tuple[NDArray[np.float64], ...]
    """For each picture, the score with which each of its objects is found at IoU 0.5, or -1."""
    numbers: tuple[NDArray[np.intp], ...]
    """For each picture, the numbers of its objects among all its truths."""

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """How many there are on each picture."""
        return np.array([len(numbers) for numbers in self.numbers], np.int64)


@dataclass(frozen=True)
class ScoreTable:
    """What was found and what there is, of one class and size on all pictures."""

    detections: RankedDetections
    objects: CountedObjects


@dataclass(frozen=True)
class Matches:
    """Truth against detections, for every class."""

    tables: dict[tuple[str, str], ScoreTable]
    """By class and size."""
    labels: tuple[str, ...]
    pictures: int

    def of(self, label: str | None, size: str = "all") -> list[ScoreTable]:
        """The tables of one class, or of all."""
        return [self.tables[name, size] for name in ([label] if label else self.labels)]


def match(
    truths: Sequence[Truths], detections: Sequence[Detections], labels: Sequence[str]
) -> Matches:
    """Match truth and detections; classes not in ``labels`` are left out."""
    evaluation = _evaluated(truths, detections, labels)
    count = len(truths)
    tables = {}
    for row, (label, size) in enumerate((label, size) for label in labels for size in SIZES):
        found = evaluation.evalImgs[row * count : (row + 1) * count]
        tables[label, size] = _table(found, evaluation.origin)
    return Matches(tables, tuple(labels), count)


def join(parts: Sequence[Matches]) -> Matches:
    """Several sets of pictures as one; they have the same classes."""
    starts = np.cumsum([0, *(part.pictures for part in parts)])
    tables = {key: _merged([part.tables[key] for part in parts], starts) for key in parts[0].tables}
    return Matches(tables, parts[0].labels, int(starts[-1]))


def choose(first: Matches, second: Matches, use_second: NDArray[np.bool_]) -> Matches:
    """Each picture's detections from one of two candidates."""
    return Matches(
        {
            key: _chosen(table, second.tables[key], use_second)
            for key, table in first.tables.items()
        },
        first.labels,
        first.pictures,
    )


def mean_ap(
    matches: Matches,
    weights: Weights,
    *,
    label: str | None = None,
    size: str = "all",
    iou: float | None = None,
) -> Values:
    """Average precision, over all IoU thresholds and classes unless one is named."""
    rows = range(len(IOUS)) if iou is None else [IOUS.index(iou)]
    values = np.stack([_ap(table, weights, rows) for table in matches.of(label, size)])
    return _mean(values, (0, 2))


def recall_at(matches: Matches, weights: Weights, *, false_per_picture: float) -> Values:
    """Share of objects found at this rate of false alarms per picture, averaged over classes."""
    values = []
    allowed = false_per_picture * weights.sum(1)
    for table in matches.of(None):
        drawn = weights[:, table.detections.picture]
        false = np.cumsum(drawn * _false(table), axis=1)
        hits = np.cumsum(drawn * table.detections.hit[_HALF], axis=1)
        last = (false <= allowed[:, None]).sum(1)
        found = np.concatenate([np.zeros((len(hits), 1)), hits], axis=1)
        positives = weights @ table.objects.positives
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(found[np.arange(len(found)), last] / positives)
    return _mean(np.stack(values), (0,))


def found_objects(matches: Matches, score: float) -> list[NDArray[np.bool_]]:
    """For each picture, which of its objects (class after class) are found at this score."""
    tables = matches.of(None)
    return [
        np.concatenate([table.objects.found_at[picture] >= score for table in tables])
        for picture in range(matches.pictures)
    ]


def object_numbers(matches: Matches) -> list[NDArray[np.intp]]:
    """For each picture, the indices among its truths of the objects in ``found_objects``."""
    tables = matches.of(None)
    return [
        np.concatenate([table.objects.numbers[picture] for table in tables])
        for picture in range(matches.pictures)
    ]


def false_alarms(matches: Matches, score: float) -> NDArray[np.int64]:
    """False detections on each picture at this score."""
    total = np.zeros(matches.pictures, np.int64)
    for table in matches.of(None):
        counted = _false(table) & (table.detections.scores >= score)
        total += np.bincount(table.detections.picture[counted], minlength=matches.pictures)
    return total


def calibration_error(matches: Matches, weights: Weights) -> Values:
    """Mean distance between the score of detections and the share of them that are right."""
    sums = np.zeros((3, _CALIBRATION_BINS, matches.pictures))
    for table in matches.of(None):
        used = ~table.detections.ignored[_HALF]
        bins = np.minimum(
            (table.detections.scores * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1
        )
        for row, amount in enumerate((1.0, table.detections.scores, table.detections.hit[_HALF])):
            places = (bins[used], table.detections.picture[used])
            np.add.at(sums[row], places, amount if row == 0 else np.asarray(amount)[used])
    count, scores, hits = weights.astype(np.float64) @ sums.transpose(0, 2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error: Values = np.abs(scores - hits).sum(1) / count.sum(1)
    return error


def per_picture(amounts: NDArray[Any], weights: Weights) -> Values:
    """The mean over pictures."""
    mean: Values = weights.astype(np.float64) @ amounts / weights.sum(1)
    return mean


def curve(matches: Matches, label: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and the best precision at that recall or beyond, at IoU 0.5."""
    table = matches.tables[label, "all"]
    hits = np.cumsum(table.detections.hit[_HALF])
    precision = hits / np.maximum(np.cumsum(table.detections.hit[_HALF] | _false(table)), 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return hits / max(1, int(table.objects.positives.sum())), envelope


def best_score(matches: Matches) -> float:
    """The score at which precision and recall together are best (F1), over all classes."""
    tables = matches.of(None)
    scores = np.concatenate([table.detections.scores for table in tables])
    hit = np.concatenate([table.detections.hit[_HALF] for table in tables])
    false = np.concatenate([_false(table) for table in tables])
    if not hit.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    hits, alarms = np.cumsum(hit[order]), np.cumsum(false[order])
    positives = sum(int(table.objects.positives.sum()) for table in tables)
    return float(scores[order][np.argmax(2 * hits / (hits + alarms + positives))])


def _false(table: ScoreTable) -> NDArray[np.bool_]:
    false: NDArray[np.bool_] = ~(table.detections.hit[_HALF] | table.detections.ignored[_HALF])
    return false


def _ap(table: ScoreTable, weights: Weights, rows: Iterable[int]) -> NDArray[np.float64]:
    """Draws x thresholds: area under the precision envelope, at COCO's 101 recalls."""
    rows = list(rows)
    result = np.full((len(weights), len(rows)), np.nan)
    for start in range(0, len(weights), _CHUNK):
        part = weights[start : start + _CHUNK]
        positives = part @ table.objects.positives.astype(np.float32)
        drawn = part[:, table.detections.picture]
        everything = None if table.detections.ignored[rows].any() else np.cumsum(drawn, axis=1)
        for column, row in enumerate(rows):
            counted = everything
            if counted is None:
                counted = np.cumsum(drawn * ~table.detections.ignored[row], axis=1)
            hits = np.flatnonzero(table.detections.hit[row])
            area = _area(np.cumsum(drawn[:, hits], axis=1), counted[:, hits], positives)
            result[start : start + _CHUNK, column] = area
    return result


def _area(
    hits: NDArray[np.float32], counted: NDArray[np.float32], positives: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Precision falls only between hits, so it is needed only at hits."""
    precision = hits / np.maximum(counted, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits.astype(np.float64) / np.maximum(positives, 1)[:, None]
    reached = np.searchsorted(_RECALLS, recall, side="right")
    steps = np.diff(reached, axis=1, prepend=0)
    area: NDArray[np.float64] = (envelope * steps).sum(1) / len(_RECALLS)
    area[positives == 0] = np.nan
    return area


def _mean(values: NDArray[np.float64], axes: tuple[int, ...]) -> Values:
    """The mean of the finite values; NaN if there are none."""
    known = np.isfinite(values)
    count = known.sum(axes)
    total = np.where(known, values, 0).sum(axes)
    mean: Values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _evaluated(
    truths: Sequence[Truths], detections: Sequence[Detections], labels: Sequence[str]
) -> Any:
    """A COCOeval after matching; ``origin`` maps its ids to our numbers."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise DataError(
            f"scoring detections needs pycocotools: {with_extra('detect,torch')}"
        ) from error
    numbers = {label: index for index, label in enumerate(labels, 1)}
    common = {
        "images": [{"id": picture} for picture in range(len(truths))],
        "categories": [{"id": number, "name": label} for label, number in numbers.items()],
    }
    objects, origin = [], [-1]
    for picture, truth in enumerate(truths):
        sizes = areas(truth.boxes)
        for index, label in enumerate(truth.labels):
            if label in numbers:
                box = _as_coco(truth.boxes[index])
                crowd = int(truth.ignored[index])
                objects.append(_annotation(len(origin), picture, numbers[label], box, sizes[index]))
                objects[-1] |= {"iscrowd": crowd}
                origin.append(index)
    found: list[dict[str, Any]] = []
    for picture, seen in enumerate(detections):
        sizes = areas(seen.boxes)
        for index, label in enumerate(seen.labels):
            if label in numbers:
                box = _as_coco(seen.boxes[index])
                entry = _annotation(len(found) + 1, picture, numbers[label], box, sizes[index])
                found.append(entry | {"iscrowd": 0, "score": float(seen.scores[index])})
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (objects, found):
            side = COCO()
            side.dataset = {**common, "annotations": annotations}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        evaluation.params.iouThrs = np.array(IOUS)
        evaluation.evaluate()
    evaluation.origin = np.array(origin)
    return evaluation


def _annotation(
    number: int, picture: int, category: int, box: list[float], area: float
) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": picture,
        "category_id": category,
        "bbox": box,
        "area": float(area),
    }


def _as_coco(box: NDArray[np.float64]) -> list[float]:
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _table(found: Sequence[dict[str, Any] | None], origin: NDArray[np.intp]) -> ScoreTable:
    """One class and size from pycocotools' record of each picture, which may be None."""
    none = np.zeros((len(IOUS), 0), bool)
    parts = [RankedDetections(np.zeros(0), _NONE, none, none)]
    found_at: list[NDArray[np.float64]] = []
    numbers: list[NDArray[np.intp]] = []
    for picture, entry in enumerate(found):
        if entry is None:
            found_at.append(np.zeros(0))
            numbers.append(_NONE)
            continue
        scores = np.asarray(entry["dtScores"], np.float64)
        ignored = entry["dtIgnore"].astype(bool)
        hit = (entry["dtMatches"] > 0) & ~ignored
        parts.append(RankedDetections(scores, np.full(len(scores), picture), hit, ignored))
        real = ~np.asarray(entry["gtIgnore"], bool)
        matched = entry["gtMatches"][_HALF].astype(int)
        by_id = dict(zip(entry["dtIds"], scores, strict=True))
        at = np.array([by_id.get(number, -1.0) for number in matched], np.float64)
        found_at.append(at[real] if len(at) else np.zeros(0))
        numbers.append(origin[np.asarray(entry["gtIds"], int)[real]] if len(at) else _NONE)
    objects = CountedObjects(tuple(found_at), tuple(numbers))
    return ScoreTable(RankedDetections.joined(parts), objects)


def _merged(tables: Sequence[ScoreTable], starts: Iterable[int]) -> ScoreTable:
    """Several tables as one; the pictures of each are numbered from one of ``starts`` on."""
    shifted = [
        replace(table.detections, picture=table.detections.picture + start)
        for table, start in zip(tables, starts, strict=False)
    ]
    objects = CountedObjects(
        tuple(at for table in tables for at in table.objects.found_at),
        tuple(of for table in tables for of in table.objects.numbers),
    )
    return ScoreTable(RankedDetections.joined(shifted), objects)


def _chosen(first: ScoreTable, second: ScoreTable, use_second: NDArray[np.bool_]) -> ScoreTable:
    mine, theirs = first.detections, second.detections
    parts = [mine.take(~use_second[mine.picture]), theirs.take(use_second[theirs.picture])]
    found_at = (
        second_at if use else first_at
        for first_at, second_at, use in zip(
            first.objects.found_at, second.objects.found_at, use_second, strict=True
        )
    )
    objects = CountedObjects(tuple(found_at), first.objects.numbers)
    return ScoreTable(RankedDetections.joined(parts), objects)
