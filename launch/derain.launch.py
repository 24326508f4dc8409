"""Starts the node and keeps it running: ros2 launch rain_removal_ros derain.launch.py

The node configures and activates itself, at the start and whenever it is started again, so that a
crash costs seconds. With autostart:=false a life cycle manager does that instead.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from rain_removal_ros.runtime import dds

PACKAGE = "rain_removal_ros"
ARGUMENTS = [
    DeclareLaunchArgument("namespace", default_value="", description="the camera's namespace"),
    DeclareLaunchArgument(
        "image", default_value="image", description="the camera's image topic, in its namespace"
    ),
    DeclareLaunchArgument(
        "cameras", default_value="", description="several cameras in one node: front,rear"
    ),
    DeclareLaunchArgument(
        "params_file", default_value="", description="parameter file; see config/ for examples"
    ),
    DeclareLaunchArgument("network", default_value="", description="parameter network.name"),
    DeclareLaunchArgument("weights", default_value="", description="parameter network.weights"),
    DeclareLaunchArgument("device", default_value="", description="parameter engine.device"),
    DeclareLaunchArgument(
        "autostart", default_value="", description="parameter node.autostart: true or false"
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="of the node"),
    DeclareLaunchArgument(
        "respawn", default_value="true", description="start the node again when it ends"
    ),
    DeclareLaunchArgument(
        "dds_profile",
        default_value=PathJoinSubstitution([FindPackageShare(PACKAGE), "config", "fastdds.xml"]),
        description="Fast DDS profile for large images; none leaves the environment as it is",
    ),
]
PARAMETERS = {
    "network": ("network.name", str),
    "weights": ("network.weights", str),
    "device": ("engine.device", str),
    "autostart": ("node.autostart", bool),
}
"""Arguments that are parameters, given only where they are set: the defaults are the node's."""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [*ARGUMENTS, OpaqueFunction(function=_profile), OpaqueFunction(function=_node)]
    )


def _profile(context: LaunchContext) -> list:
    """Set the profile under the name this version of Fast DDS reads, unless there is one."""
    profile = LaunchConfiguration("dds_profile").perform(context)
    if profile == "none" or dds.names_a_profile(context.environment):
        return []
    return [SetEnvironmentVariable(dds.profile_variable(), profile)]


def _node(context: LaunchContext) -> list:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    parameters: list = [given("params_file")] if given("params_file") else []
    for name, (parameter, kind) in PARAMETERS.items():
        if given(name):
            parameters.append(
                {parameter: ParameterValue(LaunchConfiguration(name), value_type=kind)}
            )
    cameras = [name for name in given("cameras").split(",") if name]
    if cameras:
        parameters.append({"input.cameras": cameras})
    prefixes = [f"{name}/" for name in cameras] or [""]
    remappings = [(f"{prefix}image", f"{prefix}{given('image')}") for prefix in prefixes]
    return [
        Node(
            package=PACKAGE,
            executable="derain_node",
            name="derain",
            namespace=given("namespace"),
            parameters=parameters,
            remappings=[pair for pair in remappings if pair[0] != pair[1]],
            arguments=["--ros-args", "--log-level", given("log_level")],
            output="screen",
            respawn=given("respawn") == "true",
            respawn_delay=0.3,
        )
    ]
