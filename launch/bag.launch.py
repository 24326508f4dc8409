"""Plays a recording to the node.

    ros2 launch rain_removal_ros bag.launch.py bag:=drive

Playing starts once the network is ready. The recording's time is published on /clock and used by
all nodes. The launch ends with the recording. The player is ros2 bag play if that is installed,
else rain-removal bag-play.
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetParameter
from launch_ros.substitutions import FindPackageShare

PACKAGE = "rain_removal_ros"
PATIENCE_S = "5"


def generate_launch_description() -> LaunchDescription:
    node = PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "derain.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="the recording to play"),
            DeclareLaunchArgument("rate", default_value="1.0", description="playback speed"),
            DeclareLaunchArgument(
                "loop", default_value="false", description="repeat the recording"
            ),
            DeclareLaunchArgument(
                "ready_timeout", default_value="120", description="seconds to wait for the network"
            ),
            DeclareLaunchArgument(
                "namespace", default_value="camera", description="the camera's namespace"
            ),
            DeclareLaunchArgument(
                "image", default_value="image_raw", description="image topic of the recording"
            ),
            OpaqueFunction(function=_checked),
            SetParameter("use_sim_time", True),
            IncludeLaunchDescription(node),
            OpaqueFunction(function=_play_when_ready),
        ]
    )


def _checked(context: LaunchContext) -> list:
    """Nothing starts without a recording to play."""
    bag = LaunchConfiguration("bag").perform(context)
    if not Path(bag).exists():
        raise RuntimeError(f"there is no recording {bag}")
    return []


def _play_when_ready(context: LaunchContext) -> list:
    tools = Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE
    timeout = LaunchConfiguration("ready_timeout").perform(context)
    waiter = ExecuteProcess(
        cmd=[str(tools / "wait_until_ready"), "--timeout", timeout],
        name="wait_until_ready",
        output="screen",
    )
    player = ExecuteProcess(cmd=_player(context, tools), name="bag_player", output="screen")
    return [
        waiter,
        RegisterEventHandler(OnProcessExit(target_action=waiter, on_exit=_then([player]))),
        RegisterEventHandler(
            OnProcessExit(
                target_action=player,
                on_exit=_then([EmitEvent(event=Shutdown(reason="the recording has ended"))]),
            )
        ),
    ]


def _player(context: LaunchContext, tools: Path) -> list[str]:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    loop = ["--loop"] if given("loop") == "true" else []
    flags = [given("bag"), "--rate", given("rate"), "--clock", *loop]
    try:
        get_package_prefix("ros2bag")
    except PackageNotFoundError:
        name = given("image")
        topic = name if name.startswith("/") else f"/{given('namespace').strip('/')}/{name}"
        # The node subscribes if somebody wants its output, which may not be known yet.
        wait = ["--wait-for", topic, "--patience", PATIENCE_S]
        return [str(tools / "rain-removal"), "bag-play", *flags, *wait]
    return ["ros2", "bag", "play", *flags]


def _then(actions: list):
    """What follows a process that ends well; if it fails, the launch ends with an error."""

    def ended(event: ProcessExited, context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        if event.returncode != 0:
            raise RuntimeError(f"{event.process_name} ended with {event.returncode}")
        return actions

    return ended
