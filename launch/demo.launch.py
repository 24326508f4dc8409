"""Starts a simulated camera in the rain, the node, and a viewer if one is installed.

    ros2 launch rain_removal_ros demo.launch.py

Takes the arguments of derain.launch.py too.
"""

import shutil

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from rain_removal_ros.runtime.launch_arguments import parameter_files

SHARE = FindPackageShare("rain_removal_ros")


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "viewer", default_value="auto", description="auto (RViz or rqt_image_view) or none"
            ),
            DeclareLaunchArgument(
                "camera_params_file",
                default_value="",
                description="parameter file of the simulated camera",
            ),
            OpaqueFunction(function=_checked),
            # First, because it also sets the transport for everything started after it.
            IncludeLaunchDescription(PathJoinSubstitution([SHARE, "launch", "derain.launch.py"])),
            OpaqueFunction(function=_camera),
            OpaqueFunction(function=_viewer),
        ]
    )


def _checked(context: LaunchContext) -> list:
    """Nothing starts without the parameter file: an error after the node's start would leave it."""
    parameter_files(LaunchConfiguration("camera_params_file").perform(context))
    return []


def _camera(context: LaunchContext) -> list:
    given = LaunchConfiguration("camera_params_file").perform(context)
    return [
        Node(
            package="rain_removal_ros",
            executable="sim_camera",
            namespace=LaunchConfiguration("namespace"),
            parameters=parameter_files(given),
            output="screen",
        )
    ]


def _viewer(context: LaunchContext) -> list:
    """RViz with the layout that ships, or rqt_image_view, or a message on what to install."""
    if LaunchConfiguration("viewer").perform(context) == "none":
        return []
    if shutil.which("rviz2"):
        layout = PathJoinSubstitution([SHARE, "config", "derain.rviz"])
        return [Node(package="rviz2", executable="rviz2", arguments=["-d", layout])]
    if shutil.which("rqt_image_view"):
        return [
            Node(
                package="rqt_image_view", executable="rqt_image_view", arguments=["/image_derained"]
            )
        ]
    return [LogInfo(msg="no viewer: install rviz2 or rqt_image_view, or look at /image_derained")]
