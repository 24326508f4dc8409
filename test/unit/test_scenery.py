"""Structures and pale light belong to the scene: the reference and the rainy picture have both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rain_removal_ros.data import scenery
from rain_removal_ros.data.mix import DataSettings, Mix, RainMaker, SourceSettings
from rain_removal_ros.data.rain import Rain

_GREY = np.full((120, 160, 3), 120, np.uint8)


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rain falls."""
    clear = Rain(seed=0, severity=0.0, style="own")
    monkeypatch.setattr(RainMaker, "_sample", lambda *_: clear)


def _mix(folder: Path, **changes: object) -> Mix:
    cv2.imwrite(str(folder / "grey.png"), _GREY)
    data = DataSettings(
        sources=(SourceSettings(".", "clean"),), root=str(folder), crop=64, batch=4, workers=0
    )
    return Mix(replace(data, **changes), seed=0)  # type: ignore[arg-type]


def test_structures_cover_a_small_part_of_the_picture() -> None:
    shares = []
    for seed in range(40):
        drawn = scenery.with_structures(_GREY, np.random.default_rng(seed))
        shares.append(float((drawn != _GREY).any(2).mean()))
    assert np.mean(np.array(shares) > 0) > 0.9
    assert 0.01 < np.mean(shares) < 0.3
    assert _GREY.min() == _GREY.max() == 120


@pytest.mark.parametrize("kind", sorted({*scenery._KINDS, *scenery._PASSING}, key=repr))
def test_each_kind_of_line_is_drawn_and_leaves_most_of_the_picture(
    kind: Callable[..., None],
) -> None:
    shares = []
    for seed in range(20):
        mask = np.zeros(_GREY.shape[:2], np.uint8)
        kind(mask, np.random.default_rng(seed))
        shares.append(float((mask > 0).mean()))
    assert np.mean(np.array(shares) > 0) > 0.5
    assert max(shares) < 0.8
    assert np.mean(shares) < 0.3


def test_reference_and_rainy_picture_have_the_same_structures(
    tmp_path: Path, dry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenery, "PALE_SHARE", 0.0)
    monkeypatch.setattr(scenery, "STRUCTURE_SHARE", 0.4)
    mix = _mix(tmp_path)
    batches = [mix[step] for step in range(20)]
    assert all(batch.rainy.equal(batch.reference) for batch in batches)
    lined = [bool((sample != 120).any()) for batch in batches for sample in batch.reference]
    assert 0.25 < np.mean(lined) < 0.55


def test_structures_move_with_the_scene_of_a_clip(
    tmp_path: Path, dry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenery, "PALE_SHARE", 0.0)
    monkeypatch.setattr(scenery, "STRUCTURE_SHARE", 1.0)
    monkeypatch.setattr(scenery, "PASSING_SHARE", 0.0)
    moved = 0
    mix = _mix(tmp_path, frames=4)
    for step in range(10):
        for clip in mix[step].reference.numpy():
            first, second = (frame[0].astype(np.float32) for frame in clip[:2])
            part = second[20:-20, 20:-20]
            if first.std() < 3 or part.std() < 3 or np.array_equal(first, second):
                continue
            # A structure drawn anew in each frame would not be found in the next.
            score = cv2.matchTemplate(first, part, cv2.TM_CCOEFF_NORMED).max()
            assert score > 0.8
            moved += 1
    assert moved > 4


def test_things_that_pass_cover_a_small_part_and_move_by_themselves() -> None:
    clip = np.broadcast_to(_GREY, (4, *_GREY.shape))
    shares, moved = [], []
    for seed in range(60):
        passed = scenery.with_passing(clip, np.random.default_rng(seed))
        seen = (passed != 120).any(3)
        shares.append(float(seen.mean()))
        if seen.any():
            moved.append(not np.array_equal(passed[0], passed[-1]))
    assert np.mean(np.array(shares) > 0) > 0.6
    assert 0.005 < np.mean(shares) < 0.2
    assert 0.6 < np.mean(moved) < 0.95  # the others stick to the windscreen


def test_things_pass_in_the_reference_and_in_some_clips_only(
    tmp_path: Path, dry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenery, "PALE_SHARE", 0.0)
    monkeypatch.setattr(scenery, "STRUCTURE_SHARE", 0.0)
    batches = [_mix(tmp_path, frames=4)[step] for step in range(20)]
    assert all(batch.rainy.equal(batch.reference) for batch in batches)
    passed = [bool((clip != 120).any()) for batch in batches for clip in batch.reference]
    assert 0.1 < np.mean(passed) < 0.4
    singles = [_mix(tmp_path)[step] for step in range(10)]
    assert all(bool((batch.reference == 120).all()) for batch in singles)


def test_reference_and_rainy_picture_are_equally_pale(
    tmp_path: Path, dry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenery, "STRUCTURE_SHARE", 0.0)
    mix = _mix(tmp_path)
    batches = [mix[step] for step in range(20)]
    assert all(batch.rainy.equal(batch.reference) for batch in batches)
    pale = [bool((sample > 130).all()) for batch in batches for sample in batch.reference]
    assert 0.1 < np.mean(pale) < 0.45


def test_pale_light_keeps_shadows_dark_and_changes_all_frames_alike() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, None, :, None], (2, 8, 1, 3))
    darkest, middle = [], []
    for seed in range(50):
        pale = scenery.paled(ramp, np.random.default_rng(seed))
        assert np.array_equal(pale[0], pale[1])
        darkest.append(float(pale[0, 0, 0].mean()))
        middle.append(float(pale[0, 0, 100].mean()))
    assert np.median(darkest) < 25
    assert np.mean(middle) > 125


def test_scenes_in_veiled_rain_are_not_made_pale(tmp_path: Path) -> None:
    """Otherwise a network could not tell a veil, which it must remove, from a pale scene."""
    maker = RainMaker(DataSettings())
    clip = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    changed = []
    for seed in range(60):
        drawn = maker._sample(np.random.default_rng(seed), None)
        _, reference = maker.pair(clip, np.random.default_rng(seed))
        changed.append((drawn.veil.thickness > 0, not np.array_equal(reference, clip)))
    assert not any(pale for veiled, pale in changed if veiled)
    assert any(pale for veiled, pale in changed if not veiled)
