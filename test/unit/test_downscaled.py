"""A reduced engine sees less and returns as much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rain_removal_ros.engines import Cleaned
from rain_removal_ros.engines.downscaled import ReducedEngine
from rain_removal_ros.frames import Image
from rain_removal_ros.networks._cautions import Cautions

IMAGE = np.random.default_rng(0).integers(40, 200, (31, 47, 3), np.uint8)


class Brighter:
    """An engine that adds to a picture, and to the state the size of what it saw."""

    network_name = name = device = precision = "none"
    recurrent = True
    cautions = Cautions()
    stages = 3

    def __init__(self, *, scale: int = 1, by: int = 0) -> None:
        self.scale, self._by = scale, by

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Cleaned]:
        return [
            Cleaned(
                (image + np.uint8(self._by)).repeat(self.scale, 0).repeat(self.scale, 1),
                np.full(image.shape[:2], 9, np.uint8) if attention else None,
                0.25,
                image.shape[:2],
            )
            for image in images
        ]


@pytest.mark.parametrize("factor", [2, 4])
def test_the_correction_is_enlarged_and_not_the_picture(factor: int) -> None:
    (result,) = ReducedEngine(Brighter(by=20), factor).step([IMAGE], [None])
    assert np.array_equal(result.image, IMAGE + np.uint8(20))
    assert result.state == (31 // factor, 47 // factor)
    assert result.attention is not None
    assert result.attention.shape == IMAGE.shape[:2]


def test_what_is_given_to_write_to_is_written_to() -> None:
    target = np.empty_like(IMAGE)
    (result,) = ReducedEngine(Brighter(), 2).step([IMAGE], [None], attention=False, into=[target])
    assert result.image is target
    assert np.array_equal(target, IMAGE)
    assert result.attention is None


def test_an_enlarging_network_enlarges_as_much() -> None:
    (result,) = ReducedEngine(Brighter(scale=2), 2).step([IMAGE], [None])
    assert result.image.shape == (62, 94, 3)


def test_a_picture_of_one_pixel_stays_one() -> None:
    (result,) = ReducedEngine(Brighter(by=1), 4).step([IMAGE[:1, :1]], [None])
    assert np.array_equal(result.image, IMAGE[:1, :1] + np.uint8(1))


def test_stages_are_those_of_the_engine_within() -> None:
    inner = Brighter()
    reduced = ReducedEngine(inner, 2)
    reduced.stages = 1
    assert (inner.stages, reduced.stages) == (1, 1)
