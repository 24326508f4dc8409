"""Plays a recording to the node: ros2 launch rain_removal_ros bag.launch.py bag:=drive

The player is ros2 bag play where that is installed, and rain-removal bag-play where not.
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

PACKAGE = "rain_removal_ros"


def generate_launch_description() -> LaunchDescription:
    node = PathJoinSubstitution([FindPackageShare(PACKAGE), "launch", "derain.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="the recording"),
            DeclareLaunchArgument("rate", default_value="1.0", description="times as fast"),
            DeclareLaunchArgument("loop", default_value="false", description="again and again"),
            DeclareLaunchArgument("namespace", default_value="camera"),
            DeclareLaunchArgument("image", default_value="image_raw"),
            IncludeLaunchDescription(node),
            OpaqueFunction(function=_player),
        ]
    )


def _player(context: LaunchContext) -> list:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    loop = ["--loop"] if given("loop") == "true" else []
    flags = [given("bag"), "--rate", given("rate"), *loop]
    try:
        get_package_prefix("ros2bag")
        command = ["ros2", "bag", "play", *flags]
    except PackageNotFoundError:
        own = Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / "rain-removal"
        command = [str(own), "bag-play", *flags]
    return [ExecuteProcess(cmd=command, name="bag_player", output="screen")]
