"""Shows the pictures of every candidate to every detector, and caches the detections.

The results of a candidate under a condition are kept on disk, with a key of everything they depend
on, so that with a new model only that model is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from rain_removal_ros.detection.boxes import Detections, as_boxes
from rain_removal_ros.detection.candidates import REFERENCE, Candidate
from rain_removal_ros.detection.detectors import Detector
from rain_removal_ros.detection.sources import Condition, FrameSource
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.parsing import from_json
from rain_removal_ros.rain_level import RainGauge
from rain_removal_ros.runtime.files import write_json

__all__ = ["DetectionResults", "run"]

_VERSION = 1
"""Version of the cache; changing it discards all entries."""
_QUALITY = 90


@dataclass
class DetectionResults:
    """All detections, ready to be scored."""

    source: FrameSource
    found: dict[tuple[str, str, str], list[Detections]] = field(default_factory=dict)
    """By condition, candidate and detector: the detections on each item."""
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    """By condition and candidate: the median time to make one picture."""
    levels: dict[str, list[float]] = field(default_factory=dict)
    """By condition: the rain level, measured as in the node."""
    _pictures: dict[tuple[str, str], Path] = field(default_factory=dict)

    def picture(self, condition: str, candidate: str, index: int) -> Image:
        """What a candidate showed, as decoded from JPEG."""
        path = self._pictures[condition, candidate] / f"{index:06d}.jpg"
        shown = cv2.imread(str(path))
        if shown is None:
            raise DataError(f"{path} is gone; run again with another --cache")
        return np.ascontiguousarray(shown[..., ::-1])


def run(
    source: FrameSource,
    candidates: Sequence[Candidate],
    detectors: Sequence[Detector],
    *,
    cache: Path,
) -> DetectionResults:
    """Run every frame of a source, under every condition, through every candidate."""
    with _writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    done = DetectionResults(source)
    for condition in source.conditions:
        passes = [_Pass(cache, source, condition, candidate, detectors) for candidate in candidates]
        gauge = _Gauge(cache, source, condition)
        if gauge.missing or any(one.missing for one in passes):
            _see(source, condition, [one for one in passes if one.missing], gauge)
        done.levels[condition.name] = gauge.levels
        for one in passes:
            place = (condition.name, one.candidate.name)
            done.seconds[place] = float(np.median(one.seconds))
            done._pictures[place] = one.pictures
            for name, found in one.found.items():
                done.found[(*place, name)] = found
    return done


class _Pass:
    """One candidate under one condition: what is cached, and what is still to be run."""

    def __init__(
        self,
        cache: Path,
        source: FrameSource,
        condition: Condition,
        candidate: Candidate,
        detectors: Sequence[Detector],
    ) -> None:
        self.candidate = candidate
        self.found: dict[str, list[Detections]] = {}
        self.seconds: list[float] = []
        self.missing: list[Detector] = []
        # Rain does not change the reference, so one run serves every condition.
        weather = "any" if candidate.name == REFERENCE else condition.name
        place = (source.fingerprint, weather, candidate.fingerprint)
        self.pictures = cache / _key("pictures", *place)
        self._files = {
            each.name: cache / f"{_key('found', *place, each.fingerprint)}.json"
            for each in detectors
        }
        for detector in detectors:
            try:
                kept = _read(self._files[detector.name])
                found = [_detections(entry) for entry in kept["found"]]
                seconds = [float(each) for each in kept["seconds"]]
            except (KeyError, TypeError, ValueError):  # nothing kept, or it is damaged
                found, seconds = [], []
            if len(found) != len(source.items):
                self.missing.append(detector)
            else:
                self.found[detector.name], self.seconds = found, seconds

    def begin(self) -> None:
        with _writing(self.pictures):
            self.pictures.mkdir(parents=True, exist_ok=True)
        self.seconds = []
        for detector in self.missing:
            self.found[detector.name] = []

    def keep_picture(self, index: int, image: Image) -> None:
        _, packed = cv2.imencode(
            ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        with _writing(self.pictures):
            (self.pictures / f"{index:06d}.jpg").write_bytes(packed.tobytes())

    def keep(self) -> None:
        for detector in self.missing:
            found = [
                [list(each.labels), each.scores.round(5).tolist(), each.boxes.round(2).tolist()]
                for each in self.found[detector.name]
            ]
            write_json(self._files[detector.name], {"seconds": self.seconds, "found": found})
        self.missing = []


class _Gauge:
    """The rain level of every frame under one condition."""

    def __init__(self, cache: Path, source: FrameSource, condition: Condition) -> None:
        self._file = cache / f"{_key('levels', source.fingerprint, condition.name)}.json"
        try:
            self.levels = [float(level) for level in _read(self._file)["levels"]]
        except (KeyError, TypeError, ValueError):
            self.levels = []
        self.missing = len(self.levels) != len(source.items)

    def keep(self) -> None:
        write_json(self._file, {"levels": self.levels})


def _see(source: FrameSource, condition: Condition, passes: Sequence[_Pass], gauge: _Gauge) -> None:
    """Go through the frames once and fill in what is missing."""
    for one in passes:
        one.begin()
    gauge.levels = []
    rain, sequence = RainGauge(), None
    wanted = {id(detector): detector for one in passes for detector in one.missing}
    with contextlib.ExitStack() as stack:
        # One thread each: they keep state of their own, and release Python's lock.
        pools = {key: stack.enter_context(ThreadPoolExecutor(1)) for key in wanted}
        scenes = zip(source.items, source.scenes(condition), strict=True)
        bar = tqdm(scenes, condition.name, len(source.items), leave=False, disable=None)
        for index, (item, scene) in enumerate(bar):
            if item.sequence != sequence:
                sequence = item.sequence
                rain.reset()
                for one in passes:
                    one.candidate.begin()
            gauge.levels.append(rain.update(scene.rainy))
            pictures = []
            for one in passes:
                began = time.perf_counter()
                pictures.append(one.candidate.show(scene))
                one.seconds.append(time.perf_counter() - began)
                one.keep_picture(index, pictures[-1])
            # Detectors start after all times are taken, so that they do not disturb them.
            waiting: list[tuple[list[Detections], Future[Detections], float, float]] = []
            for one, shown in zip(passes, pictures, strict=True):
                # Networks may enlarge; the truth is in pixels of the original frame.
                x = scene.rainy.shape[1] / shown.shape[1]
                y = scene.rainy.shape[0] / shown.shape[0]
                for detector in one.missing:
                    future = pools[id(detector)].submit(detector.detect, shown.copy())
                    waiting.append((one.found[detector.name], future, x, y))
            for found, future, x, y in waiting:
                found.append(future.result().scaled(x, y))
    for one in passes:
        one.keep()
    gauge.keep()


def _key(*parts: str) -> str:
    digest = hashlib.sha256("\n".join([str(_VERSION), *parts]).encode()).hexdigest()[:24]
    return f"{parts[0]}-{digest}"


def _read(path: Path) -> Any:
    """The cache entry, or None if there is none that can be used."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _detections(entry: Any) -> Detections:
    labels, scores, boxes = entry
    return Detections(tuple(labels), np.asarray(scores, np.float64), as_boxes(boxes))


@contextlib.contextmanager
def _writing(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; see --cache") from error
