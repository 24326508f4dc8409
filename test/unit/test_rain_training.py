"""Training rain contains every kind of rain that a camera meets, each often enough."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_rain import render

from rain_removal_ros.data.rain import (
    STYLES,
    TRAINING_STYLES,
    CameraEffects,
    Layer,
    Profile,
    Rain,
    Region,
    Veil,
    sample,
)

_RAINS = [
    sample(np.random.default_rng((1, number)), textures=50, styles=TRAINING_STYLES)
    for number in range(1500)
]
_WET = [rain for rain in _RAINS if not rain.clear]
_COUNTED = [layer for rain in _WET for layer in rain.layers if layer.drops is not None]
_SINGLE = [layer for rain in _WET if rain.style == "single" for layer in rain.layers]
_STROKE = Layer(
    distance=0.1, direction=0.2, spread=0.0, length=40, width=2, density=0, opacity=1.0,
    speed=50, beads=0.0, drops=1, profile="box",
)  # fmt: skip
_BLACK = torch.zeros(1, 3, 200, 300)


def _share(of: list[bool]) -> float:
    return sum(of) / len(of)


def _rain(layer: Layer, **changes: object) -> Rain:
    return replace(Rain(seed=5, severity=1.0, style="own", layers=(layer,)), **changes)  # type: ignore[arg-type]


def _streaks(
    layer: Layer, seed: int = 5, frames: int = 1, **changes: object
) -> NDArray[np.float32]:
    clip = _BLACK.expand(frames, -1, -1, -1)
    return render(clip, _rain(layer, seed=seed, **changes)).streaks[:, 0].numpy()


def _single_streaks(layer: Layer) -> list[NDArray[np.float32]]:
    """Pictures that hold exactly one whole streak."""
    alone = [
        streak
        for streak in (_streaks(layer, seed)[0] for seed in range(80))
        if cv2.connectedComponents((streak > 0.02).astype(np.uint8))[0] == 2
        and max(streak[[0, -1]].max(), streak[:, [0, -1]].max()) < 0.02
    ]
    assert len(alone) > 3
    return alone


def _whole_width(layer: Layer) -> float:
    return (4 if layer.profile == "gaussian" else 2) * layer.width


def test_few_streaks_are_as_common_as_many() -> None:
    drops = np.array([layer.drops for layer in _SINGLE])
    for low, high in ((0, 3), (3, 10), (10, 40), (40, 1000)):
        assert np.mean((drops > low) & (drops <= high)) > 0.1, (low, high)
    few = [rain.style == "single" and (rain.layers[0].drops or 0) <= 8 for rain in _WET]
    assert _share(few) > 0.1


def test_broad_flat_and_blurred_drops_occur() -> None:
    broad = [layer for layer in _COUNTED if _whole_width(layer) > 7]
    assert len(broad) > 0.05 * len(_WET)
    for profile in ("gaussian", "box", "disc"):
        assert _share([layer.profile == profile for layer in broad]) > 0.1
    assert max(map(_whole_width, broad)) > 16


def test_streaks_range_from_short_to_long_and_from_faint_to_opaque() -> None:
    lengths, opacities = (
        np.array([getattr(layer, name) for layer in _SINGLE]) for name in ("length", "opacity")
    )
    for share in ((lengths < 8), (lengths > 80), (opacities < 0.35), (opacities > 0.7)):
        assert share.mean() > 0.1
    assert lengths.min() < 5
    assert lengths.max() == 130  # longer lines are more likely part of the road


@pytest.mark.parametrize(("angle", "share"), [(50, 0.07), (60, 0.03), (65, 0.01)])
def test_all_angles_occur(angle: float, share: float) -> None:
    slants = np.degrees([abs(layer.direction) for rain in _WET for layer in rain.layers[-1:]])
    assert np.mean(slants > angle) > share
    assert np.mean(slants < 20) > 0.3


def test_some_streaks_and_veils_are_coloured() -> None:
    veils = [rain.veil.light for rain in _WET if rain.veil.thickness > 0.2]
    streaks = [rain.colour for rain in _WET]
    assert _share([max(light) - min(light) > 0.1 for light in veils]) > 0.15
    assert _share([max(colour) - min(colour) > 0.07 for colour in streaks]) > 0.1
    assert _share([light[1] - max(light[0], light[2]) > 0.03 for light in veils]) > 0.03


def test_training_rain_varies_more_in_scale_than_published_rain() -> None:
    lengths = [
        np.mean([layer.length for layer in sample(
            np.random.default_rng(seed), style="heavy", severity=0.5, styles=styles
        ).layers[:3]])
        for styles in (STYLES, TRAINING_STYLES) for seed in range(200)
    ]  # fmt: skip
    published, training = np.array(lengths).reshape(2, -1)
    assert np.quantile(training, 0.95) > 1.4 * np.quantile(published, 0.95)
    assert np.quantile(training, 0.05) < 0.8 * np.quantile(published, 0.05)


def test_published_styles_do_not_change() -> None:
    rain = sample(np.random.default_rng(5), style="heavy", severity=0.7)
    layer = rain.layers[0]
    drawn = (layer.direction, layer.length, layer.density, rain.veil.thickness, *rain.veil.light)
    assert drawn == pytest.approx(_EXPECTED)
    assert rain.region is None
    assert rain.accumulation == 0
    assert all(layer.drops is None and layer.profile == "gaussian" for layer in rain.layers)


_EXPECTED = (
    -0.05941403424, 8.64256597769, 6.87704594392, 0.46617053616, 0.54990019517, 0.52639816285,
    0.51833739448,
)  # fmt: skip


@pytest.mark.parametrize("style", TRAINING_STYLES)
def test_the_same_seed_gives_the_same_rain_and_severity_adds_to_it(style: str) -> None:
    clip = torch.full((1, 3, 128, 160), 0.3)
    levels = []
    for severity in (0.1, 0.5, 1.0):
        rain, again = (
            sample(np.random.default_rng(8), style=style, severity=severity, styles=TRAINING_STYLES)
            for _ in range(2)
        )
        assert rain == again
        rendered = render(clip, replace(rain, camera=CameraEffects(), region=None))
        levels.append(rendered.level)
    assert levels == sorted(levels)


@pytest.mark.parametrize("count", [3, 20, 120])
def test_a_picture_holds_the_given_number_of_streaks(count: int) -> None:
    layer = replace(_STROKE, length=8, width=0.8, drops=count)
    found = []
    for seed in range(12):
        marked = (_streaks(layer, seed)[0] > 0.1).astype(np.uint8)
        found.append(cv2.connectedComponents(marked)[0] - 1)
    # Some cross the border and a few touch.
    assert np.mean(found) == pytest.approx(count, rel=0.2)


@pytest.mark.parametrize(
    ("profile", "flat"), [("box", (0.5, 1.0)), ("disc", (0.2, 0.7)), ("gaussian", (0.05, 0.35))]
)
@pytest.mark.parametrize("width", [2.0, 4.0, 6.0])
def test_a_streak_has_the_given_opacity_and_profile(
    profile: Profile, flat: tuple[float, float], width: float
) -> None:
    layer = replace(_STROKE, width=width, profile=profile, length=50, opacity=0.8)
    alone = _single_streaks(layer)
    peaks = np.array([streak.max() for streak in alone])
    assert peaks.min() > 0.6 * 0.8 * 0.9
    assert peaks.max() < 0.8 * 1.02
    opaque = [(one > 0.85 * one.max()).sum() / (one > 0.1 * one.max()).sum() for one in alone]
    assert flat[0] <= np.mean(opaque) <= flat[1]


@pytest.mark.parametrize("angle", [-1.2, -0.6, 0.3, 1.0])
def test_flat_streaks_have_the_given_width_length_and_angle(angle: float) -> None:
    alone = _single_streaks(replace(_STROKE, direction=angle, width=3, length=50))
    measured = []
    for streak in alone:
        points = np.argwhere(streak > 0.3)[:, ::-1]
        (_, sides, _) = cv2.minAreaRect(points.astype(np.float32))
        x, y = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
        # The rectangle goes through the centres of pixels.
        length = max(sides) + 1
        measured.append((streak.sum() / streak.max() / length, length, math.atan(x / y)))
    widths, lengths, angles = np.array(measured).T
    assert widths.mean() == pytest.approx(6, abs=1.2)
    assert widths.min() > 3
    assert widths.max() < 9.5
    assert lengths.mean() == pytest.approx(50, abs=15)
    assert angles == pytest.approx(np.full(len(alone), angle), abs=0.06)


@pytest.mark.parametrize("profile", ["box", "disc", "gaussian"])
def test_counted_streaks_fall_from_frame_to_frame(profile: Profile) -> None:
    layer = replace(_STROKE, length=12, drops=40, speed=6, profile=profile, direction=0.0)
    streaks = _streaks(layer, frames=4)
    whole = _streaks(layer, frames=4)
    assert np.array_equal(streaks, whole)
    for before, after in pairwise(streaks):
        window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_64F)
        (right, down), _ = cv2.phaseCorrelate(
            before.astype(np.float64), after.astype(np.float64), window
        )
        assert math.hypot(right, down - 6) < 1.5


def test_part_of_a_picture_may_stay_dry() -> None:
    region = Region(facing=0.0, border=0.0, softness=0.05)
    layer = replace(_STROKE, length=10, width=0.6, profile="gaussian", drops=None, density=5)
    streaks = _streaks(layer, region=region)[0]
    assert streaks[:, :130].max() == 0
    assert streaks[:, 170:].mean() > 0.01
    everywhere = _streaks(layer)[0]
    assert streaks[:, 170:].mean() == pytest.approx(everywhere[:, 170:].mean(), rel=0.05)
    assert _share([rain.region is not None for rain in _WET]) > 0.1


def test_dense_rain_brightens_the_picture() -> None:
    dense = [rain for rain in _WET if rain.style == "dense" and rain.severity > 0.5]
    lifted = [
        float((render(scene, rain, textures=()).rainy - scene).mean())
        for scene in (torch.full((1, 3, 64, 96), 0.35),)
        for rain in (replace(r, textures=(), camera=CameraEffects()) for r in dense[:25])
    ]
    assert np.mean(lifted) > 0.05
    smooth = _rain(_STROKE, layers=(), accumulation=0.1)
    assert torch.allclose(render(_BLACK, smooth).rainy, torch.full_like(_BLACK, 0.1), atol=1e-6)


def test_severity_0_is_dry_in_every_style() -> None:
    for style in TRAINING_STYLES:
        rain = sample(np.random.default_rng(3), severity=0, style=style, styles=TRAINING_STYLES)
        assert rain.clear
        assert rain.veil == Veil()
