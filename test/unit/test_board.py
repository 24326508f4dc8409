"""The board: figures that mean what they are called, and a verdict that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from rain_removal_ros.engines import Cleaned
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation.board import FULL, QUICK, camera, marks, rules, strokes
from rain_removal_ros.evaluation.board.marks import Mark
from rain_removal_ros.evaluation.board.rules import RULES, Rule
from rain_removal_ros.frames import Image

Change = Callable[[Image], Image]


class Model:
    """Changes every frame in one way, and once more for each frame that it has carried state."""

    scale = 1

    def __init__(self, change: Change) -> None:
        self.change = change

    def clean(self, image: Image, state: Any = None, *, attention: bool = False) -> Cleaned:
        before = image if state is None else state
        return Cleaned(made := self.change(before), None, None, made)


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
    """A folder of the dry pictures that the stroke board and the still camera look at."""
    for number in range(3):
        write(tmp_path / f"roadscene/test/target/{number}.jpg", street(number))
        write(tmp_path / f"rain100l/test/norain-{number}.png", street(10 + number))
        write(tmp_path / f"detection/pennfudan/images/{number}.png", street(20 + number))
    for name in (*camera.SCENES, camera.PALEST):
        write(tmp_path / name, street(len(name)))
    return tmp_path


def found(marks: Any) -> dict[str, Mark]:
    return {mark.name: mark for mark in marks}


def test_all_light_of_strokes_is_left_by_a_model_that_does_nothing(dry: Path) -> None:
    measured = found(strokes.strokes_part(model(lambda image: image), dry, FULL))
    for name in strokes.FIELDS:
        assert measured[f"strokes/{name}"].value == pytest.approx(1)
    assert measured["strokes/invented"].value == 0


def test_half_the_light_of_strokes_is_left_by_a_model_that_takes_half() -> None:
    plain = strokes.Strokes(count=3)
    image = street()
    rainy, mask = strokes.drawn(image, plain, "a street")
    half = image + (rainy.astype(np.float64) - image) / 2
    left, light = strokes._left(model(lambda _: half.astype(np.uint8)), image, plain, "a street")
    assert left / light == pytest.approx(0.5, abs=0.02)
    # 2 x 40 pixels each, at 0.7 of the way to white.
    assert 200 < mask.sum() < 3 * 140


def test_what_a_model_adds_to_dry_pictures_is_invented(dry: Path) -> None:
    def smeared(image: Image) -> Image:
        made = image.copy()
        made[:30] += 10
        return made

    measured = found(strokes.strokes_part(model(smeared), dry, QUICK))
    # A quarter of the rows, by more than the 5 levels that can be seen.
    assert measured["strokes/invented"].value == pytest.approx(0.25)


def test_a_still_camera_tells_a_picture_that_fades_from_one_that_stays(dry: Path) -> None:
    stays = found(camera.still_part(model(lambda image: image), dry, QUICK))
    fades = found(
        camera.still_part(model(lambda image: (image * 0.99).astype(np.uint8)), dry, QUICK)
    )
    assert stays["still/lost_60"].value == 0
    assert fades["still/60"].value < fades["still/first"].value - 10
    assert fades["still/lost_60"].value < -10


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
        ([-0.05] * 6, rules.SAME),  # sure, but less than what may be lost
    ],
)
def test_a_mark_changes_surely_or_not(change: list[float], expected: str) -> None:
    candidate = [a + b for a, b in zip(SHIPPED, change, strict=True)]
    assert verdict(rule("rain100l/psnr_y"), candidate, SHIPPED) == expected


def test_less_light_left_is_better() -> None:
    assert verdict(rule("strokes/count_3"), [0.2] * 6, [0.8] * 6) == rules.BETTER
    assert verdict(rule("strokes/count_3"), [0.8] * 6, [0.2] * 6) == rules.WORSE


def test_a_loss_is_none_while_what_is_aimed_at_is_met() -> None:
    clean = rule("clean/psnr_y")
    assert clean.goal == 50
    assert verdict(clean, [52.0] * 6, [58.0] * 6) == rules.SAME
    assert verdict(clean, [48.0] * 6, [58.0] * 6) == rules.WORSE


def test_what_is_worse_is_not_shipped_however_much_else_is_better() -> None:
    shipped = {name: mark(name, SHIPPED) for name in ("rain800/psnr_y", "rain100l/psnr_y")}
    better = {name: mark(name, [value + 1 for value in SHIPPED]) for name in shipped}
    assert rules.judge(rules.read(better, shipped)).ships
    mixed = {**better, "rain800/psnr_y": mark("", [value - 1 for value in SHIPPED])}
    judged = rules.judge(rules.read(mixed, shipped))
    assert not judged.ships
    assert judged.reasons[0] == "surely worse: rain800 test, PSNR-Y"


def test_harm_is_not_shipped_though_it_was_shipped_before() -> None:
    worse = {"rain800/gain": mark("", [-1.0, -1.1, -0.9, -1.0, -1.2])}
    judged = rules.judge(rules.read(worse, worse))
    assert judged.reasons == ("below its floor: rain800 test, gain",)


def test_models_are_compared_on_what_both_were_measured_on() -> None:
    whole = marks.mean("a", {"1": 1.0, "2": 2.0, "3": 30.0, "4": 2.0})
    part = marks.mean("a", {"2": 5.0, "4": 6.0})
    assert marks.difference(part, whole).value == pytest.approx(3.5)


def test_every_mark_has_one_rule() -> None:
    names = [rule.mark for rule in RULES]
    assert len(names) == len(set(names))


def test_strokes_are_drawn_as_when_the_board_was_made() -> None:
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
