"""OpenCV's pedestrian detector of 2005: weak, but needs no download."""

from __future__ import annotations

import cv2
import numpy as np

from rain_removal_ros.detection.boxes import Detections, as_boxes, best_of_each_place
from rain_removal_ros.frames import Image

_BODY = np.array([0.2, 0.125, 0.8, 0.875])
"""Where the person is in a window: 16 of its 128 rows are margin above, and as many below."""
_OVERLAP = 0.4


class Hog:
    """See ``Detector``. Scores are the distance from its decision line, squeezed into 0 to 1."""

    name = "hog"
    labels: tuple[str, ...] = ("person",)
    sure = 0.65
    fingerprint = f"hog 1 {cv2.__version__}"

    def __init__(self) -> None:
        self._windows = cv2.HOGDescriptor()
        self._windows.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector()))

    def detect(self, image: Image) -> Detections:
        smallest = (128, 64)
        if any(side < least for side, least in zip(image.shape[:2], smallest, strict=True)):
            return Detections((), np.zeros(0), as_boxes([]))
        # Ungrouped: grouping discards detections that few windows agree on, and loses recall.
        found, margins = self._windows.detectMultiScale(
            image[..., ::-1].copy(), winStride=(8, 8), padding=(8, 8), scale=1.05, groupThreshold=0
        )
        windows = as_boxes(np.asarray(found, np.float64))
        sides = windows[:, [2, 3, 2, 3]]
        boxes = windows[:, [0, 1, 0, 1]] + sides * _BODY
        scores = 1 / (1 + np.exp(-np.asarray(margins, np.float64).reshape(-1)))
        kept = best_of_each_place(boxes, scores, np.zeros(len(scores), np.intp), overlap=_OVERLAP)
        return Detections(("person",) * len(kept), scores[kept], boxes[kept])
