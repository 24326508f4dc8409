"""Object detectors, each a small class in a file of its own.

A detector names its classes and finds them on one picture at a time. It knows nothing about rain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rain_removal_ros.detection.boxes import Detections
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image

__all__ = ["BUILT_IN", "SOURCES", "Detector", "create"]

SOURCES = (
    "give --detector FILE.onnx, a network of the YOLO family: YOLOX's releases have such files "
    "(yolox_nano.onnx, 4 MB), and Ultralytics' 'yolo export format=onnx' makes them"
)
"""Where a detector comes from. None ships, and nothing is downloaded."""
BUILT_IN = (
    "no --detector, so it is hog, which OpenCV brings: it finds upright people of 100 pixels and "
    f"more, and nothing else; for other classes {SOURCES}"
)


class Detector(Protocol):
    """Finds objects of its classes on pictures."""

    name: str
    labels: tuple[str, ...]
    sure: float
    """The score above which detections are usually accepted."""
    fingerprint: str
    """Changes whenever the result for the same picture could change."""

    def detect(self, image: Image) -> Detections: ...


def create(wanted: str, *, provider: str = "cpu") -> Detector:
    """The detector meant by hog, an .onnx file, torchvision:NAME=WEIGHTS, hf:FOLDER or
    ros:IMAGES=DETECTIONS."""
    if wanted == "hog":
        from rain_removal_ros.detection.detectors.hog import Hog

        return Hog()
    kind, _, rest = wanted.partition(":")
    if kind == "torchvision":
        from rain_removal_ros.detection.detectors.torchvision import Torchvision

        return Torchvision(rest)
    if kind == "hf":
        from rain_removal_ros.detection.detectors.transformers import Transformer

        return Transformer(Path(rest))
    if kind == "ros":
        from rain_removal_ros.detection.detectors.live import Live

        return Live(rest)
    if wanted.endswith(".onnx"):
        if not Path(wanted).is_file():
            raise DataError(f"there is no detector {wanted}; {SOURCES}")
        from rain_removal_ros.detection.detectors.yolo import Yolo

        return Yolo(Path(wanted), provider=provider)
    raise DataError(
        f"no detector is called {wanted!r}; there are hog, an .onnx file, "
        f"torchvision:NAME=WEIGHTS, hf:FOLDER and ros:IMAGES=DETECTIONS; {SOURCES}"
    )
