"""The objects on a picture, and the detections.

Boxes are left, top, right, bottom in pixels from the picture's top left corner: a box over the
whole picture is 0, 0, width, height. Formats that count from 1 are converted on reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Boxes: TypeAlias = NDArray[np.float64]
"""N x 4."""
Scores: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truths:
    """The objects on one picture."""

    labels: tuple[str, ...]
    boxes: Boxes
    ignored: NDArray[np.bool_]
    """Regions in which detections are not counted."""
    tracks: tuple[int, ...] = ()
    """The object's number throughout a sequence, if known."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found on one picture, in no particular order."""

    labels: tuple[str, ...]
    scores: Scores
    """From 0 to 1."""
    boxes: Boxes

    def above(self, score: float) -> Detections:
        return self._taken(np.flatnonzero(self.scores >= score))

    def scaled(self, x: float, y: float) -> Detections:
        return Detections(self.labels, self.scores, self.boxes * [x, y, x, y])

    def _taken(self, indices: NDArray[np.intp]) -> Detections:
        labels = tuple(self.labels[index] for index in indices)
        return Detections(labels, self.scores[indices], self.boxes[indices])


def as_boxes(rows: Sequence[Sequence[float]] | Boxes) -> Boxes:
    return np.asarray(rows, np.float64).reshape(-1, 4)


def areas(boxes: Boxes) -> NDArray[np.float64]:
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    product: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return product


def overlaps(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of all pairs."""
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.clip(right_bottom - left_top, 0, None)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(first)[:, None] + areas(second)[None] - shared
    ratio: NDArray[np.float64] = shared / np.maximum(union, 1e-12)
    return ratio


def clipped(boxes: Boxes, width: int, height: int) -> Boxes:
    """The parts of boxes that are inside the picture."""
    return np.clip(boxes, 0, [width, height, width, height])


def best_of_each_place(
    boxes: Boxes, scores: Scores, classes: NDArray[np.intp], *, overlap: float
) -> NDArray[np.intp]:
    """Non-maximum suppression within each class: the indices to keep, best first."""
    # Classes are moved so far apart that they cannot overlap.
    apart = boxes + (classes * (boxes.max(initial=0) - boxes.min(initial=0) + 1))[:, None]
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[overlaps(apart[best][None], apart[waiting])[0] <= overlap]
    return np.asarray(kept, np.intp)
