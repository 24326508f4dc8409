"""The simulated drive is repeatable, and its depth, flow and boxes match its images."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError
from rain_removal_ros.simulation.drive import SKY_M, Drive, DriveFrame


@pytest.fixture(scope="module")
def drive() -> Drive:
    return Drive(seed=0, width=320, height=240)


def warped(image: NDArray, flow: NDArray, method: int) -> NDArray:
    """The previous image, moved by the flow; 0 where pixels come from outside."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    there = np.nan_to_num(flow + np.dstack((x, y)), nan=-9).astype(np.float32)
    return cv2.remap(image, there, None, method)


def static_pixels(before: DriveFrame, now: DriveFrame) -> NDArray:
    """Pixels with known flow that were visible in the previous frame and are not at depth edges."""
    seen = warped(np.ones(now.depth.shape, np.uint8), now.flow, cv2.INTER_NEAREST) > 0
    still = warped((~np.isnan(before.flow[..., 0])).astype(np.uint8), now.flow, cv2.INTER_NEAREST)
    edge = cv2.morphologyEx(np.log(now.depth), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 0.1
    then = warped(before.depth, now.flow, cv2.INTER_NEAREST)
    same = np.abs(np.log(np.maximum(then, 0.1) / now.depth)) < 0.08
    return np.isfinite(now.flow[..., 0]) & seen & (still > 0) & ~edge & same


def psnr(first: NDArray, second: NDArray) -> float:
    error = np.mean((first.astype(np.float32) - second) ** 2)
    return float(10 * np.log10(255**2 / error))


def test_a_frame_has_image_depth_flow_and_calibration(drive: Drive) -> None:
    frame = drive.frame(5)
    assert frame.image.shape == (240, 320, 3)
    assert frame.image.dtype == np.uint8
    assert frame.depth.shape == (240, 320)
    assert frame.depth.dtype == np.float32
    assert frame.depth.min() > 0.3
    assert frame.depth.max() == SKY_M
    assert frame.flow.shape == (240, 320, 2)
    assert frame.flow.dtype == np.float32
    assert (frame.cx, frame.cy) == (159.5, 119.5)
    assert frame.fx == frame.fy


def test_a_frame_does_not_depend_on_earlier_calls(drive: Drive) -> None:
    other = Drive(seed=0, width=320, height=240)
    later = other.frame(70)
    first, again = drive.frame(70), drive.frame(70)
    for frame in (first, again):
        assert np.array_equal(frame.image, later.image)
        assert np.array_equal(frame.depth, later.depth)
        assert np.array_equal(frame.flow, later.flow, equal_nan=True)
        assert frame.boxes == later.boxes


def test_another_seed_gives_another_street(drive: Drive) -> None:
    other = Drive(seed=1, width=320, height=240).frame(70)
    assert psnr(drive.frame(70).image, other.image) < 20


def test_a_frame_a_day_ahead_is_rendered(drive: Drive) -> None:
    assert drive.frame(30 * 60 * 60 * 24).image.std() > 20


@pytest.mark.parametrize("index", [20, 150, 330])
def test_moving_the_previous_frame_by_the_flow_gives_the_current_one(
    drive: Drive, index: int
) -> None:
    before, now = drive.frame(index - 1), drive.frame(index)
    mask = static_pixels(before, now)
    moved = warped(before.image, now.flow, cv2.INTER_LINEAR)
    assert mask.mean() > 0.4
    assert psnr(moved[mask], now.image[mask]) > 32
    if np.nanmedian(np.abs(now.flow)) > 0.3:
        assert psnr(before.image[mask], now.image[mask]) < psnr(moved[mask], now.image[mask]) - 6


@pytest.mark.parametrize("index", [20, 150])
def test_depth_changes_consistently_with_the_flow(drive: Drive, index: int) -> None:
    before, now = drive.frame(index - 1), drive.frame(index)
    mask = static_pixels(before, now) & (now.depth < 60)
    then = warped(before.depth, now.flow, cv2.INTER_NEAREST)
    # While the camera drives ahead, all static objects come nearer by the same distance.
    nearer = (then - now.depth)[mask]
    assert 0.1 < np.median(nearer) < 0.6
    assert np.mean(np.abs(nearer - np.median(nearer)) < 0.35) > 0.85


def test_the_road_is_nearer_towards_the_bottom(drive: Drive) -> None:
    for index in (0, 40, 500):
        depth = drive.frame(index).depth[-40:, 100:220]
        assert (np.diff(depth, axis=0) < 0).all()
        assert depth[-1].max() < 5


def test_only_the_first_frame_has_no_flow_at_all(drive: Drive) -> None:
    assert np.isnan(drive.frame(0).flow).all()
    assert np.isfinite(drive.frame(1).flow).mean() > 0.7


def test_flow_is_unknown_on_moving_objects(drive: Drive) -> None:
    frames = [drive.frame(index) for index in range(40, 400, 40)]
    people = [(f, b) for f in frames for b in f.boxes if b.label == "person" and b.distance < 25]
    assert people
    for frame, box in people:
        part = frame.flow[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2), 0]
        assert np.isnan(part).any()


