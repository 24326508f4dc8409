"""Turns detections into conclusions: scores, differences with intervals, verdicts, a gate.

Everything is compared with the rainy input under the same condition, on the same draws of pictures.
Figures are in points from 0 to 100, except counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.detection import scoring
from rain_removal_ros.detection.bootstrap import (
    CANNOT_TELL,
    Estimate,
    Values,
    Weights,
    draws,
    estimate,
    verdict,
)
from rain_removal_ros.detection.boxes import Detections, Truths
from rain_removal_ros.detection.candidates import INPUT, REFERENCE
from rain_removal_ros.detection.detectors import Detector
from rain_removal_ros.detection.harness import DetectionResults
from rain_removal_ros.detection.scoring import Matches
from rain_removal_ros.detection.sources import FrameSource
from rain_removal_ros.errors import DataError

__all__ = ["FALSE_PER_PICTURE", "Analysis", "Gate", "Row", "Share", "conclude", "gated", "late"]

FALSE_PER_PICTURE = 0.1
"""The rate of false alarms at which recall is measured."""
_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
_ALWAYS, _NEVER = -1.0, 1.0
_TIE = 0.05
"""A smaller gain in AP50, in points, is no reason to derain more frames."""
_EXAMPLES = 10


@dataclass(frozen=True)
class Share:
    """The AP50 of one class or one size within a row."""

    score: Estimate
    difference: Estimate
    verdict: str


@dataclass(frozen=True)
class Row:
    """One candidate under one condition, as one detector sees it."""

    detector: str
    condition: str
    candidate: str
    scores: dict[str, Estimate]
    differences: dict[str, Estimate]
    """From the input. Lost and gained objects and false alarms are averages per picture."""
    verdict: str
    """Of the difference in AP50."""
    classes: dict[str, Share]
    sizes: dict[str, Share]
    recovered: Estimate | None
    """The share recovered of the AP50 that rain costs."""
    milliseconds: float | None
    curves: dict[str, list[tuple[float, float]]] = field(repr=False, default_factory=dict)
    """Precision over recall, by class."""


@dataclass(frozen=True)
class Gate:
    """The rain level above which a network should run, over all conditions together."""

    detector: str
    model: str
    threshold: float
    """Deraining above it is best; below 0 for always, 1 for never."""
    over_never: Estimate
    """AP50 compared with deraining no frame; the threshold is chosen on the other half."""
    over_always: Estimate
    curve: list[tuple[float, float]]
    """AP50 of all conditions together over the threshold."""

    @property
    def advice(self) -> str:
        """The node's settings that do the same."""
        if self.threshold < 0:
            return "derain every frame: bypass.mode never"
        if self.threshold >= _NEVER:
            return "derain no frame: bypass.mode always"
        low = round(self.threshold / 2, 3)
        return f"bypass.mode auto, bypass.on_above {self.threshold:g}, bypass.off_below {low:g}"


@dataclass(frozen=True)
class Example:
    """A picture that a network helped or hurt."""

    detector: str
    condition: str
    model: str
    index: int
    gain: int
    """Objects gained over the input, minus false alarms added."""


@dataclass
class Analysis:
    """The results of one detector."""

    detector: str
    labels: tuple[str, ...]
    truths: list[Truths]
    is_pseudo: bool
    score: float
    """Detections below this score are not counted."""
    rows: list[Row] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    helped: list[Example] = field(default_factory=list)
    hurt: list[Example] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gated(model: str) -> str:
    return f"{model}, gated"


def late(candidate: str, frames: int) -> str:
    return f"{candidate}, {frames} frame{'s' * (frames > 1)} late"


def check_classes(source: FrameSource, detector: Detector, classes: Sequence[str]) -> None:
    """Refuse labels that share no class with the detector, before any work is done."""
    truths = [item.truth for item in source.items]
    if any(truths):
        _common(_labels(truths), detector, classes)


def conclude(
    run: DetectionResults,
    detector: Detector,
    models: Sequence[str],
    *,
    classes: Sequence[str] = (),
    rounds: int = 1000,
    seed: int = 0,
) -> Analysis:
    """Score every candidate as one detector sees it."""
    analysis = _begun(run, detector, classes)
    groups = [item.group for item in run.source.items]
    compared = _Comparison(run, analysis, models, draws(groups, rounds=rounds, seed=seed))
    if not analysis.is_pseudo:
        # As a user would tune the detector in clear weather.
        analysis.score = scoring.best_score(compared.reference)
    for model in models:
        analysis.gates.append(_gate(compared, model))
    for condition in run.source.conditions:
        analysis.rows += _rows(compared, condition.name)
    _add_examples(compared, run.source.conditions[-1].name)
    return analysis


