"""Several cameras in one node, batched on the device where they are of one size:

ros2 launch rain_removal_ros multi_camera.launch.py cameras:=front,rear image:=image_raw
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("rain_removal_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument("cameras", description="namespaces of the cameras: front,rear"),
            # It takes all arguments of derain.launch.py, and asks for the one that matters here.
            IncludeLaunchDescription(PathJoinSubstitution([share, "launch", "derain.launch.py"])),
        ]
    )
