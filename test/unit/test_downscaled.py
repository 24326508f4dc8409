"""A downscaled engine shows its network a smaller picture, and returns one of full size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rain_removal_ros.engines import Derained, EngineInfo
from rain_removal_ros.engines.downscaled import DownscaledEngine
from rain_removal_ros.frames import Image

IMAGE = np.random.default_rng(0).integers(40, 200, (31, 47, 3), np.uint8)


class BrighteningEngine:
    """An engine that adds ``by`` to a picture; its state is the size of that picture."""

    def __init__(self, *, scale: int = 1, by: int = 0) -> None:
        self.info = EngineInfo("none", "none", "cpu", "uint8", scale=scale, recurrent=True)
        self._by = by
        self.stages = 0

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        self.stages = stages
        return [
            Derained(
                (image + np.uint8(self._by)).repeat(self.info.scale, 0).repeat(self.info.scale, 1),
                np.full(image.shape[:2], 9, np.uint8) if attention else None,
                0.25,
                image.shape[:2],
            )
            for image in images
        ]


@pytest.mark.parametrize("factor", [2, 4])
def test_the_correction_is_upscaled_and_not_the_picture(factor: int) -> None:
    (result,) = DownscaledEngine(BrighteningEngine(by=20), factor).step([IMAGE], [None])
    assert np.array_equal(result.image, IMAGE + np.uint8(20))
    assert result.state == (31 // factor, 47 // factor)
    assert result.attention is not None
    assert result.attention.shape == IMAGE.shape[:2]


def test_the_result_is_written_into_a_given_array() -> None:
    target = np.empty_like(IMAGE)
    (result,) = DownscaledEngine(BrighteningEngine(), 2).step(
        [IMAGE], [None], attention=False, into=[target]
    )
    assert result.image is target
    assert np.array_equal(target, IMAGE)
    assert result.attention is None


def test_the_output_keeps_the_scale_of_the_network() -> None:
    (result,) = DownscaledEngine(BrighteningEngine(scale=2), 2).step([IMAGE], [None])
    assert result.image.shape == (62, 94, 3)


def test_a_picture_of_one_pixel_is_processed() -> None:
    (result,) = DownscaledEngine(BrighteningEngine(by=1), 4).step([IMAGE[:1, :1]], [None])
    assert np.array_equal(result.image, IMAGE[:1, :1] + np.uint8(1))


def test_stages_and_info_are_those_of_the_wrapped_engine() -> None:
    inner = BrighteningEngine()
    downscaled = DownscaledEngine(inner, 2)
    downscaled.step([IMAGE], [None], stages=5)
    assert inner.stages == 5
    assert downscaled.info is inner.info