class _Comparison:
    """Every candidate's matches under every condition, and the draws that all share."""

    def __init__(
        self, run: DetectionResults, analysis: Analysis, models: Sequence[str], weights: Weights
    ) -> None:
        self.run, self.analysis, self.models, self.weights = run, analysis, models, weights
        self.sequences = [item.sequence for item in run.source.items]
        self.groups = [item.group for item in run.source.items]
        self.group_count = len(set(self.groups))
        self.matches: dict[tuple[str, str], Matches] = {}
        self._ap50: dict[tuple[str, str], Values] = {}
        for condition, candidate, name in run.found:
            if name == analysis.detector:
                self.matches[condition, candidate] = self._match(
                    run.found[condition, candidate, name]
                )
                self._add_late(condition, candidate)

    def ap50(self, condition: str, candidate: str) -> Values:
        place = (condition, candidate)
        if place not in self._ap50:
            self._ap50[place] = 100 * scoring.mean_ap(self.matches[place], self.weights, iou=0.5)
        return self._ap50[place]

    def candidates(self, condition: str) -> list[str]:
        return [candidate for name, candidate in self.matches if name == condition]

    @property
    def reference(self) -> Matches:
        """Clear weather, or the lightest rain."""
        first = self.run.source.conditions[0].name
        return self.matches.get((first, REFERENCE), self.matches[first, INPUT])

    def _match(self, found: Sequence[Detections]) -> Matches:
        return scoring.match(self.analysis.truths, found, self.analysis.labels)

    def _add_late(self, condition: str, candidate: str) -> None:
        """Add late candidates, which show an older frame at each moment."""
        frame_s = self.run.source.frame_s
        if frame_s is None or candidate not in self.models:
            return
        # One time for all conditions, because load on the machine during one of them is not the
        # network's.
        seconds = [taken for (_, name), taken in self.run.seconds.items() if name == candidate]
        age = max(1, math.ceil(statistics.median(seconds) / frame_s))
        for side in (INPUT, candidate):
            found = self.run.found[condition, side, self.analysis.detector]
            self.matches[condition, late(side, age)] = self._match(
                _aged(found, self.sequences, age)
            )


def _begun(run: DetectionResults, detector: Detector, classes: Sequence[str]) -> Analysis:
    truths = [item.truth for item in run.source.items]
    notes: list[str] = []
    is_pseudo = not any(truths)
    if is_pseudo:
        found = [
            run.found.get((condition.name, REFERENCE, detector.name))
            for condition in run.source.conditions
        ]
        if (reference := next((each for each in found if each is not None), None)) is None:
            raise DataError(
                "there are neither labels nor reference pictures to compare with; give --truth or "
                "--clean"
            )
        truths = [_as_truth(each.above(detector.sure)) for each in reference]
        notes.append(
            "Pseudo ground truth: nobody labelled these pictures. What this detector finds on "
            f"the reference with a score of {detector.sure:g} or more counts as there."
        )
    known = _labels(truths)
    labels = _common(known, detector, classes)
    left_out = sorted(known - set(labels))
    if left_out and not classes:
        notes.append(f"Classes it does not know, not scored: {', '.join(left_out)}.")
    return Analysis(
        detector.name, labels, [each or _nothing() for each in truths], is_pseudo, detector.sure,
        notes=notes,
    )  # fmt: skip


def _labels(truths: Sequence[Truths | None]) -> set[str]:
    return {label for each in truths if each is not None for label in each.labels}


def _common(known: set[str], detector: Detector, classes: Sequence[str]) -> tuple[str, ...]:
    if not known:
        raise DataError(
            f"{detector.name} finds nothing on the reference pictures, so there is no pseudo "
            "ground truth; give --truth"
        )
    if strange := [label for label in classes if label not in known]:
        raise DataError(f"no {strange[0]!r} is in the ground truth; there are {_listed(known)}")
    both = sorted((set(classes) or known) & set(detector.labels))
    if not both:
        raise DataError(
            f"{detector.name} finds {_listed(set(detector.labels))}, the ground truth holds "
            f"{_listed(known)}: no class is in both"
        )
    return tuple(both)


def _rows(compared: _Comparison, condition: str) -> list[Row]:
    """The condition's candidates, the input first; in clear weather the input is the reference."""
    is_clear = next(
        each.severity == 0 for each in compared.run.source.conditions if each.name == condition
    )
    candidates = [
        candidate
        for candidate in compared.candidates(condition)
        if not (is_clear and candidate == REFERENCE)
    ]
    return [_row(compared, condition, candidate) for candidate in candidates]


