"""Scores equal cases computed by hand, and the summary of pycocotools."""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rain_removal_ros.detection import scoring
from rain_removal_ros.detection.bootstrap import (
    CANNOT_TELL,
    HELPS,
    HURTS,
    Estimate,
    Weights,
    draws,
    estimate,
    verdict,
)
from rain_removal_ros.detection.boxes import Detections, Truths, as_boxes
from rain_removal_ros.detection.scoring import Matches, match

BOX = (10.0, 10.0, 60.0, 60.0)
ELSEWHERE = (200.0, 200.0, 260.0, 260.0)
ONE = ("person",)


def truth(*boxes: tuple[float, ...], label: str = "person", ignored: bool = False) -> Truths:
    return Truths((label,) * len(boxes), as_boxes(list(boxes)), np.full(len(boxes), ignored))


def found(*entries: tuple[float, tuple[float, ...]], label: str = "person") -> Detections:
    scores = np.array([score for score, _ in entries], np.float64)
    return Detections((label,) * len(entries), scores, as_boxes([box for _, box in entries]))


def unit_weights(matches: Matches) -> Weights:
    return np.ones((1, matches.pictures), np.float32)


def ap50(matches: Matches) -> float:
    return float(scoring.mean_ap(matches, unit_weights(matches), iou=0.5)[0])


def test_a_perfect_detector_has_ap_one() -> None:
    matches = match(
        [truth(BOX), truth(ELSEWHERE)], [found((0.9, BOX)), found((0.8, ELSEWHERE))], ONE
    )
    assert float(scoring.mean_ap(matches, unit_weights(matches))[0]) == pytest.approx(1)


def test_a_surer_false_alarm_halves_the_precision() -> None:
    """Precision is 1/2 at every recall, because the hit comes second."""
    matches = match([truth(BOX)], [found((0.9, ELSEWHERE), (0.8, BOX))], ONE)
    assert ap50(matches) == pytest.approx(0.5)


def test_finding_half_the_objects_gives_recall_up_to_a_half() -> None:
    """51 of the 101 recalls, 0 to 0.50, are reached with precision 1."""
    matches = match([truth(BOX), truth(BOX)], [found((0.9, BOX)), found()], ONE)
    assert ap50(matches) == pytest.approx(51 / 101)


def test_a_second_detection_of_one_object_is_a_false_alarm() -> None:
    matches = match(
        [truth(BOX), truth(BOX)], [found((0.9, BOX), (0.8, BOX)), found((0.7, BOX))], ONE
    )
    # Precision 1 up to recall 0.5, then 2/3.
    assert ap50(matches) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scoring.false_alarms(matches, 0.75).tolist() == [1, 0]


def test_a_box_counts_at_the_thresholds_below_its_overlap() -> None:
    """A box of 40 in one of 50: IoU 0.64, enough for 0.5, 0.55 and 0.6 of the ten thresholds."""
    matches = match([truth((0, 0, 50, 50))], [found((0.9, (0, 0, 40, 40)))], ONE)
    assert float(scoring.mean_ap(matches, unit_weights(matches))[0]) == pytest.approx(0.3)


def test_a_detection_in_an_ignored_region_is_neither_a_hit_nor_a_false_alarm() -> None:
    both = Truths(("person",) * 2, as_boxes([BOX, ELSEWHERE]), np.array([False, True]))
    matches = match([both], [found((0.9, ELSEWHERE), (0.8, BOX))], ONE)
    assert ap50(matches) == pytest.approx(1)
    assert scoring.false_alarms(matches, 0.0).tolist() == [0]


def test_ap_is_zero_without_detections_and_nan_without_objects() -> None:
    assert ap50(match([truth(BOX)], [found()], ONE)) == 0
    assert np.isnan(ap50(match([truth()], [found((0.9, BOX))], ONE)))


