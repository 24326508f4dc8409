"""Starts one node for several cameras; frames of the same size are batched.

    ros2 launch rain_removal_ros multi_camera.launch.py cameras:=front,rear image:=image_raw

Takes the arguments of derain.launch.py too; only cameras is required.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("rain_removal_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "cameras", description="namespaces of the cameras, such as front,rear"
            ),
            # Takes all arguments of derain.launch.py; only cameras is required.
            IncludeLaunchDescription(PathJoinSubstitution([share, "launch", "derain.launch.py"])),
        ]
    )
