"""``bag.launch.py`` and ``demo.launch.py``: rainy images in, derained images out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("launch_ros", reason="launch_ros is not installed; it is in no registry")
pytest.importorskip("launch_pytest", reason="launch_pytest is not installed; it is in no registry")

import launch_pytest
import recordings
from launch import LaunchDescription
from launching import Launcher, Started
from rcl_interfaces.srv import GetParameters
from ros.desk import Desk, until
from rosgraph_msgs.msg import Clock


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return recordings.write(tmp_path / "bag", recordings.entries())


@launch_pytest.fixture
def playing(started: Started, bag: Path, weights: Path) -> LaunchDescription:
    return started.file("bag.launch.py", bag=bag, weights=weights)


@pytest.mark.launch(fixture=playing)
def test_a_recording_is_played_and_derained(desk: Desk, started: Started) -> Iterator[None]:
    # Only derained frames have attention, so playing has to wait for the network.
    attention, derained = desk.inbox("/camera/attention"), desk.inbox("/camera/image_derained")
    assert derained.wait().header.frame_id == "camera"
    assert attention.wait().header.stamp == derained.messages[0].header.stamp
    until(lambda: len(started.exits) == 3, "the end of waiter, player and node")
    yield
    assert started.ended_well(), started.exits


@pytest.mark.launch(fixture=playing)
def test_the_time_is_the_recordings(desk: Desk, started: Started) -> None:
    clock, derained = desk.inbox("/clock", Clock), desk.inbox("/camera/image_derained")
    wanted = GetParameters.Request(names=["use_sim_time"])
    (value,) = desk.call(GetParameters, "/camera/derain/get_parameters", wanted).values
    assert value.bool_value
    derained.wait()
    first, last = (recordings.stamp(index) // 1_000_000_000 for index in (0, 5))
    assert first <= clock.wait().clock.sec <= last + 1


@launch_pytest.fixture
def demo(started: Started, tmp_path: Path, weights: Path) -> LaunchDescription:
    parameters = tmp_path / "camera.yaml"
    parameters.write_text(
        "/**/sim_camera:\n  ros__parameters:\n"
        "    scene: {width: 96, height: 64, fps: 10.0}\n    loop_s: 1.0\n"
    )
    return started.file(
        "demo.launch.py",
        viewer="none",
        namespace="street",
        weights=weights,
        camera_params_file=parameters,
    )


@pytest.mark.launch(fixture=demo)
def test_the_demo_shows_rainy_frames_and_the_same_frames_derained(
    desk: Desk, started: Started
) -> Iterator[None]:
    # Frames pass through while the network loads; only derained ones have attention.
    attention, rainy = desk.inbox("street/attention"), desk.inbox("street/image")
    stamp = attention.wait().header.stamp
    assert any(message.header.stamp == stamp for message in rainy.messages)
    yield
    assert started.ended_well(), started.exits
    assert len(started.exits) == 2


def test_the_launch_ends_with_its_recording(
    desk: Desk, launcher: Launcher, bag: Path, weights: Path
) -> None:
    started = launcher.start("bag.launch.py", f"bag:={bag}", f"weights:={weights}")
    assert started.wait(120) == 0, launcher.said()
    assert launcher.said().count("process has finished cleanly") == 3


def test_nothing_is_started_if_the_recording_is_missing(desk: Desk, launcher: Launcher) -> None:
    assert launcher.start("bag.launch.py", "bag:=/nowhere").wait(60) == 1
    assert "there is no recording /nowhere" in launcher.said()
    assert "process started" not in launcher.said()


def test_a_failing_player_fails_the_launch(
    desk: Desk, launcher: Launcher, tmp_path: Path, weights: Path
) -> None:
    (tmp_path / "broken.mcap").write_text("no recording")
    started = launcher.start(
        "bag.launch.py", f"bag:={tmp_path / 'broken.mcap'}", f"weights:={weights}"
    )
    assert started.wait(120) == 1, launcher.said()
    assert "bag_player" in launcher.said()
