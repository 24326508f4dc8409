"""What a detector can be shown instead of the camera's picture: the alternatives to compare.

Trivial filters are among them, because a network that does not beat a median filter is not worth
running.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

import rain_removal_ros
from rain_removal_ros import checkpoints, engines, networks, runtime
from rain_removal_ros.detection.sources import SourceFrame
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.manifest import code_checksum
from rain_removal_ros.settings import EngineSettings, NetworkSettings
from rain_removal_ros.stream import Stream

__all__ = [
    "INPUT",
    "REFERENCE",
    "Candidate",
    "Derain",
    "Input",
    "Online",
    "Reference",
    "SpatialMedian",
    "TemporalMedian",
]

INPUT, REFERENCE = "input", "clean reference"


class Candidate(Protocol):
    """Turns frames into what detectors see."""

    name: str
    fingerprint: str

    def begin(self) -> None:
        """Start a new sequence."""

    def show(self, scene: SourceFrame) -> Image: ...


class Input:
    """The frame itself."""

    name = fingerprint = INPUT

    def begin(self) -> None:
        pass

    def show(self, scene: SourceFrame) -> Image:
        return scene.rainy


class Reference:
    """The frame without rain: the most that can be gained."""

    name = fingerprint = REFERENCE

    def begin(self) -> None:
        pass

    def show(self, scene: SourceFrame) -> Image:
        assert scene.reference is not None
        return scene.reference


class SpatialMedian:
    """The median of each pixel and its eight neighbours."""

    name = fingerprint = "3x3 median"

    def begin(self) -> None:
        pass

    def show(self, scene: SourceFrame) -> Image:
        return np.asarray(cv2.medianBlur(scene.rainy, 3), np.uint8)


class TemporalMedian:
    """The median of each pixel over this frame and the two before."""

    name = fingerprint = "median of 3 frames"

    def __init__(self) -> None:
        self._last: deque[Image] = deque(maxlen=3)

    def begin(self) -> None:
        self._last.clear()

    def show(self, scene: SourceFrame) -> Image:
        self._last.append(scene.rainy)
        if len(self._last) < 3:
            return scene.rainy
        a, b, c = self._last
        low, high = cv2.min(a, b), cv2.max(a, b)
        return np.asarray(cv2.max(low, cv2.min(high, c)), np.uint8)


class Online:
    """The image that some program published for the frame while it was recorded."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.name = self.fingerprint = f"recorded {topic}"

    def begin(self) -> None:
        pass

    def show(self, scene: SourceFrame) -> Image:
        return scene.online[self._topic]


class Derain:
    """A network, run as the node runs it."""

    def __init__(self, wanted: str, engine: EngineSettings, *, stages: int = 0) -> None:
        path = checkpoints.resolve(wanted)
        settings = NetworkSettings(weights=str(path), stages=stages)
        _, checkpoint = checkpoints.choose(settings)
        self._engine = engines.create(checkpoint.network, engine)
        info = self._engine.info
        self.network_name = info.network
        self.name = path.stem
        if stages:
            self.name += f", {stages} stages"
        self._stream = Stream(self._engine)
        # The C library and the stream are in these two packages.
        packages = (rain_removal_ros, runtime, networks, engines)
        folders = [Path(each.__path__[0]) for each in packages]
        code = code_checksum(*folders)
        self.fingerprint = (
            f"{checkpoint.checksum} {info.stages} {info.precision} "
            f"{info.engine} {info.device} {code[:16]}"
        )

    def begin(self) -> None:
        self._stream.reset("new sequence")

    def show(self, scene: SourceFrame) -> Image:
        frame = Frame(scene.rainy, scene.stamp_ns)
        return self._stream.step(frame, attention=False).frame.image
