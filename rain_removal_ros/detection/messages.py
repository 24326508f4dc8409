"""Reads a vision_msgs Detection2DArray, live or from a recording."""

from __future__ import annotations

from typing import Any, NamedTuple

from rain_removal_ros.errors import DataError


class Found(NamedTuple):
    """One box, with its most likely class."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2."""
    track: str


def read(message: Any) -> list[Found]:
    """All boxes of a message; a box without a class is an error."""
    boxes = []
    for number, each in enumerate(message.detections):
        if not each.results:
            raise DataError(f"box {number} of a Detection2DArray has no class")
        best = max(each.results, key=lambda result: float(result.hypothesis.score)).hypothesis
        middle, x, y = each.bbox.center.position, each.bbox.size_x / 2, each.bbox.size_y / 2
        box = (middle.x - x, middle.y - y, middle.x + x, middle.y + y)
        boxes.append(Found(best.class_id, float(best.score), box, each.id))
    return boxes
