"""The launch files, run for real where launch is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import recordings
from ros.desk import ROOT, Desk, message, picture, until

pytest.importorskip("launch_ros", reason="launch_ros is not installed; it is in no registry")

RESPAWN_S = 5.0
EXPECTED: list[subprocess.Popen[str]] = []
"""Launches that were to fail."""
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
file, *given = sys.argv[1:]
arguments = [tuple(one.split(":=", 1)) for one in given]
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(file, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("rain_removal_ros")
    except PackageNotFoundError:
        pytest.skip("the package is not installed where AMENT_PREFIX_PATH points")


Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(desk: Desk, tmp_path: Path) -> Iterator[Launch]:
    """Run a launch file with arguments, in the test's domain."""
    running: list[subprocess.Popen[str]] = []
    log = (tmp_path / "log").open("w+")

    def start(file: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(ROOT / "launch" / file), *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(desk.domain), "ROS_LOG_DIR": str(tmp_path)},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    codes = []
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        codes.append(process.wait(30) if process not in EXPECTED else 0)
    log.close()
    assert not any(codes), (tmp_path / "log").read_text()


def node_of(launch: subprocess.Popen[str]) -> int:
    """The process id of the node that a launch file started."""

    (first, *_) = until(lambda: nodes_of(launch), "the node's process")
    return int(first)


def nodes_of(launch: subprocess.Popen[str], argument: str = "") -> list[int]:
    """The process ids of the nodes that a launch file started, with an argument if one is given."""
    children = Path(f"/proc/{launch.pid}/task/{launch.pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    wanted = (b"rain_removal_ros.ros.node", argument.encode())
    return [child for child, command in commands.items() if all(w in command for w in wanted)]


def frames(camera: Any, clean: Any, timeout_s: float = 30.0) -> None:
    """Wait until frames come through."""
    clean.clear()
    until(
        lambda: camera.publish(message(picture())) or clean.messages, "frames", timeout_s=timeout_s
    )


def test_the_node_runs_in_the_namespace_and_is_back_soon_after_it_was_killed(
    desk: Desk, launch: Launch, tmp_path: Path
) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    bypass: {mode: always}\n")
    started = launch(
        "derain.launch.py",
        "namespace:=robot/front",
        "image:=image_raw",
        f"params_file:={parameters}",
        "device:=cpu",
    )
    camera, clean = (
        desk.publisher("/robot/front/image_raw"),
        desk.inbox("/robot/front/image_derained"),
    )
    frames(camera, clean)
    first = node_of(started)
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: not Path(f"/proc/{first}").exists(), "its end")
    frames(camera, clean)
    assert time.monotonic() - killed < RESPAWN_S
    assert node_of(started) != first


def test_cameras_may_have_a_process_each_and_a_crash_of_one_is_not_the_others(
    desk: Desk, launch: Launch, tmp_path: Path
) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    bypass: {mode: always}\n")
    started = launch(
        "derain.launch.py",
        *("namespace:=robot", "cameras:=front,rear", "image:=image_raw"),
        *("process_per_camera:=true", f"params_file:={parameters}"),
    )
    front, rear = (
        (desk.publisher(f"/robot/{name}/image_raw"), desk.inbox(f"/robot/{name}/image_derained"))
        for name in ("front", "rear")
    )
    frames(*front)
    frames(*rear)
    (of_front,) = nodes_of(started, "__ns:=/robot/front")
    (of_rear,) = nodes_of(started, "__ns:=/robot/rear")
    os.kill(of_front, signal.SIGKILL)
    until(lambda: of_front not in nodes_of(started), "its end")
    frames(*rear, timeout_s=2.0)
    until(lambda: nodes_of(started, "__ns:=/robot/front"), "a new process")
    frames(*front)
    assert nodes_of(started, "__ns:=/robot/rear") == [of_rear]


