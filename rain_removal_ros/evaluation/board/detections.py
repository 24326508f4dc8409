"""Whether a detector recovers what rain hid, and still finds what it found in clear weather.

The share recovered is that of the AP50 that rain costs. Every model sees the same pictures, rain
and draws of pictures, so differences between models are paired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rain_removal_ros.data.rain import render_frames
from rain_removal_ros.detection import truth
from rain_removal_ros.detection.bootstrap import Values, draws
from rain_removal_ros.detection.boxes import Detections, Truths
from rain_removal_ros.detection.detectors import Detector, create
from rain_removal_ros.detection.scoring import match, mean_ap
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board import marks, rains
from rain_removal_ros.evaluation.board.marks import ROUNDS, Mark
from rain_removal_ros.evaluation.board.setup import Setup, digest, drawn
from rain_removal_ros.frames import Image
from rain_removal_ros.media import pictures
from rain_removal_ros.runtime.files import write_json

SEVERITIES = (0.3, 0.6, 1.0)
CLASSES: dict[str, tuple[str, ...]] = {"pennfudan": ("person",), "carla": ("car", "traffic light")}
"""Sets of labelled pictures, and their classes that the detector knows."""
_SAME = {"vehicle": "car", "truck": "car", "bus": "car"}
"""CARLA's labels do not distinguish cars from trucks."""
_DETECTOR = "detection/yolox_nano.onnx"

See = Callable[[Image], Image]


@dataclass(frozen=True)
class Labelled:
    """One set of labelled pictures, loaded."""

    name: str
    stems: tuple[str, ...]
    references: list[Image]
    truths: list[Truths]
    fingerprint: str


def detection_part(model: Runner, setup: Setup) -> Iterator[Mark]:
    """The marks of each set of labelled pictures."""
    detector = create(str(setup.data / _DETECTOR))
    for name in CLASSES:
        yield from seen_through(model, labelled(setup.data, name), detector, setup)


def seen_through(
    model: Runner, shown: Labelled, detector: Detector, setup: Setup
) -> Iterator[Mark]:
    """Shares recovered at each severity, and the change in clear weather."""
    known = _without(shown, detector, setup)
    for severity in SEVERITIES:
        ap = _ap50(shown, detector, _rainy(shown, severity, setup), _through(model))
        before, best = known[f"{severity:g}"], known["reference"]
        with np.errstate(invalid="ignore", divide="ignore"):
            won = (ap - before) / (best - before)
        yield marks.of_draws(f"{shown.name}/won_{severity:g}", shown.stems, won)
    clear = _ap50(shown, detector, shown.references, _through(model)) - known["reference"]
    yield marks.of_draws(f"{shown.name}/clear", shown.stems, clear)


def _through(model: Runner) -> See:
    return lambda image: model.derain(image).image


def _without(shown: Labelled, detector: Detector, setup: Setup) -> dict[str, Values]:
    """AP50 of the references and of the rainy pictures, which do not depend on the model."""
    path = None
    if setup.cache:
        key = f"{shown.fingerprint} {detector.fingerprint} {rains.fingerprint()}"
        digested = hashlib.sha256(key.encode()).hexdigest()[:24]
        path = setup.cache / f"detection-without-{shown.name}-{digested}.json"
    if path and (kept := _read(path)):
        return kept
    found = {"reference": _ap50(shown, detector, shown.references, lambda image: image)}
    for severity in SEVERITIES:
        rainy = _rainy(shown, severity, setup)
        found[f"{severity:g}"] = _ap50(shown, detector, rainy, lambda image: image)
    if path:
        write_json(path, {condition: values.tolist() for condition, values in found.items()})
    return found


def _ap50(shown: Labelled, detector: Detector, images: Iterable[Image], see: See) -> Values:
    """AP50 of the detections, over the original pictures and over draws of them."""
    labels = CLASSES[shown.name]
    found = []
    for image in images:
        seen = see(image)
        each = detector.detect(seen)
        scale = image.shape[1] / seen.shape[1], image.shape[0] / seen.shape[0]
        found.append(_renamed(each.scaled(*scale)))
    weights = draws(shown.stems, rounds=ROUNDS)
    return mean_ap(match(shown.truths, found, labels), weights, iou=0.5)


def _renamed(found: Detections) -> Detections:
    return replace(found, labels=tuple(_SAME.get(label, label) for label in found.labels))


def labelled(data: Path, name: str) -> Labelled:
    folder = data / "detection" / name
    stems = tuple(each.removeprefix(f"{name} ") for each in rains.names(f"{name} "))
    paths = {path.stem: path for path in pictures.find_pictures(folder / "images")}
    references = [pictures.read(paths[stem]) for stem in stems]
    sizes = {
        stem: (image.shape[1], image.shape[0])
        for stem, image in zip(stems, references, strict=True)
    }
    known = truth.read(folder / "annotations", sizes)
    truths = [
        replace(each, labels=tuple(_SAME.get(label, label) for label in each.labels))
        for each in (known.truths[stem] for stem in stems)
    ]
    return Labelled(name, stems, references, truths, digest(paths[stem] for stem in stems)[:16])


def _rainy(shown: Labelled, severity: float, setup: Setup) -> Iterator[Image]:
    def fall() -> Iterator[Image]:
        for stem, reference in zip(shown.stems, shown.references, strict=True):
            fallen = rains.rain(f"{shown.name} {stem}", severity)
            yield render_frames(reference[None], fallen)[0]

    key = f"{shown.name} {severity:g} {shown.fingerprint} {rains.fingerprint()}"
    return drawn(setup, key, len(shown.stems), fall)


def _read(path: Path) -> dict[str, Values] | None:
    """The cache entry, or None if there is none that can be used."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {condition: np.asarray(values, np.float64) for condition, values in kept.items()}
    except (OSError, ValueError, AttributeError):
        return None