def test_recall_counts_hits_up_to_the_allowed_false_alarms() -> None:
    truths = [truth(BOX)] * 2
    seen = [found((0.9, BOX), (0.8, ELSEWHERE)), found((0.7, BOX))]
    matches = match(truths, seen, ONE)
    weights = unit_weights(matches)
    assert scoring.recall_at(matches, weights, false_per_picture=0.1)[0] == pytest.approx(0.5)
    assert scoring.recall_at(matches, weights, false_per_picture=0.5)[0] == pytest.approx(1)


def test_calibration_error_is_the_gap_between_score_and_share_of_hits() -> None:
    """Two detections with score 0.85, one of them right: the gap is 0.35."""
    matches = match([truth(BOX)], [found((0.85, BOX), (0.85, ELSEWHERE))], ONE)
    assert scoring.calibration_error(matches, unit_weights(matches))[0] == pytest.approx(0.35)


def test_the_best_score_keeps_hits_and_drops_false_alarms() -> None:
    matches = match(
        [truth(BOX), truth(BOX)], [found((0.9, BOX), (0.3, ELSEWHERE)), found((0.6, BOX))], ONE
    )
    assert scoring.best_score(matches) == pytest.approx(0.6)


def test_an_object_is_found_up_to_the_score_of_its_detection() -> None:
    matches = match([truth(BOX, ELSEWHERE)], [found((0.6, BOX))], ONE)
    assert scoring.found_objects(matches, 0.5)[0].tolist() == [True, False]
    assert scoring.found_objects(matches, 0.7)[0].tolist() == [False, False]
    assert scoring.object_numbers(matches)[0].tolist() == [0, 1]


def random_pictures(
    pictures: int, boxes: int, *, seed: int = 0
) -> tuple[list[Truths], list[Detections]]:
    """Crowded pictures in which most boxes are found, a little displaced, and some are missed."""
    rng = np.random.default_rng(seed)
    labels = ("person", "car", "bus")
    truths, seen = [], []
    for _ in range(pictures):
        corner, side = rng.uniform(0, 500, (boxes, 2)), rng.uniform(20, 160, (boxes, 2))
        there = np.hstack([corner, corner + side])
        names = tuple(rng.choice(labels, boxes).tolist())
        truths.append(Truths(names, there, rng.random(boxes) < 0.1))
        moved = there + rng.normal(0, 3, there.shape)
        kept = rng.random(boxes) < 0.8
        again = tuple(name for name, keep in zip(names, kept, strict=True) if keep)
        # Scores are rounded, so that some are equal: their order matters.
        seen.append(Detections(again, rng.random(boxes).round(2)[kept], moved[kept]))
    return truths, seen