def test_there_are_images_while_the_node_is_away(
    desk: Desk, launch: Launch, tmp_path: Path, weights: Path
) -> None:
    started = launch(
        "derain.launch.py",
        *("namespace:=front", "image:=image_raw", "fallback:=true", "output:=derained"),
        *(f"weights:={weights}", "device:=cpu"),
    )
    camera, always = desk.publisher("/front/image_raw"), desk.inbox("/front/image_always")
    frames(camera, always)
    (node,) = nodes_of(started)
    os.kill(node, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{node}").exists(), "its end")
    frames(camera, always, timeout_s=5.0)


def test_the_shared_memory_profile_is_set_unless_there_is_another(
    desk: Desk, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    own = next(os.environ[name] for name in names if name in os.environ)

    def profile(*arguments: str) -> str:
        environment = Path(f"/proc/{node_of(launch('derain.launch.py', *arguments))}/environ")
        pairs = dict(
            pair.split("=", 1) for pair in environment.read_text().split("\0") if "=" in pair
        )
        return next((pairs[name] for name in names if name in pairs), "")

    assert profile() == own
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert profile().endswith("config/fastdds.xml")
    assert profile("dds_profile:=none") == ""


def test_one_node_serves_several_cameras(desk: Desk, launch: Launch) -> None:
    launch("multi_camera.launch.py", "cameras:=front,rear", "image:=image_raw")
    for name in ("front", "rear"):
        frames(desk.publisher(f"{name}/image_raw"), desk.inbox(f"{name}/image_derained"))


def test_the_demo_shows_rain_and_the_same_frames_cleaned(
    desk: Desk, launch: Launch, tmp_path: Path, weights: Path
) -> None:
    parameters = tmp_path / "camera.yaml"
    parameters.write_text(
        "/**/sim_camera:\n  ros__parameters:\n"
        "    scene: {width: 96, height: 64, fps: 10.0}\n    loop_s: 1.0\n"
    )
    # Frames go through untouched while the network loads; only clean ones have attention.
    attention, rainy = desk.inbox("street/attention"), desk.inbox("street/image")
    launch(
        "demo.launch.py",
        "viewer:=none",
        "namespace:=street",
        f"weights:={weights}",
        f"camera_params_file:={parameters}",
    )
    stamp = attention.wait(timeout_s=60.0).header.stamp
    assert any(message.header.stamp == stamp for message in rainy.messages)


def test_a_recording_is_played_to_the_node_when_it_is_ready_and_the_launch_ends_with_it(
    desk: Desk, launch: Launch, tmp_path: Path, weights: Path
) -> None:
    bag = recordings.write(tmp_path / "bag", recordings.entries())
    # Only clean frames have attention, so none may come too early.
    attention, clean = desk.inbox("/camera/attention"), desk.inbox("/camera/image_derained")
    started = launch("bag.launch.py", f"bag:={bag}", f"weights:={weights}")
    assert clean.wait(timeout_s=60.0).header.frame_id == "camera"
    assert attention.wait(timeout_s=60.0).header.stamp == clean.messages[0].header.stamp
    assert started.wait(60) == 0


def test_without_its_recording_nothing_is_started(desk: Desk, launch: Launch) -> None:
    started = launch("bag.launch.py", "bag:=/nowhere")
    assert started.wait(60) == 1
    EXPECTED.append(started)


def test_a_node_that_cannot_work_is_not_started_again(
    desk: Desk, launch: Launch, tmp_path: Path
) -> None:
    started = launch("derain.launch.py", "weights:=/nowhere.safetensors")
    assert started.wait(60) == 0  # a launch without processes is at its end
    said = (tmp_path / "log").read_text()
    assert said.count("there is no weight file /nowhere.safetensors") == 1, said
    assert "cannot work as it is set up" in said


def test_names_are_arguments(desk: Desk, launch: Launch, tmp_path: Path) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    bypass: {mode: always}\n")
    launch(
        "derain.launch.py",
        "image:=/cam/image_raw",
        "output:=/cam/derained",
        "input_reliability:=reliable",
        f"params_file:={parameters}",
    )
    frames(desk.publisher("/cam/image_raw"), desk.inbox("/cam/derained/image"))
    found = desk.tools.get_subscriptions_info_by_topic("/cam/camera_info")
    assert [info.node_name for info in found] == ["derain"]


def test_cameras_may_have_absolute_names(desk: Desk, launch: Launch) -> None:
    launch("multi_camera.launch.py", "cameras:=/robot/front,/robot/rear", "image:=image_raw")
    for name in ("/robot/front", "/robot/rear"):
        frames(desk.publisher(f"{name}/image_raw"), desk.inbox(f"{name}/image_derained"))