def test_boxes_contain_their_objects(drive: Drive) -> None:
    """Part of each box has the depth that the box states, within the extent of its object."""
    labels = set()
    for index in range(10, 600, 45):
        frame = drive.frame(index)
        for box in frame.boxes:
            assert 0 <= box.x1 < box.x2 <= 320
            assert 0 <= box.y1 < box.y2 <= 240
            labels.add(box.label)
            if box.x2 - box.x1 < 8 or box.x1 < 1 or box.x2 > 319:
                continue
            part = frame.depth[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]
            extent = 3.0 if box.label == "car" else 0.8
            assert np.mean(np.abs(part - box.distance) < extent) > 0.1, (index, box)
        assert len({box.id for box in frame.boxes}) == len(frame.boxes)
        assert [box.distance for box in frame.boxes] == sorted(b.distance for b in frame.boxes)
    assert labels == {"car", "person"}


def test_an_object_keeps_its_id(drive: Drive) -> None:
    first = {box.id: box for box in drive.frame(100).boxes}
    second = {box.id: box for box in drive.frame(101).boxes}
    kept = [first[name] for name in first.keys() & second.keys()]
    assert len(kept) >= 0.7 * len(first)
    for box in kept:
        assert second[box.id].label == box.label
        assert abs(second[box.id].distance - box.distance) < 1.2


def test_the_camera_drives_and_stops_at_lights(drive: Drive) -> None:
    motion = [np.nanmedian(np.abs(drive.frame(i).flow)) for i in range(1, 1500, 25)]
    assert min(motion) < 0.02
    assert max(motion) > 0.5


@pytest.mark.parametrize(("width", "height"), [(64, 48), (333, 101), (100, 160)])
def test_a_drive_can_have_any_size(width: int, height: int) -> None:
    frame = Drive(2, width, height).frame(33)
    assert frame.image.shape == (height, width, 3)
    assert np.isfinite(frame.depth).all()


def test_the_frame_rate_changes_only_the_moments_shown() -> None:
    slow, fast = Drive(0, 96, 72, fps=10), Drive(0, 96, 72, fps=30)
    assert np.array_equal(slow.frame(20).depth, fast.frame(60).depth)


@pytest.mark.parametrize("wrong", [{"width": 4}, {"height": 0}, {"fps": 0.0}])
def test_impossible_cameras_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="a drive needs"):
        Drive(0, **wrong)


def test_a_negative_frame_index_is_refused(drive: Drive) -> None:
    with pytest.raises(DataError, match="from 0"):
        drive.frame(-1)


def test_a_drive_needs_neither_torch_nor_ros() -> None:
    program = (
        "import sys; sys.modules.update(torch=None, rclpy=None)\n"
        "from rain_removal_ros.simulation.drive import Drive\n"
        "Drive(0, 64, 48).frame(0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