def summary_of_pycocotools(truths: list[Truths], seen: list[Detections]) -> dict[str, float]:
    names = ["person", "car", "bus"]
    base = {
        "images": [{"id": number} for number in range(len(truths))],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }

    def entry(picture: int, label: str, box: np.ndarray) -> dict[str, object]:
        x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
        return {
            "image_id": picture, "category_id": names.index(label) + 1,
            "bbox": [x, y, w, h], "area": w * h,
        }  # fmt: skip

    objects = [
        entry(picture, label, box) | {"iscrowd": int(ignored)}
        for picture, one in enumerate(truths)
        for label, box, ignored in zip(one.labels, one.boxes, one.ignored, strict=True)
    ]
    results = [
        entry(picture, label, box) | {"score": score}
        for picture, one in enumerate(seen)
        for label, box, score in zip(one.labels, one.boxes, one.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth_side = COCO()
        truth_side.dataset = base | {
            "info": {},
            "annotations": [{**one, "id": number} for number, one in enumerate(objects, 1)],
        }
        truth_side.createIndex()
        evaluation = COCOeval(truth_side, truth_side.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    kinds = ("AP", "AP50", "AP75", "small", "medium", "large")
    return dict(zip(kinds, evaluation.stats[:6].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_pycocotools(seed: int) -> None:
    truths, seen = random_pictures(40, 12, seed=seed)
    expected = summary_of_pycocotools(truths, seen)
    matches = match(truths, seen, ("person", "car", "bus"))
    weights = unit_weights(matches)
    ours = {
        "AP": scoring.mean_ap(matches, weights),
        "AP50": scoring.mean_ap(matches, weights, iou=0.5),
        "AP75": scoring.mean_ap(matches, weights, iou=0.75),
        **{size: scoring.mean_ap(matches, weights, size=size) for size in scoring.SIZES[1:]},
    }
    assert {name: float(values[0]) for name, values in ours.items()} == pytest.approx(
        expected, abs=1e-6
    )


def test_a_draw_equals_scoring_the_drawn_pictures() -> None:
    truths, seen = random_pictures(12, 8)
    labels = ("person", "car", "bus")
    weights = draws(range(12), rounds=5, seed=3)
    values = scoring.mean_ap(match(truths, seen, labels), weights)
    for row, value in zip(weights.astype(int), values, strict=True):
        drawn = [picture for picture, times in enumerate(row) for _ in range(times)]
        again = match([truths[n] for n in drawn], [seen[n] for n in drawn], labels)
        assert float(scoring.mean_ap(again, unit_weights(again))[0]) == pytest.approx(
            float(value), abs=1e-6
        )


def test_choosing_from_two_matches_equals_matching_the_chosen_detections() -> None:
    truths, first = random_pictures(10, 8)
    _, second = random_pictures(10, 8, seed=1)
    use = np.arange(10) % 3 == 0
    mixed = [b if chosen else a for a, b, chosen in zip(first, second, use, strict=True)]
    labels = ("person", "car", "bus")
    chosen = scoring.choose(match(truths, first, labels), match(truths, second, labels), use)
    assert ap50(chosen) == pytest.approx(ap50(match(truths, mixed, labels)))


def test_joined_sets_equal_one_set() -> None:
    truths, seen = random_pictures(10, 8)
    labels = ("person", "car", "bus")
    parts = [match(truths[:4], seen[:4], labels), match(truths[4:], seen[4:], labels)]
    assert ap50(scoring.join(parts)) == pytest.approx(ap50(match(truths, seen, labels)))


def test_pictures_of_one_sequence_are_drawn_together() -> None:
    weights = draws(["a", "a", "b", "c"], rounds=50)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[1:, 1:].sum(1) == 3).all()


def test_an_interval_holds_the_middle_95_percent_of_the_draws() -> None:
    values = np.concatenate([[5.0], np.arange(1001) / 100])
    assert estimate(values) == Estimate(5.0, pytest.approx(0.25), pytest.approx(9.75))


@pytest.mark.parametrize(
    ("difference", "groups", "expected"),
    [
        (Estimate(2, 1, 3), 50, HELPS),
        (Estimate(-2, -3, -1), 50, HURTS),
        (Estimate(2, -1, 5), 50, CANNOT_TELL),
        (Estimate(0, 0, 0), 50, CANNOT_TELL),
        (Estimate(2, 1, 3), 3, CANNOT_TELL),
        (Estimate(float("nan"), float("nan"), float("nan")), 50, CANNOT_TELL),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    difference: Estimate, groups: int, expected: str
) -> None:
    assert verdict(difference, groups=groups) == expected


def test_the_interval_of_a_paired_difference_is_narrower_than_that_of_a_score() -> None:
    truths, seen = random_pictures(40, 8)
    labels = ("person", "car", "bus")
    worse = [one.above(0.05) for one in seen]
    weights = draws(range(40), rounds=200)
    ours, theirs = (scoring.mean_ap(match(truths, s, labels), weights) for s in (seen, worse))
    alone, paired = estimate(ours), estimate(ours - theirs)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


@pytest.mark.slow
def test_scoring_a_thousand_pictures_takes_less_than_ten_seconds() -> None:
    """Measured in processor time, so that other load does not count."""
    truths, seen = random_pictures(1000, 10)
    labels = ("person", "car", "bus")
    began = time.process_time()
    matches = match(truths, seen, labels)
    weights = draws(range(1000), rounds=1000)
    scoring.mean_ap(matches, weights)
    scoring.mean_ap(matches, weights, iou=0.5)
    assert time.process_time() - began < 10
