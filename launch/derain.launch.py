"""Starts the node and keeps it running.

    ros2 launch rain_removal_ros derain.launch.py namespace:=front image:=image_raw

The node configures and activates itself, also after a restart, so that a crash costs only seconds.
A node whose configuration cannot work ends once and is not restarted. With autostart:=false a
lifecycle manager configures it instead.

Several cameras share a node and its network. A crash in a library then takes all of them, for the
seconds of a restart; with process_per_camera:=true it takes one.
"""

from functools import partial

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from rain_removal_ros.runtime import dds
from rain_removal_ros.runtime.launch_arguments import misspelt, parameter_files

PACKAGE = "rain_removal_ros"
ARGUMENTS = [
    DeclareLaunchArgument("namespace", default_value="", description="the camera's namespace"),
    DeclareLaunchArgument(
        "image", default_value="image", description="the camera's image topic, in its namespace"
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="",
        description="calibration topic, if it is not beside the image",
    ),
    DeclareLaunchArgument(
        "output",
        default_value="",
        description="namespace of the published topics, such as derained",
    ),
    DeclareLaunchArgument(
        "input_reliability",
        default_value="",
        description="parameter input.reliability: auto, reliable or best_effort",
    ),
    DeclareLaunchArgument(
        "cameras", default_value="", description="several cameras in one node, such as front,rear"
    ),
    DeclareLaunchArgument(
        "process_per_camera",
        default_value="false",
        description="a node in each camera's namespace, in a process that is restarted by itself",
    ),
    DeclareLaunchArgument(
        "fallback",
        default_value="false",
        description="also publish image_always: the camera's own images while none are derained",
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
    DeclareLaunchArgument("log_level", default_value="info", description="the node's log level"),
    DeclareLaunchArgument(
        "respawn", default_value="true", description="restart the node after a crash"
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
    "output": ("output.namespace", str),
    "input_reliability": ("input.reliability", str),
}
"""Arguments that are parameters. They are passed on only if set, so the defaults are the node's."""
RESPAWN_DELAY_S = 0.3
CANNOT_WORK = 2
"""Exit code of a node whose configuration cannot work."""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=_misspelt),
            OpaqueFunction(function=_profile),
            OpaqueFunction(function=_node),
        ]
    )


def _misspelt(context: LaunchContext) -> list:
    """Launch itself ignores arguments that it does not know."""
    known = [argument.name for argument in ARGUMENTS]
    return [LogInfo(msg=line) for line in misspelt(context.launch_configurations, known)]


def _profile(context: LaunchContext) -> list:
    """Set the profile in the variable that this version of Fast DDS reads, unless one is set."""
    profile = LaunchConfiguration("dds_profile").perform(context)
    if profile == "none" or dds.names_a_profile(context.environment):
        return []
    return [SetEnvironmentVariable(dds.profile_variable(), profile)]


def _node(context: LaunchContext) -> list:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    parameters: list = parameter_files(given("params_file"))
    for name, (parameter, kind) in PARAMETERS.items():
        if given(name):
            parameters.append(
                {parameter: ParameterValue(LaunchConfiguration(name), value_type=kind)}
            )
    cameras = [name for name in given("cameras").split(",") if name]
    shared = given("process_per_camera") != "true"
    if cameras and shared:
        parameters.append({"input.cameras": cameras})
    namespaces = [given("namespace")]
    if not shared:
        namespaces = [_below(given("namespace"), name) for name in cameras] or namespaces
    actions = []
    for namespace in namespaces:
        prefixes = [f"{name}/" for name in cameras if shared] or [""]
        actions += _kept_running(
            partial(
                Node,
                package=PACKAGE,
                executable="derain_node",
                name="derain",
                namespace=namespace,
                parameters=parameters,
                remappings=_remappings(prefixes, given("image"), given("camera_info")),
                arguments=["--ros-args", "--log-level", given("log_level")],
                output="screen",
            ),
            respawn=given("respawn") == "true",
        )
    if given("fallback") == "true":
        for name in cameras or [""]:
            namespace = _below(given("namespace"), name)
            actions += _fallback(namespace, given("image"), given("output"))
    return actions


def _remappings(prefixes: list, image: str, camera_info: str) -> list:
    """Of the topics that are read, for each camera of a node."""
    wanted = [("image", image), ("camera_info", camera_info)]
    return [
        (prefix + topic, _below(prefix, name))
        for topic, name in wanted
        if name and name != topic
        for prefix in prefixes
    ]


def _fallback(namespace: str, image: str, output: str) -> list:
    """A process that has the camera's images when the node has none."""
    derained = [("image_derained", f"{output}/image")] if output else []
    return [
        Node(
            package=PACKAGE,
            executable="image_fallback",
            namespace=namespace,
            remappings=[*_remappings([""], image, ""), *derained],
            output="screen",
            respawn=True,
            respawn_delay=RESPAWN_DELAY_S,
        )
    ]


def _below(prefix: str, name: str) -> str:
    """Absolute names stay as they are; others are in the camera's namespace."""
    if name.startswith("/") or not prefix:
        return name
    return f"{prefix.rstrip('/')}/{name}".rstrip("/")


def _kept_running(create, *, respawn: bool) -> list:
    """A node that is restarted after a crash, but not if its configuration cannot work."""
    node = create()

    def ended(event: ProcessExited, context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        if event.returncode == CANNOT_WORK:
            # The file may be included in the launch of a whole robot, which goes on.
            return [LogInfo(msg="the node cannot work as it is set up: see its last error")]
        if not respawn:
            return []
        return [TimerAction(period=RESPAWN_DELAY_S, actions=_kept_running(create, respawn=True))]

    return [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended))]
