"""``derain.launch.py`` and ``multi_camera.launch.py``: arguments, names, respawn, exits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("launch_ros", reason="launch_ros is not installed; it is in no registry")
pytest.importorskip("launch_pytest", reason="launch_pytest is not installed; it is in no registry")

import launch_pytest
from launch import LaunchDescription
from launching import Launcher, Started
from lifecycle_msgs.srv import GetState
from ros.desk import Desk, until, until_frames_pass

RESPAWN_S = 5.0


@launch_pytest.fixture
def in_a_namespace(started: Started, bypassing: str) -> LaunchDescription:
    return started.file(
        "derain.launch.py",
        namespace="robot/front",
        image="image_raw",
        params_file=bypassing,
        device="cpu",
    )


@pytest.mark.launch(fixture=in_a_namespace)
def test_a_killed_node_is_respawned_soon_and_ends_with_the_launch(
    desk: Desk, started: Started
) -> Iterator[None]:
    camera = desk.publisher("/robot/front/image_raw")
    derained = desk.inbox("/robot/front/image_derained")
    until_frames_pass(camera, derained)
    first = started.node()
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: started.exits, "its end")
    until_frames_pass(camera, derained)
    assert time.monotonic() - killed < RESPAWN_S
    assert started.node() != first
    yield
    assert [code for _, code in started.exits] == [-signal.SIGKILL, 0]


@launch_pytest.fixture(shutdown_when_idle=False)
def not_respawned(started: Started, bypassing: str) -> LaunchDescription:
    return started.file("derain.launch.py", params_file=bypassing, respawn="false")


@pytest.mark.launch(fixture=not_respawned)
def test_a_killed_node_stays_down_without_respawn(desk: Desk, started: Started) -> Iterator[None]:
    until_frames_pass(desk.publisher("image"), desk.inbox("image_derained"))
    os.kill(started.node(), signal.SIGKILL)
    until(lambda: started.exits, "its end")
    time.sleep(1.0)  # three times as long as a respawn takes to begin
    yield
    assert [code for _, code in started.exits] == [-signal.SIGKILL]


@launch_pytest.fixture
def with_names(started: Started, bypassing: str) -> LaunchDescription:
    return started.file(
        "derain.launch.py",
        image="/cam/image_raw",
        output="/cam/derained",
        input_reliability="reliable",
        params_file=bypassing,
    )


@pytest.mark.launch(fixture=with_names)
def test_arguments_name_the_topics_and_the_calibration_follows_the_image(
    desk: Desk, started: Started
) -> Iterator[None]:
    until_frames_pass(desk.publisher("/cam/image_raw"), desk.inbox("/cam/derained/image"))
    found = desk.tools.get_subscriptions_info_by_topic("/cam/camera_info")
    assert [info.node_name for info in found] == ["derain"]
    yield
    assert started.ended_well(), started.exits


@launch_pytest.fixture
def with_calibration_elsewhere(started: Started, bypassing: str) -> LaunchDescription:
    return started.file(
        "derain.launch.py",
        image="/cam/image_raw",
        camera_info="/calibration/front",
        params_file=bypassing,
    )


@pytest.mark.launch(fixture=with_calibration_elsewhere)
def test_an_argument_names_the_calibration_topic(desk: Desk, started: Started) -> None:
    until_frames_pass(desk.publisher("/cam/image_raw"), desk.inbox("/image_derained"))
    found = desk.tools.get_subscriptions_info_by_topic("/calibration/front")
    assert [info.node_name for info in found] == ["derain"]


@launch_pytest.fixture
def not_configured(started: Started) -> LaunchDescription:
    return started.file("derain.launch.py", namespace="front", autostart="false", log_level="warn")


@pytest.mark.launch(fixture=not_configured)
def test_the_node_stays_unconfigured_without_autostart(
    desk: Desk, started: Started
) -> Iterator[None]:
    state = desk.call(GetState, "/front/derain/get_state")
    assert state.current_state.label == "unconfigured"
    yield
    assert started.ended_well(), started.exits


@launch_pytest.fixture(params=[("front", "rear"), ("/robot/front", "/robot/rear")], ids=str)
def several_cameras(
    started: Started, bypassing: str, request: pytest.FixtureRequest
) -> LaunchDescription:
    return started.file(
        "multi_camera.launch.py",
        cameras=",".join(request.param),
        image="image_raw",
        params_file=bypassing,
    )


@pytest.mark.launch(fixture=several_cameras)
def test_one_node_serves_several_cameras(
    desk: Desk, started: Started, several_cameras: LaunchDescription, request: pytest.FixtureRequest
) -> Iterator[None]:
    for name in request.node.callspec.params["several_cameras"]:
        until_frames_pass(desk.publisher(f"{name}/image_raw"), desk.inbox(f"{name}/image_derained"))
    yield
    assert started.ended_well(), started.exits


@launch_pytest.fixture
def a_process_each(started: Started, bypassing: str) -> LaunchDescription:
    return started.file(
        "derain.launch.py",
        namespace="robot",
        cameras="front,rear",
        image="image_raw",
        process_per_camera="true",
        params_file=bypassing,
    )


@pytest.mark.launch(fixture=a_process_each)
def test_a_camera_with_its_own_process_survives_the_crash_of_another(
    desk: Desk, started: Started
) -> Iterator[None]:
    front, rear = (
        (desk.publisher(f"/robot/{name}/image_raw"), desk.inbox(f"/robot/{name}/image_derained"))
        for name in ("front", "rear")
    )
    until_frames_pass(*front)
    until_frames_pass(*rear)
    of_front, of_rear = started.node("/robot/front"), started.node("/robot/rear")
    os.kill(of_front, signal.SIGKILL)
    until(lambda: started.exits, "its end")
    until_frames_pass(*rear, timeout_s=2.0)
    until_frames_pass(*front)
    assert started.node("/robot/front") != of_front
    assert started.node("/robot/rear") == of_rear
    yield
    assert [code for _, code in started.exits] == [-signal.SIGKILL, 0, 0]


@launch_pytest.fixture
def with_fallback(started: Started, weights: Path) -> LaunchDescription:
    return started.file(
        "derain.launch.py",
        namespace="front",
        image="image_raw",
        fallback="true",
        output="derained",
        weights=weights,
        device="cpu",
    )


@pytest.mark.launch(fixture=with_fallback)
def test_the_fallback_publishes_images_while_the_node_is_down(
    desk: Desk, started: Started
) -> Iterator[None]:
    camera, always = desk.publisher("/front/image_raw"), desk.inbox("/front/image_always")
    until_frames_pass(camera, always)
    os.kill(started.node(), signal.SIGKILL)
    until(lambda: started.exits, "its end")
    until_frames_pass(camera, always, timeout_s=5.0)
    yield
    first, *rest = (code for _, code in started.exits)
    assert first == -signal.SIGKILL
    assert rest  # the respawned node may not have started yet
    assert not any(rest)


# --- How launch files end, as `ros2 launch` reports it ---


def test_ctrl_c_ends_the_launch_without_error(
    desk: Desk, launcher: Launcher, bypassing: str
) -> None:
    launcher.start("derain.launch.py", f"params_file:={bypassing}")
    until_frames_pass(desk.publisher("image"), desk.inbox("image_derained"))
    node = launcher.node()
    assert launcher.interrupt() == 0, launcher.said()
    assert not Path(f"/proc/{node}").exists()
    assert "process has finished cleanly" in launcher.said()
    assert "Traceback" not in launcher.said()


def test_a_node_that_cannot_work_is_not_respawned(desk: Desk, launcher: Launcher) -> None:
    started = launcher.start("derain.launch.py", "weights:=/nowhere.safetensors")
    assert started.wait(60) == 0  # launch ends when no process is left
    said = launcher.said()
    assert said.count("there is no weight file /nowhere.safetensors") == 1, said
    assert "cannot work as it is set up" in said


@pytest.mark.parametrize(
    ("file", "argument"),
    [
        ("derain.launch.py", "params_file:=/nowhere.yaml"),
        ("demo.launch.py", "camera_params_file:=/nowhere.yaml"),
    ],
)
def test_without_its_parameter_file_nothing_is_started(
    desk: Desk, launcher: Launcher, file: str, argument: str
) -> None:
    assert launcher.start(file, argument).wait(60) == 1
    assert "there is no parameter file /nowhere.yaml" in launcher.said()
    assert "process started" not in launcher.said()


def test_a_misspelt_argument_is_answered_with_a_near_one(
    desk: Desk, launcher: Launcher, bypassing: str
) -> None:
    launcher.start("derain.launch.py", "imgae:=image_raw", f"params_file:={bypassing}", "mine:=1")
    until(lambda: " reads /image " in launcher.said(), "a node that works")
    assert launcher.interrupt() == 0
    assert launcher.said().count("there is no launch argument imgae; near: image") == 1
    assert launcher.said().count("there is no launch argument") == 1


def test_the_shared_memory_profile_is_set_unless_another_is(
    desk: Desk, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    own = next(os.environ[name] for name in names if name in os.environ)

    def profile(*arguments: str) -> str:
        launcher.start("derain.launch.py", "autostart:=false", *arguments)
        environment = Path(f"/proc/{launcher.node()}/environ").read_text()
        pairs = dict(pair.split("=", 1) for pair in environment.split("\0") if "=" in pair)
        assert launcher.interrupt() == 0
        return next((pairs[name] for name in names if name in pairs), "")

    assert profile() == own
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert profile().endswith("config/fastdds.xml")
    assert profile("dds_profile:=none") == ""


def test_a_missing_required_argument_is_named(desk: Desk, launcher: Launcher) -> None:
    assert launcher.start("multi_camera.launch.py").wait(60) == 1
    assert "cameras" in launcher.said()
