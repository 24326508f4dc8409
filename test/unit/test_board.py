"""The board: each mark measures what its name says, and the verdict follows from the marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from rain_removal_ros.data.rain import render_frames
from rain_removal_ros.detection.boxes import Detections, Truths, as_boxes
from rain_removal_ros.engines import Derained
from rain_removal_ros.evaluation import board
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board import (
    QUICK,
    Setup,
    camera,
    clips,
    detections,
    marks,
    rains,
    rules,
    strokes,
    timing,
)  # fmt: skip
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.evaluation.board.rules import RULES, Rule
from rain_removal_ros.frames import Image

Change = Callable[[Image], Image]


class Model:
    """Applies ``change`` to its state, or to the first frame; the result is also the new state."""

    scale = 1
    recurrent = True

    def __init__(self, change: Change) -> None:
        self.change = change

    def derain(self, image: Image, state: Any = None, *, attention: bool = False) -> Derained:
        before = image if state is None else state
        return Derained(made := self.change(before), None, None, made)


def model(change: Change) -> Runner:
    return cast(Runner, Model(change))


def street(seed: int = 0, height: int = 120, width: int = 160) -> Image:
    coarse = np.random.default_rng(seed).random((6, 8, 3)).astype(np.float32)
    return (cv2.resize(coarse, (width, height)) * 120 + 20).astype(np.uint8)


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


@pytest.fixture
def dry(tmp_path: Path) -> Path:
    """A folder with dry pictures for the strokes and the still camera."""
    for number in range(3):
        write(tmp_path / f"roadscene/test/target/{number}.jpg", street(number))
        write(tmp_path / f"rain100l/test/norain-{number}.png", street(10 + number))
        write(tmp_path / f"detection/pennfudan/images/{number}.png", street(20 + number))
    for name in (*camera.SCENES, camera.PALEST):
        write(tmp_path / name, street(len(name)))
    return tmp_path


def found(marks: Any) -> dict[str, Mark]:
    return {mark.name: mark for mark in marks}


def test_a_model_that_does_nothing_leaves_all_light_of_the_strokes(dry: Path) -> None:
    measured = found(strokes.strokes_part(model(lambda image: image), Setup(data=dry)))
    for name in strokes.FIELDS:
        assert measured[f"strokes/{name}"].value == pytest.approx(1)
    assert measured["strokes/invented"].value == 0


def test_a_model_that_halves_the_strokes_leaves_half_their_light() -> None:
    plain = strokes.Strokes(count=3)
    image = street()
    rainy, mask = strokes.drawn(image, plain, "a street")
    half = image + (rainy.astype(np.float64) - image) / 2
    left, light = strokes._left(model(lambda _: half.astype(np.uint8)), image, plain, "a street")
    assert left / light == pytest.approx(0.5, abs=0.02)
    # 2 x 40 pixels each, at 0.7 of the way to white.
    assert 200 < mask.sum() < 3 * 140


def test_what_a_model_only_removes_with_state_is_seen_in_the_stream() -> None:
    grey = np.full((120, 160, 3), 90, np.uint8)

    class Late(Model):
        """Sees strokes from the second frame on."""

        def derain(self, image: Image, state: Any = None, *, attention: bool = False) -> Derained:
            made = image if state is None else np.minimum(image, 90)
            return Derained(made, None, None, made)

    late = cast(Runner, Late(lambda image: image))
    three = strokes.FIELDS["count_3"]
    left, light = strokes._left_in_stream(late, grey, three, "a wall")
    assert light > 0
    assert left == pytest.approx(0, abs=1e-9)
    alone, _ = strokes._left(late, grey, three, "a wall")
    assert alone > 0


def test_a_change_of_dry_pictures_counts_as_invented(dry: Path) -> None:
    def smeared(image: Image) -> Image:
        made = image.copy()
        made[:30] += 10
        return made

    measured = found(strokes.strokes_part(model(smeared), Setup(data=dry, extent=QUICK)))
    # A quarter of the rows changed, by more than the 5 levels that are visible.
    assert measured["strokes/invented"].value == pytest.approx(0.25)


def test_the_still_camera_shows_that_a_model_fades_the_picture(dry: Path) -> None:
    stays = found(camera.still_part(model(lambda image: image), Setup(data=dry, extent=QUICK)))
    fades = found(
        camera.still_part(
            model(lambda image: (image * 0.99).astype(np.uint8)), Setup(data=dry, extent=QUICK)
        )
    )
    assert stays["still/lost_60"].value == 0
    assert fades["still/60"].value < fades["still/first"].value - 10
    assert fades["still/lost_60"].value < -10


def clip(reference: list[Image], rainy: list[Image]) -> clips.Clip:
    return clips.Clip("a clip", rainy, reference)


def test_the_worth_of_state_is_the_gain_over_a_fresh_start() -> None:
    """With state this model returns the first frame, without state the current one."""
    reference = [street(1, 48, 64)] * 150
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)
        for image in reference
    ]
    noisy[0] = reference[0].copy()
    trace = clips._trace(model(lambda image: image), clip(reference, noisy))
    assert set(trace["state"]) == {
        f"a clip {number}" for number in (10, 20, 100, 110, 120, 130, 140)
    }
    assert min(trace["gain"].values()) > 30
    assert trace["state"] == pytest.approx(trace["gain"])
    assert max(trace["flicker"].values()) == 0


def test_a_moving_dry_scene_shows_that_a_model_repeats_old_frames() -> None:
    still = [street(1, 48, 64)] * 20
    moving = [np.roll(street(1, 48, 64), 3 * index, axis=1) for index in range(20)]
    holds_on = model(lambda image: image)
    assert set(clips._likeness(holds_on, clip(still, still), 20)["a clip 10"]) == {60.0}
    likeness = clips._likeness(holds_on, clip(moving, moving), 20)
    assert likeness["a clip 0"][0] == 60
    assert max(likeness["a clip 10"]) < 30


def test_the_loss_of_state_is_its_early_worth_minus_its_late_worth() -> None:
    worth = {f"a clip {number}": 2.0 for number in (10, 20)}
    worth |= {f"a clip {number}": 0.5 for number in range(100, 150, 10)}
    assert clips._lost(worth, "a clip") == pytest.approx(1.5)


class BrightSquares:
    """A detector that finds bright squares."""

    name, fingerprint, sure = "squares", "squares 1", 0.3
    labels: tuple[str, ...] = ("person",)

    def detect(self, image: Image) -> Detections:
        found = (image[..., 1] > 200).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(found)
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area > 60]
        return Detections(("person",) * len(boxes), np.full(len(boxes), 0.9), as_boxes(boxes))


def test_a_model_that_returns_the_reference_recovers_everything(tmp_path: Path) -> None:
    stems = tuple(name.removeprefix("pennfudan ") for name in rains.names("pennfudan ")[:6])
    references, truths = [], []
    for number in range(len(stems)):
        image = np.full((120, 160, 3), 90, np.uint8)
        left = 20 + 15 * number
        image[30:70, left : left + 30] = 255
        references.append(image)
        truths.append(Truths(("person",), as_boxes([(left, 30, left + 30, 70)]), np.zeros(1, bool)))
    shown = detections.Labelled("pennfudan", stems, references, truths, "squares")
    setup = Setup(data=tmp_path, cache=tmp_path / "cache")
    # Rain darkens the squares and brightens what is around them.
    nothing = found(
        detections.seen_through(model(lambda image: image), shown, BrightSquares(), setup)
    )
    asked: list[Image] = []

    def knowing(image: Image) -> Image:
        asked.append(image)
        return references[(len(asked) - 1) % len(references)]

    all_known = found(detections.seen_through(model(knowing), shown, BrightSquares(), setup))
    assert nothing["pennfudan/won_1"].value == 0
    assert all_known["pennfudan/won_1"].value == pytest.approx(1)
    assert nothing["pennfudan/clear"].value == all_known["pennfudan/clear"].value == 0


def test_the_rain_of_the_board_has_not_changed() -> None:
    """Figures of different weeks compare only as long as this holds."""
    grey = np.full((1, 240, 320, 3), 90, np.uint8)
    names = [*rains.names("highway"), *rains.names("drive"), rains.names("carla")[0]]
    for name in names:
        rainy = render_frames(grey, rains.rain(name), first=5)[0].astype(np.float64)
        assert [rainy.mean(), rainy.std()] == pytest.approx(list(RAIN[name]), rel=0.02), name


def test_lighter_rain_has_the_same_seed_and_fewer_drops() -> None:
    name = rains.names("pennfudan")[0]
    heavy, light = rains.rain(name), rains.rain(name, 0.3)
    assert heavy.seed == light.seed
    assert light.layers[0].density == pytest.approx(0.3 * heavy.layers[0].density)
    assert light.veil.thickness < heavy.veil.thickness


def test_speed_is_measured_in_turns_and_compared_with_the_shipped_model() -> None:
    shipped, candidate = timing.by_turns([lambda: 20.0, lambda: 30.0], lambda: 3000.0)
    assert {mark.name: mark.value for mark in candidate} == {
        "speed/ms": 30.0,
        "speed/times_prenet": 100.0,
        "speed/of_shipped": 1.5,
    }
    assert [mark.value for mark in shipped] == [20.0, 150.0, 1.0]


def mark(name: str, values: list[float]) -> Mark:
    return marks.mean(name, {str(index): value for index, value in enumerate(values)})


def verdict(rule: Rule, candidate: list[float], shipped: list[float]) -> str:
    measured = [{rule.mark: mark(rule.mark, values)} for values in (candidate, shipped)]
    (reading,) = rules.read(*measured)
    return reading.verdict


def rule(name: str) -> Rule:
    return next(rule for rule in RULES if rule.mark == name)


SHIPPED = [30.0, 31.0, 28.0, 35.0, 33.0, 29.0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ([0.5] * 6, rules.BETTER),
        ([-0.5] * 6, rules.WORSE),
        ([2.0, -2.0, 1.0, -1.0, 0.5, -0.5], rules.SAME),
        ([-0.05] * 6, rules.SAME),  # a sure loss, but within tolerance
    ],
)
def test_a_mark_is_better_or_worse_only_if_the_change_is_sure(
    change: list[float], expected: str
) -> None:
    candidate = [a + b for a, b in zip(SHIPPED, change, strict=True)]
    assert verdict(rule("rain100l/psnr_y"), candidate, SHIPPED) == expected


def test_less_remaining_light_is_better() -> None:
    assert verdict(rule("strokes/count_3"), [0.2] * 6, [0.8] * 6) == rules.BETTER
    assert verdict(rule("strokes/count_3"), [0.8] * 6, [0.2] * 6) == rules.WORSE


def test_a_lower_mark_is_not_worse_while_it_meets_its_goal() -> None:
    clean = rule("clean/psnr_y")
    assert clean.goal == 50
    assert verdict(clean, [52.0] * 6, [58.0] * 6) == rules.SAME
    assert verdict(clean, [48.0] * 6, [58.0] * 6) == rules.WORSE


def test_one_worse_mark_keeps_a_candidate_from_shipping() -> None:
    shipped = {name: mark(name, SHIPPED) for name in ("rain800/psnr_y", "rain100l/psnr_y")}
    better = {name: mark(name, [value + 1 for value in SHIPPED]) for name in shipped}
    assert rules.judge(rules.read(better, shipped)).ships
    mixed = {**better, "rain800/psnr_y": mark("", [value - 1 for value in SHIPPED])}
    judged = rules.judge(rules.read(mixed, shipped))
    assert not judged.ships
    assert judged.reasons[0] == "surely worse: rain800 test, PSNR-Y"


def test_a_partly_measured_candidate_never_ships() -> None:
    shipped = {"rain100l/psnr_y": mark("", SHIPPED)}
    better = {"rain100l/psnr_y": mark("", [value + 1 for value in SHIPPED])}
    judged = rules.judge(rules.read(better, shipped), complete=False)
    assert not judged.ships
    assert judged.reasons == ("surely better: rain100l test, PSNR-Y",)


def test_a_mark_below_its_floor_keeps_even_the_shipped_model_from_shipping() -> None:
    worse = {"rain800/gain": mark("", [-1.0, -1.1, -0.9, -1.0, -1.2])}
    judged = rules.judge(rules.read(worse, worse))
    assert judged.reasons == ("below its floor: rain800 test, gain",)


def test_models_are_compared_on_the_pictures_measured_for_both() -> None:
    whole = marks.mean("a", {"1": 1.0, "2": 2.0, "3": 30.0, "4": 2.0})
    part = marks.mean("a", {"2": 5.0, "4": 6.0})
    assert marks.difference(part, whole).value == pytest.approx(3.5)


def test_comments_and_docstrings_do_not_invalidate_stored_figures(tmp_path: Path) -> None:
    def written(text: str) -> str:
        (tmp_path / "code.py").write_text(text)
        return board._meaning(tmp_path / "code.py")

    plain = written('"""One."""\nSIZE = 3\n\n\ndef area() -> int:\n    return SIZE\n')
    told = written('"""Two."""\nSIZE = 3  # wide\n"""In pixels."""\n\n\n'
                   'def area() -> int:\n    """Of it."""\n    return SIZE\n')  # fmt: skip
    changed = written('"""One."""\nSIZE = 4\n\n\ndef area() -> int:\n    return SIZE\n')
    assert plain == told
    assert plain != changed


def test_every_mark_has_one_rule() -> None:
    names = [rule.mark for rule in RULES]
    assert len(names) == len(set(names))


def test_the_strokes_of_the_board_have_not_changed() -> None:
    """Figures of different weeks compare only as long as this holds."""
    grey = np.full((240, 320, 3), 90, np.uint8)
    light = {
        name: float((strokes.drawn(grey, field, "fixed")[0].astype(np.float64) - 90).sum()) / 1000
        for name, field in strokes.FIELDS.items()
    }
    assert light == pytest.approx(LIGHT, rel=2e-3)


LIGHT = {
    "count_3": 83.4,
    "count_8": 219.7,
    "count_20": 553.0,
    "count_120": 3192.9,
    "width_5": 1364.0,
    "width_8": 2127.7,
    "width_12": 3070.6,
    "length_4": 55.5,
    "length_10": 138.9,
    "length_20": 277.8,
    "length_100": 1372.2,
    "angle_0": 552.3,
    "angle_30": 554.8,
    "angle_50": 555.4,
    "angle_60": 555.5,
    "angle_75": 549.3,
    "opacity_0.3": 237.6,
    "opacity_0.5": 392.9,
    "opacity_1.0": 788.2,
    "blurred_3": 88.4,
    "blurred_20": 585.1,
    "blurred_width_5": 1423.0,
}
"""Grey levels that each field adds to a grey picture, in thousands."""

RAIN = {
    "highway 0": (95.67, 14.24),
    "highway 1": (122.46, 21.24),
    "highway 2": (115.03, 17.77),
    "drive 0": (96.60, 15.31),
    "drive 1": (101.56, 10.64),
    "drive 2": (93.74, 11.82),
    "carla Town05_001980": (178.17, 8.66),
}
"""Mean and standard deviation of a grey picture under some of the board's rain."""