def _row(compared: _Comparison, condition: str, candidate: str) -> Row:
    matches, base = compared.matches[condition, candidate], compared.matches[condition, INPUT]
    scores, before = (
        _scores(compared, condition, candidate),
        _scores(compared, condition, INPUT),
    )
    differences = {name: values - before[name] for name, values in scores.items()}
    differences |= _changes(compared, matches, base)
    ap50 = estimate(differences["AP50"])
    seconds = compared.run.seconds.get((condition, candidate))
    return Row(
        compared.analysis.detector,
        condition,
        candidate,
        {name: estimate(values) for name, values in scores.items()},
        {name: estimate(values) for name, values in differences.items()},
        verdict(ap50, groups=compared.group_count) if candidate != INPUT else "",
        {label: _share(compared, matches, base, label=label) for label in matches.labels},
        {size: _share(compared, matches, base, size=size) for size in scoring.SIZES[1:]},
        _recovered(compared, condition, candidate),
        None if seconds is None else 1000 * seconds,
        {label: _thinned(*scoring.curve(matches, label)) for label in matches.labels},
    )


def _scores(compared: _Comparison, condition: str, candidate: str) -> dict[str, Values]:
    matches, weights = compared.matches[condition, candidate], compared.weights
    scores = {
        "AP50": compared.ap50(condition, candidate),
        "AP": 100 * scoring.mean_ap(matches, weights),
        "AP75": 100 * scoring.mean_ap(matches, weights, iou=0.75),
        "recall": 100 * scoring.recall_at(matches, weights, false_per_picture=FALSE_PER_PICTURE),
        "calibration error": 100 * scoring.calibration_error(matches, weights),
    }
    return scores | _steadiness(compared, matches)


def _steadiness(compared: _Comparison, matches: Matches) -> dict[str, Values]:
    """How often tracks are lost and found again, per hundred frames in which they exist."""
    truths = compared.analysis.truths
    if not any(truth.tracks for truth in truths):
        return {}
    breaks, changes, frames = _track_events(
        matches, truths, compared.sequences, compared.analysis.score
    )
    weights = compared.weights.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "fragments": 100 * (weights @ breaks) / (weights @ frames),
            "flicker": 100 * (weights @ changes) / (weights @ frames),
        }


