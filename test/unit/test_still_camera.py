"""References made of frames of a nearly still camera lack the rain and nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rain_removal_ros.data.still_camera import NEIGHBOURS, reference, window
from rain_removal_ros.data.strokes import draw_strokes
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image


def _scene(right: float = 0.0) -> Image:
    """A textured scene, seen by a camera that has turned by ``right`` pixels to the right."""
    rng = np.random.default_rng(0)
    picture = np.full((160, 300, 3), 70, np.uint8)
    for _ in range(150):
        x, y, size = (int(value) for value in rng.integers((0, 0, 5), (300, 160, 25)))
        colour = [int(value) for value in rng.integers(20, 160, 3)]
        cv2.rectangle(picture, (x, y), (x + size, y + size), colour, -1)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.8)
    moved = cv2.warpAffine(
        picture, np.array([[1, 0, -20 - right], [0, 1, 0]]), (240, 160), flags=cv2.INTER_CUBIC
    )
    return np.asarray(moved, np.uint8)


@pytest.mark.parametrize("turn", [0.0, 2.7])
def test_strokes_are_removed_and_the_scene_stays_sharp(turn: float) -> None:
    scenes = [_scene(turn * number) for number in range(7)]
    rainy = [draw_strokes(scene, 30, seed=seed) for seed, scene in enumerate(scenes)]
    frame, mask = rainy[3]
    made = reference(frame, [other.image for number, other in enumerate(rainy) if number != 3])
    before = np.abs(frame.astype(float) - scenes[3]).mean(2)
    after = np.abs(made.astype(float) - scenes[3]).mean(2)
    assert after[mask > 0].mean() < 0.12 * before[mask > 0].mean()
    far = cv2.dilate(mask, np.ones((15, 15), np.uint8)) == 0
    assert after[far].mean() < 0.5


def test_a_dry_frame_is_its_own_reference() -> None:
    frame = _scene()
    assert np.array_equal(reference(frame, [frame] * 6), frame)


def test_the_window_is_as_long_at_the_ends_of_a_clip_as_in_its_middle() -> None:
    assert window(10, 60) == range(10 - NEIGHBOURS, 11 + NEIGHBOURS)
    assert window(0, 60) == range(2 * NEIGHBOURS + 1)
    assert window(59, 60) == range(60 - 2 * NEIGHBOURS - 1, 60)
    assert window(2, 5) == range(5)
    with pytest.raises(DataError, match="not dry"):
        window(0, 4)


def test_frames_of_several_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="one size"):
        reference(_scene(), [_scene()[:100]] * 4)
