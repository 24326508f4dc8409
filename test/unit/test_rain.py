"""Synthetic rain follows its description, and is the same for the same seed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch_rain import render

from rain_removal_ros.cli import main
from rain_removal_ros.data.pairs import find_pairs
from rain_removal_ros.data.rain import (
    STYLES,
    CameraEffects,
    Layer,
    Rain,
    Texture,
    TextureLayer,
    Veil,
    Wind,
    load_textures,
    render_frames,
    sample,
)
from rain_removal_ros.errors import DataError

_LAYER = Layer(
    distance=0.3, direction=0.0, spread=0.0, length=20, width=0.6, density=4, opacity=0.6,
    speed=12, beads=0.0,
)  # fmt: skip
_BLACK = torch.zeros(1, 3, 96, 96)


def _drawn(seed: int, **options: float | str | int) -> Rain:
    return sample(np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def _scene(frames: int = 1, size: int = 64, seed: int = 3) -> Tensor:
    """Soft random colours, neither black nor white."""
    small = torch.rand(frames, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return 0.2 + 0.6 * torch.nn.functional.interpolate(small, (size, size), mode="bilinear")


def _rain(layer: Layer = _LAYER, **changes: object) -> Rain:
    return replace(Rain(seed=11, severity=0.5, style="own", layers=(layer,)), **changes)  # type: ignore[arg-type]


def _streak_angle(image: NDArray[np.float32]) -> float:
    """Angle of the streaks from the vertical, by the structure tensor: where least changes."""
    right = cv2.Sobel(image, cv2.CV_64F, 1, 0)
    down = cv2.Sobel(image, cv2.CV_64F, 0, 1)
    tensor = [[(right**2).sum(), (right * down).sum()], [(right * down).sum(), (down**2).sum()]]
    x, y = np.linalg.eigh(np.array(tensor))[1][:, 0]
    return math.atan(x / y)


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_gives_the_same_rain(style: str) -> None:
    clip = _scene(frames=2)
    first = render(clip, _drawn(5, style=style, severity=0.7))
    again = render(clip, _drawn(5, style=style, severity=0.7))
    other = render(clip, _drawn(6, style=style, severity=0.7))
    assert torch.equal(first.rainy, again.rainy)
    assert not torch.equal(first.rainy, other.rainy)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    severity=st.one_of(st.none(), st.floats(0, 1)),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    frames=st.integers(1, 3),
)
def test_any_rain_on_any_clip_stays_in_range(
    seed: int, severity: float | None, height: int, width: int, frames: int
) -> None:
    clip = torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(seed % 99))
    rain = sample(np.random.default_rng(seed), severity=severity)
    rendered = render(clip, rain)
    assert rendered.rainy.shape == clip.shape
    assert bool(((rendered.rainy >= 0) & (rendered.rainy <= 1)).all())
    assert bool(((rendered.transmission >= 0) & (rendered.transmission <= 1)).all())
    assert 0 <= rendered.level <= 1


@pytest.mark.parametrize("absorption", [0.0, 1.0])
def test_the_heavy_rain_model_holds(absorption: float) -> None:
    light = (0.7, 0.75, 0.8)
    rain = _rain(
        replace(_LAYER, opacity=0.25), absorption=absorption, veil=Veil(thickness=0.8, light=light)
    )
    clip = 0.7 * _scene(frames=2)
    rainy, streaks, transmission, _ = render(clip, rain)
    through = transmission * (clip + streaks)
    expected = through + (1 - transmission) * torch.tensor(light).view(1, 3, 1, 1)
    assert streaks.abs().max() > 0.1
    assert transmission.min() < 0.7
    assert torch.allclose(rainy, expected.clamp(0, 1), atol=1e-5)


def test_severity_0_leaves_the_picture_unchanged() -> None:
    clip = _scene()
    rendered = render(clip, _drawn(2, severity=0.0))
    assert torch.equal(rendered.rainy, clip)
    assert rendered.level == 0


@pytest.mark.parametrize("style", STYLES)
def test_rain_grows_with_severity(style: str) -> None:
    clip = torch.full((1, 3, 128, 128), 0.3)
    levels, changes = [], []
    for severity in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        rain = _drawn(4, style=style, severity=severity)
        rendered = render(clip, replace(rain, camera=CameraEffects()))
        levels.append(rendered.level)
        changes.append(float((rendered.rainy - clip).abs().mean()))
    assert levels == sorted(levels)
    assert levels[-1] > 2 * levels[0]
    assert changes == sorted(changes)


def test_one_draw_in_ten_is_dry_and_the_others_cover_all_severities() -> None:
    rng = np.random.default_rng(0)
    severities = np.array([sample(rng).severity for _ in range(600)])
    assert 0.06 < (severities == 0).mean() < 0.14
    assert (severities < 0.2).mean() > 0.08
    assert (severities > 0.8).mean() > 0.15


@pytest.mark.parametrize("angle", [-0.9, -0.3, 0.0, 0.5, 1.2])
def test_streaks_have_the_given_direction(angle: float) -> None:
    rendered = render(_BLACK, _rain(replace(_LAYER, direction=angle)))
    assert _streak_angle(rendered.rainy[0, 0].numpy()) == pytest.approx(angle, abs=0.06)


def test_turned_rain_falls_in_the_new_mean_direction() -> None:
    two = (replace(_LAYER, direction=0.1), replace(_LAYER, direction=0.3))
    turned = replace(_rain(), layers=two).turned(-0.5)
    assert [layer.direction for layer in turned.layers] == pytest.approx([-0.6, -0.4])


def test_the_middle_of_a_streak_has_the_given_opacity_at_any_width() -> None:
    for width in (0.3, 0.6, 1.5):
        layer = replace(_LAYER, width=width, length=30, density=1, opacity=0.5)
        brightest = float(render(_BLACK, _rain(layer)).rainy.max())
        assert brightest == pytest.approx(0.5, abs=0.12), width


def test_streaks_are_as_bright_at_the_border_as_inside() -> None:
    layer = replace(_LAYER, width=1.5, density=60, opacity=0.05)
    streaks = render(torch.zeros(1, 3, 200, 200), _rain(layer)).streaks[0, 0]
    assert float(streaks[:, :2].mean()) == pytest.approx(float(streaks.mean()), rel=0.25)


def _shift(first: Tensor, second: Tensor) -> tuple[float, float]:
    """How far a picture moved, right and down."""
    window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_64F)
    (right, down), _ = cv2.phaseCorrelate(first.double().numpy(), second.double().numpy(), window)
    return right, down


def test_drops_fall_at_their_speed_from_frame_to_frame() -> None:
    clip = torch.zeros(3, 3, 160, 160)
    # Slow, so that most drops stay in the picture; drops differ in speed by up to a fifth.
    layer = replace(_LAYER, speed=5, direction=0.5, length=8, density=6)
    streaks = render(clip, _rain(layer)).streaks[:, 0]
    for before, after in pairwise(streaks):
        right, down = _shift(before, after)
        assert math.hypot(right, down) == pytest.approx(5, rel=0.25)
        assert math.atan2(right, down) == pytest.approx(0.5, abs=0.1)


def test_a_long_clip_can_be_rendered_in_pieces() -> None:
    rain = replace(_rain(), wind=Wind(swing=0.3, period=20))
    clip = _scene(frames=6)
    whole = render(clip, rain).rainy
    pieces = [render(clip[low : low + 2], rain, first=low).rainy for low in (0, 2, 4)]
    assert torch.allclose(whole, torch.cat(pieces), atol=1e-5)


def test_it_rains_as_hard_in_the_last_frame_as_in_the_first() -> None:
    amounts = render(torch.zeros(40, 3, 64, 64), _rain(replace(_LAYER, density=20))).streaks
    means = amounts.mean((1, 2, 3))
    assert float(means[20:].mean()) == pytest.approx(float(means[:20].mean()), rel=0.15)
    assert float(means.min()) > 0.6 * float(means.mean())


def test_the_wind_turns_streaks_slowly() -> None:
    rain = replace(_rain(replace(_LAYER, density=10)), wind=Wind(swing=0.4, period=40))
    streaks = render(torch.zeros(11, 3, 128, 128), rain).streaks[:, 0].numpy()
    angles = np.array([_streak_angle(frame) for frame in streaks])
    assert angles[10] == pytest.approx(0.4, abs=0.06)
    assert np.abs(np.diff(angles)).max() < 0.15


def test_the_veil_is_constant_over_a_clip() -> None:
    rain = replace(_rain(), veil=Veil(thickness=1.0, cue=1.0, clouds=0.5))
    transmission = render(_scene(frames=4), rain).transmission
    assert len(transmission) == 1
    assert transmission.std() > 0


def test_distant_pixels_are_veiled_more_and_hide_fewer_streaks() -> None:
    depth = torch.full((64, 64), 0.1)
    depth[:, 32:] = 1.0
    rain = replace(_rain(replace(_LAYER, distance=0.6, density=20)), veil=Veil(thickness=1.0))
    rendered = render(torch.full((1, 3, 64, 64), 0.3), rain, depth=depth)
    assert rendered.transmission[..., :32] == pytest.approx(math.exp(-0.1))
    assert rendered.transmission[..., 32:] == pytest.approx(math.exp(-1.0))
    assert float(rendered.streaks[..., :32].abs().max()) == 0
    assert float(rendered.streaks[..., 32:].abs().max()) > 0.1


def test_a_depth_map_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="does not fit"):
        render(_BLACK, _rain(), depth=torch.ones(10, 10))


def test_dark_drops_darken_the_picture() -> None:
    clip = torch.full((1, 3, 96, 96), 0.5)
    assert float(render(clip, _rain()).rainy.min()) >= 0.5
    assert float(render(clip, _rain(replace(_LAYER, dark=1.0))).rainy.max()) <= 0.5


def test_noise_and_compression_of_the_camera_stay_small() -> None:
    rain = _rain(replace(_LAYER, density=0.1), camera=CameraEffects(noise=0.01, jpeg=90))
    reference = _scene()
    difference = (
        render(reference, rain).rainy
        - render(reference, replace(rain, camera=CameraEffects())).rainy
    )
    assert 0.002 < float(difference.abs().mean()) < 0.02


def test_compression_does_not_swap_colours() -> None:
    red = torch.zeros(1, 3, 32, 32)
    red[:, 0] = 0.8
    rainy = render(red, _rain(replace(_LAYER, density=0.001), veil=Veil(thickness=1e-6),
                              camera=CameraEffects(jpeg=95))).rainy  # fmt: skip
    assert torch.allclose(rainy, red, atol=0.03)


def _striped(angle: float) -> NDArray[np.float32]:
    """A texture of streaks, drawn by OpenCV and not by the code under test."""
    canvas = np.zeros((200, 300), np.uint8)
    for x, y in np.random.default_rng(1).integers(0, (300, 200), (150, 2)):
        end = (int(x + 30 * math.sin(angle)), int(y + 30 * math.cos(angle)))
        cv2.line(canvas, (int(x), int(y)), end, 255, 1, cv2.LINE_AA)
    return (canvas / np.float32(255)).astype(np.float32)


def test_textures_are_read_with_the_direction_of_their_streaks(tmp_path: Path) -> None:
    for name, angle in (("a.png", -0.25), ("b.png", 0.6)):
        cv2.imwrite(str(tmp_path / name), (_striped(angle) * 255).astype(np.uint8))
    first, second = load_textures(tmp_path)
    assert first.direction == pytest.approx(-0.25, abs=0.05)
    assert second.direction == pytest.approx(0.6, abs=0.05)


def test_textures_are_turned_into_the_direction_of_the_rain_and_move_along_it() -> None:
    texture = Texture(_striped(0.2), 0.2)
    layer = TextureLayer(
        choice=0.5, direction=-0.5, zoom=1.0, opacity=1.0, speed=4, start=(0.4, 0.4)
    )
    rain = Rain(seed=1, severity=1, style="own", textures=(layer,))
    streaks = render(torch.zeros(2, 3, 96, 96), rain, textures=[texture]).streaks[:, 0]
    assert _streak_angle(streaks[0].numpy()) == pytest.approx(-0.5, abs=0.06)
    right, down = _shift(streaks[0], streaks[1])
    assert (right, down) == pytest.approx((4 * math.sin(-0.5), 4 * math.cos(-0.5)), abs=0.4)


def test_rain_with_textures_cannot_be_rendered_without_them() -> None:
    layer = TextureLayer(0.0, 0.0, 1.0, 1.0, 1.0, (0.5, 0.5))
    with pytest.raises(DataError, match="textures"):
        render(_BLACK, Rain(seed=1, severity=1, style="own", textures=(layer,)))


def test_frames_of_8_bit_get_the_same_rain_as_clips_of_float() -> None:
    frames = (_scene(frames=2) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    rain = _drawn(9, severity=0.8)
    expected = render(clip, rain).rainy.permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(render_frames(frames, rain) - expected).max() <= 0.51


@pytest.mark.parametrize("wrong", [{"severity": 1.5}, {"severity": -0.1}, {"style": "hail"}])
def test_impossible_severities_and_styles_are_refused(wrong: dict[str, float | str]) -> None:
    with pytest.raises(DataError):
        _drawn(0, **wrong)


class TestSynthesize:
    """``rain-removal synthesize`` as a user runs it."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        folder = tmp_path / "clean"
        (folder / "below").mkdir(parents=True)
        for number, name in enumerate(("a.png", "below/b.jpg")):
            picture = (_scene(seed=number)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            cv2.imwrite(str(folder / name), picture)
        return folder

    def test_writes_pairs_that_are_read_as_a_data_set(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        code = main(["synthesize", str(source), "-o", str(out), "--directions", "3",
                     "--severity", "0.8"])  # fmt: skip
        assert code == 0
        pairs = find_pairs(out)
        assert [pair.rainy.name for pair in pairs] == [
            f"{name}-{number:02d}.png" for name in ("a", "below-b") for number in range(3)
        ]
        rainy, reference = pairs[0].load()
        assert np.array_equal(reference[..., ::-1], cv2.imread(str(source / "a.png")))
        assert not np.array_equal(rainy, reference)

    def test_records_the_severity_and_directions_of_its_rain(
        self, source: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        main(["synthesize", str(source), "-o", str(out), "--directions", "2", "--severity", "0.5"])
        facts = json.loads((out / "manifest.json").read_text())
        rains = [pair["rain"] for pair in facts["pairs"]]
        assert {rain["severity"] for rain in rains} == {0.5}
        means = [np.mean([layer["direction"] for layer in rain["layers"]]) for rain in rains]
        assert means == pytest.approx([-0.75, 0.75, -0.75, 0.75])
        assert facts["manifest"]["package"] == "rain_removal_ros"

    def test_writes_the_same_files_for_the_same_seed(self, source: Path, tmp_path: Path) -> None:
        written = []
        for name, seed in (("x", "4"), ("y", "4"), ("z", "5")):
            main(["synthesize", str(source), "-o", str(tmp_path / name), "--seed", seed,
                  "--severity", "0.7"])  # fmt: skip
            written.append((tmp_path / name / "input" / "a-00.png").read_bytes())
        assert written[0] == written[1] != written[2]

    def test_names_and_leaves_out_broken_pictures(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (source / "broken.png").write_bytes(b"no picture")
        assert main(["synthesize", str(source), "-o", str(tmp_path / "out")]) == 0
        assert "broken.png" in capsys.readouterr().err
        assert len(find_pairs(tmp_path / "out")) == 2

    def test_reads_depth_from_pictures_and_arrays(self, source: Path, tmp_path: Path) -> None:
        depth = np.full((64, 64), 1000, np.uint16)
        depth[:, 32:] = 0  # not measured: taken for the farthest
        (tmp_path / "depth" / "below").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "depth" / "a.png"), depth)
        np.save(tmp_path / "depth" / "below" / "b.npy", np.linspace(1, 9, 64 * 64).reshape(64, 64))
        out = tmp_path / "out"
        command = ["synthesize", str(source), "-o", str(out), "--depth", str(tmp_path / "depth")]
        assert main([*command, "--style", "heavy", "--severity", "1"]) == 0
        assert len(find_pairs(out)) == 2

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--style", "hail"], "hail"),
            (["--severity", "3"], "from 0 to 1"),
            (["--directions", "0"], "directions"),
            (["--depth", "nowhere"], "nowhere"),
            (["--textures", "nowhere"], "nowhere"),
        ],
    )
    def test_answers_a_mistake_with_one_line_and_writes_nothing(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        flags: list[str], said: str,
    ) -> None:  # fmt: skip
        assert main(["synthesize", str(source), "-o", str(tmp_path / "out"), *flags]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
        assert not (tmp_path / "out").exists()

    def test_refuses_a_folder_that_is_not_empty(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["synthesize", str(source), "-o", str(tmp_path / "out")]
        assert main(command) == 0
        assert main(command) == 2
        assert "not empty" in capsys.readouterr().err