def _track_events(
    matches: Matches, truths: Sequence[Truths], sequences: Sequence[str], score: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For each frame: tracks found again after a loss, tracks that appeared or vanished, tracks."""
    found = scoring.found_objects(matches, score)
    numbers = scoring.object_numbers(matches)
    breaks, changes, frames = np.zeros((3, len(truths)))
    before: dict[tuple[str, int], bool] = {}
    once: set[tuple[str, int]] = set()
    for picture, (truth, seen) in enumerate(zip(truths, found, strict=True)):
        for number, is_found in zip(numbers[picture], seen, strict=True):
            track = (sequences[picture], truth.tracks[number])
            frames[picture] += 1
            changes[picture] += track in before and before[track] != is_found
            breaks[picture] += bool(is_found and track in once and not before[track])
            before[track] = bool(is_found)
            if is_found:
                once.add(track)
    return breaks, changes, frames


def _changes(compared: _Comparison, matches: Matches, base: Matches) -> dict[str, Values]:
    """Objects lost and gained against the input, and false alarms added, per picture."""
    score = compared.analysis.score
    mine, before = scoring.found_objects(matches, score), scoring.found_objects(base, score)
    lost = np.array([(b & ~m).sum() for m, b in zip(mine, before, strict=True)])
    gained = np.array([(m & ~b).sum() for m, b in zip(mine, before, strict=True)])
    false = scoring.false_alarms(matches, score) - scoring.false_alarms(base, score)
    amounts = {"lost": lost, "gained": gained, "false alarms": false}
    return {name: scoring.per_picture(values, compared.weights) for name, values in amounts.items()}


def _share(
    compared: _Comparison,
    matches: Matches,
    base: Matches,
    *,
    label: str | None = None,
    size: str = "all",
) -> Share:
    mine, before = (
        100 * scoring.mean_ap(each, compared.weights, label=label, size=size, iou=0.5)
        for each in (matches, base)
    )
    difference = estimate(mine - before)
    if not np.isfinite(difference.value):
        return Share(estimate(mine), difference, CANNOT_TELL)
    return Share(estimate(mine), difference, verdict(difference, groups=compared.group_count))


def _recovered(compared: _Comparison, condition: str, candidate: str) -> Estimate | None:
    """None if the cost of rain is not significant."""
    if candidate in (INPUT, REFERENCE) or (condition, REFERENCE) not in compared.matches:
        return None
    base = compared.ap50(condition, INPUT)
    cost = compared.ap50(condition, REFERENCE) - base
    if not estimate(cost).low > 0:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return estimate(
            100 * (compared.ap50(condition, candidate) - base) / np.where(cost > 0, cost, np.nan)
        )


def _gate(compared: _Comparison, model: str) -> Gate:
    """The best threshold, and what a gate gains on pictures that did not choose it.

    Adds the gated candidate under every condition: each half of the sequences is derained above the
    threshold that is best for the other.
    """
    names = [condition.name for condition in compared.run.source.conditions]
    never = scoring.join([compared.matches[name, INPUT] for name in names])
    always = scoring.join([compared.matches[name, model] for name in names])
    levels = np.concatenate([compared.run.levels[name] for name in names])
    order = {group: number for number, group in enumerate(dict.fromkeys(compared.groups))}
    half = np.array([order[group] % 2 for group in compared.groups], bool)
    halves = np.tile(half, len(names))
    thresholds = [_ALWAYS, *_THRESHOLDS.tolist(), _NEVER]
    weights = np.stack([np.ones(len(halves)), ~halves, halves]).astype(np.float32)
    values = 100 * np.array([
        scoring.mean_ap(scoring.choose(never, always, levels > threshold), weights, iou=0.5)
        for threshold in thresholds
    ])  # fmt: skip
    best, of_first, of_second = (_highest_of_best(thresholds, column) for column in values.T)
    if compared.group_count < 2:
        of_first = of_second = best
    for name in names:
        above = np.where(half, of_first, of_second)
        use = np.asarray(compared.run.levels[name]) > above
        compared.matches[name, gated(model)] = scoring.choose(
            compared.matches[name, INPUT], compared.matches[name, model], use
        )
    pooled = np.tile(compared.weights, len(names))
    both = scoring.join([compared.matches[name, gated(model)] for name in names])
    gate, none, every = (
        100 * scoring.mean_ap(each, pooled, iou=0.5) for each in (both, never, always)
    )
    return Gate(
        compared.analysis.detector,
        model,
        best,
        estimate(gate - none),
        estimate(gate - every),
        list(zip(thresholds, values[:, 0].tolist(), strict=True)),
    )


def _highest_of_best(thresholds: Sequence[float], values: NDArray[np.float64]) -> float:
    """Of the thresholds as good as the best, the one that derains the fewest frames."""
    best = np.nanmax(values) if np.isfinite(values).any() else 0.0
    return max(
        threshold
        for threshold, value in zip(thresholds, values, strict=True)
        if not value < best - _TIE
    )


def _add_examples(compared: _Comparison, condition: str) -> None:
    """Add the pictures on which the first model changed most, under the hardest condition."""
    analysis = compared.analysis
    if not compared.models:
        return
    model = compared.models[0]
    gains = _gains(compared.matches[condition, model], analysis.score)
    gains = gains - _gains(compared.matches[condition, INPUT], analysis.score)
    order = np.argsort(-gains, kind="stable")
    for index in order[:_EXAMPLES]:
        if gains[index] > 0:
            analysis.helped.append(
                Example(analysis.detector, condition, model, int(index), int(gains[index]))
            )
    for index in order[::-1][:_EXAMPLES]:
        if gains[index] < 0:
            analysis.hurt.append(
                Example(analysis.detector, condition, model, int(index), int(gains[index]))
            )


def _gains(matches: Matches, score: float) -> NDArray[np.int64]:
    found = [int(each.sum()) for each in scoring.found_objects(matches, score)]
    gains: NDArray[np.int64] = np.array(found) - scoring.false_alarms(matches, score)
    return gains


def _aged(found: Sequence[Detections], sequences: Sequence[str], age: int) -> list[Detections]:
    """The detections of ``age`` frames ago for each frame; the first ones are repeated."""
    first: dict[str, int] = {}
    for index, name in enumerate(sequences):
        first.setdefault(name, index)
    return [found[max(first[name], index - age)] for index, name in enumerate(sequences)]


def _as_truth(found: Detections) -> Truths:
    return Truths(found.labels, found.boxes, np.zeros(len(found.labels), bool))


def _nothing() -> Truths:
    return Truths((), np.zeros((0, 4)), np.zeros(0, bool))


def _thinned(
    recall: NDArray[np.float64], precision: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """The curve reduced to points where recall grows visibly."""
    points: list[tuple[float, float]] = []
    for x, y in zip(recall.tolist(), precision.tolist(), strict=True):
        if not points or x - points[-1][0] >= 0.005 or points[-1][1] - y >= 0.005:
            points.append((x, y))
    return points


def _listed(labels: set[str]) -> str:
    names = sorted(labels)
    return ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
