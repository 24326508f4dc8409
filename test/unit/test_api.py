"""The Python interface: what ``rain_removal_ros`` exports, and how a ``Derainer`` behaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest

import rain_removal_ros
from rain_removal_ros import engines
from rain_removal_ros.api import Derainer
from rain_removal_ros.engines import Derained, EngineInfo
from rain_removal_ros.errors import EngineError, FrameError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.settings import EngineSettings, NetworkSettings, StreamSettings
from rain_removal_ros.stream import Stream

SECOND = 1_000_000_000


class CountingEngine:
    """An engine that counts images in its state and darkens each image by the count."""

    info = EngineInfo("counting", "counting", "counting", "counting", recurrent=True)

    def __init__(self, level: float | None = None) -> None:
        self.level = level
        self.broken = False

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        if self.broken:
            raise EngineError("broken")
        results = []
        for image, state in zip(images, states, strict=True):
            seen = (state or 0) + 1
            map_ = np.full(image.shape[:2], seen, np.uint8)
            results.append(Derained(image - np.uint8(seen), map_, self.level, seen))
        return results


@pytest.fixture
def image() -> Image:
    """A picture so smooth that moving it is not taken for a scene cut."""
    coarse = np.random.default_rng(0).integers(60, 200, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC), np.uint8)


def test_importing_the_package_does_not_import_heavy_libraries() -> None:
    code = (
        "import sys, rain_removal_ros; dir(rain_removal_ros); "
        "print({'torch', 'cv2', 'numpy', 'rclpy'} & set(sys.modules) or 'nothing')"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "nothing\n"


def test_exactly_the_stable_names_are_exported() -> None:
    assert rain_removal_ros.__all__ == ["Derainer", "RainRemovalError", "load"]
    assert all(getattr(rain_removal_ros, name) for name in rain_removal_ros.__all__)
    assert set(rain_removal_ros.__all__) <= set(dir(rain_removal_ros))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = rain_removal_ros.lod  # type: ignore[attr-defined]


def test_a_loaded_network_returns_the_same_frames_as_a_stream(image: Image) -> None:
    derain = rain_removal_ros.load("rainstream_s", device="cpu", settings={"engine.threads": 1})
    engine = EngineSettings(device="cpu", threads=1)
    stream = Stream(engines.load(NetworkSettings(name="rainstream_s"), engine))
    for index in range(3):
        moved = np.roll(image, index, axis=1)
        derained = derain(moved)
        step = stream.step(Frame(moved))
        assert (derained == step.frame.image).all()
        assert derain.attention is not None
        assert step.attention is not None
        assert (derain.attention == step.attention).all()
        assert derain.rain_level == step.rain_level
        assert derain.restarted == step.reset


def test_a_reversed_view_of_a_bgr_image_is_accepted(image: Image) -> None:
    rgb, bgr = Derainer(CountingEngine()), np.ascontiguousarray(image[..., ::-1])
    assert (rgb(bgr[..., ::-1]) == image - 1).all()


def test_the_input_image_is_not_changed(image: Image) -> None:
    before = image.copy()
    derained = Derainer(CountingEngine())(image)
    assert (image == before).all()
    assert not np.shares_memory(image, derained)


def test_state_is_carried_until_it_is_reset(image: Image) -> None:
    derain = Derainer(CountingEngine())
    assert [int((image - derain(image)).max()) for _ in range(3)] == [1, 2, 3]
    assert derain.restarted is None
    derain.reset()
    assert derain.attention is None
    assert derain.rain_level is None
    assert int((image - derain(image)).max()) == 1
    assert derain.restarted == "asked to"


def test_a_gap_between_stamps_restarts_the_stream(image: Image) -> None:
    derain = Derainer(CountingEngine(), StreamSettings(max_gap_s=0.5))
    derain(image, stamp_ns=0)
    derain(image, stamp_ns=SECOND // 10)
    assert derain.restarted is None
    derain(image, stamp_ns=2 * SECOND)
    assert derain.restarted == "gap"


def test_attention_and_rain_level_are_those_of_the_last_image(image: Image) -> None:
    derain = Derainer(CountingEngine(level=0.7))
    assert (derain.attention, derain.rain_level) == (None, None)
    derain(image)
    derain(image)
    assert derain.attention is not None
    assert (derain.attention == 2).all()
    assert derain.rain_level == 0.7


def test_the_rain_level_is_measured_if_the_network_does_not_estimate_it(image: Image) -> None:
    derain = Derainer(CountingEngine())
    for _ in range(4):
        derain(image)
    dry = derain.rain_level
    rng, rain = np.random.default_rng(1), image.copy()
    for x, y in zip(rng.integers(0, 64, 60), rng.integers(0, 40, 60), strict=True):
        rain[y : y + 8, x] = 255
    derain(rain)
    assert dry is not None
    assert derain.rain_level is not None
    assert derain.rain_level > dry + 0.05


def test_a_failed_image_clears_attention_and_rain_level(image: Image) -> None:
    engine = CountingEngine()
    derain = Derainer(engine)
    derain(image)
    engine.broken = True
    with pytest.raises(EngineError):
        derain(image)
    assert derain.attention is None
    assert derain.rain_level is None
    engine.broken = False
    derain(image)
    assert derain.restarted == "fault"


def test_a_fork_has_its_own_state_and_the_same_settings(image: Image) -> None:
    front = Derainer(CountingEngine(), StreamSettings(strength=0.0))
    front(image)
    rear = front.fork()
    assert rear.attention is None
    rear(image)
    assert rear.restarted == "start"
    front(image)
    assert front.restarted is None
    assert (rear(image) == image).all(), "strength 0 leaves images as they are"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((8, 8), np.uint8), "height x width x 3"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((0, 8, 3), np.uint8), "at least one pixel"),
    ],
)
def test_an_invalid_image_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(FrameError, match=said):
        Derainer(CountingEngine())(wrong)


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("rainstreem", {}, "rainstream"),
        ("auto", {"stream.strenght": 1.0}, "stream.strength"),
        ("auto", {"bypass.mode": "auto"}, "unknown setting 'bypass.mode'"),
        ("auto", {"engine.device": "cpu"}, "its argument device"),
        ("auto", {"network.name": "rranet"}, "its argument model"),
        ("auto", {"stream.strength": 2.0}, "0 to 1"),
    ],
)
def test_a_wrong_argument_gives_a_one_line_error(
    model: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(rain_removal_ros.RainRemovalError, match=said) as caught:
        rain_removal_ros.load(model, settings=given)
    assert "\n" not in str(caught.value)
