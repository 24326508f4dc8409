"""A detector that is a running ROS node: pictures go to one topic, boxes come from another."""

from __future__ import annotations

import atexit
import importlib
import time

import numpy as np

from rain_removal_ros.detection import messages
from rain_removal_ros.detection.boxes import Detections, as_boxes
from rain_removal_ros.detection.detectors._coco import COCO
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image


class Live:
    """See ``Detector``. ``topics`` are IMAGES=DETECTIONS, the latter of vision_msgs."""

    sure = 0.5
    labels: tuple[str, ...] = COCO

    def __init__(self, topics: str) -> None:
        images, equals, answers = topics.partition("=")
        if not (images and equals and answers):
            raise DataError(f"a running detector is ros:IMAGES=DETECTIONS, not ros:{topics}")
        try:
            kind = importlib.import_module("vision_msgs.msg").Detection2DArray
            from rain_removal_ros.ros.tools.request_response import RequestResponse
        except ImportError as error:
            raise DataError(
                f"a running detector needs ROS 2 and vision_msgs: {error.name} is not installed"
            ) from error
        self.name = answers
        # It may have been restarted with another model, so results are never cached.
        self.fingerprint = f"live {time.time_ns()}"
        self._inquiry = RequestResponse(images, answers, kind)
        atexit.register(self._inquiry.close)

    def detect(self, image: Image) -> Detections:
        return as_detections(messages.read(self._inquiry.ask(image)))


def as_detections(found: list[messages.Found]) -> Detections:
    """Numeric classes are COCO's."""
    labels = tuple(_label(each.label) for each in found)
    scores = np.array([each.score for each in found], np.float64).clip(0, 1)
    return Detections(labels, scores, as_boxes([each.box for each in found]))


def _label(text: str) -> str:
    return COCO[int(text)] if text.isdigit() and int(text) < len(COCO) else text
