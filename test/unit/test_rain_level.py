"""The rain gauge tells rain from clear weather in a few frames, even of a moving scene."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rain_removal_ros.data import rain
from rain_removal_ros.rain_level import RainGauge
from rain_removal_ros.settings import BypassSettings


def scene(frames: int = 4, *, height: int = 240, width: int = 320) -> np.ndarray:
    """A textured scene that moves to the left and a little down."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(height + 20, width + 80)).astype(np.float32)
    octaves = [size * cv2.GaussianBlur(noise, (0, 0), size) for size in (2, 4, 8)]
    whole = (128 + 40 * sum(octaves)).clip(0, 255).astype(np.uint8)
    views = [whole[2 * t : 2 * t + height, 5 * t : 5 * t + width] for t in range(frames)]
    return np.stack(views)[..., None].repeat(3, axis=-1)


def measured_level(clip: np.ndarray) -> float:
    gauge = RainGauge()
    return [gauge.update(frame) for frame in clip][-1]


def in_rain(clip: np.ndarray, severity: float, seed: int, style: str = "shower") -> np.ndarray:
    fallen = rain.sample(np.random.default_rng(seed), severity=severity, style=style)
    assert not fallen.clear
    return rain.render_frames(clip, fallen)


def test_motion_in_clear_weather_is_not_taken_for_rain() -> None:
    assert measured_level(scene()) < BypassSettings().off_below


@pytest.mark.parametrize("style", ["sparse", "crossed", "grain", "heavy", "shower"])
def test_rain_is_measured_in_moving_scenes(style: str) -> None:
    assert measured_level(in_rain(scene(), 0.6, 1, style)) > BypassSettings().on_above


def test_levels_of_noise_and_of_empty_frames_lie_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    for clip in (
        rng.integers(0, 256, (3, 60, 80, 3), np.uint8),
        np.zeros((3, 60, 80, 3), np.uint8),
        np.full((3, 1, 1, 3), 255, np.uint8),
    ):
        assert 0 <= measured_level(clip) <= 1


def test_another_size_or_a_reset_starts_the_gauge_afresh() -> None:
    gauge, fresh = RainGauge(), RainGauge()
    for frame in in_rain(scene(), 0.9, 1):
        gauge.update(frame)
    other = scene(height=120, width=160)
    assert gauge.update(other[0]) == fresh.update(other[0])
    gauge.reset()
    assert gauge.update(other[1]) == RainGauge().update(other[1])


def test_rain_on_real_roads_is_told_from_clear_weather(shared_data: Path) -> None:
    clear, light, hard = [], [], []
    for number, name in enumerate(("country_road", "desert", "highway", "seattle_street")):
        video = cv2.VideoCapture(str(shared_data / "video" / f"{name}.mp4"))
        video.set(cv2.CAP_PROP_POS_FRAMES, 100)
        frames = [video.read()[1] for _ in range(4)]
        clip = np.stack([cv2.resize(frame[..., ::-1], (640, 360)) for frame in frames])
        clear.append(measured_level(clip))
        light.append(measured_level(in_rain(clip, 0.3, number + 1)))
        hard.append(measured_level(in_rain(clip, 0.8, number + 1)))
    assert max(clear) < min(light)
    assert max(clear) < BypassSettings().on_above < min(hard)
