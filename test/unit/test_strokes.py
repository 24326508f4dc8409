"""Strokes that networks are measured with have the given number, size and brightness."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rain_removal_ros.data.strokes import draw_strokes
from rain_removal_ros.errors import DataError

_GREY = np.full((120, 160, 3), 80, np.uint8)


def test_strokes_have_the_given_number_size_and_brightness() -> None:
    image, mask = draw_strokes(_GREY, 3, width=2, length=40, opacity=0.7, seed=4)
    count, _ = cv2.connectedComponents((mask > 0.05).astype(np.uint8))
    assert count - 1 == 3
    assert float(mask.max()) == pytest.approx(0.7, abs=1e-6)
    assert float(mask.sum()) == pytest.approx(3 * 2 * 40 * 0.7, rel=0.05)
    assert int(image.max()) == round(80 + 0.7 * 175)
    assert np.array_equal(image[mask == 0], _GREY[mask == 0])


@pytest.mark.parametrize("width", [0.5, 1, 2, 5, 8, 12])
@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_light_grows_with_width(width: float, profile: str) -> None:
    mask = draw_strokes(_GREY, 1, width=width, angle=25, opacity=1, profile=profile).mask
    expected = 40 * width * (1 if profile == "box" else 1.0645)  # width at half height
    assert float(mask.sum()) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("angle", [-60, 0, 10, 50, 75])
def test_strokes_have_the_given_angle(angle: float) -> None:
    mask = draw_strokes(_GREY, 1, angle=angle).mask
    rows, columns = np.nonzero(mask > 0.3)
    (x, y), *_ = np.linalg.svd(np.stack([columns, rows], 1) - [columns.mean(), rows.mean()])[2]
    assert np.degrees(np.arctan(x / y)) == pytest.approx(angle, abs=2)


def test_a_larger_count_adds_strokes_to_those_of_a_smaller_one() -> None:
    few, many = (draw_strokes(_GREY, count, seed=2).mask for count in (3, 20))
    assert np.all(many >= few)
    assert many.sum() > 4 * few.sum()
    assert not np.array_equal(few, draw_strokes(_GREY, 3, seed=3).mask)


def test_strokes_stay_within_the_given_columns() -> None:
    mask = draw_strokes(_GREY, 40, columns=(0.0, 0.5)).mask
    assert mask[:, 80:].max() == 0
    assert mask[:, :80].max() > 0


def test_no_strokes_change_nothing_and_overlong_strokes_are_drawn() -> None:
    assert np.array_equal(draw_strokes(_GREY, 0).image, _GREY)
    assert draw_strokes(_GREY, 5, length=400).mask.max() > 0


def test_impossible_strokes_are_refused() -> None:
    with pytest.raises(DataError, match="strokes need"):
        draw_strokes(_GREY, 1, width=0)
    with pytest.raises(DataError, match="box or gaussian"):
        draw_strokes(_GREY, 1, profile="round")
