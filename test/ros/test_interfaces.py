"""The documented topics and services are those of the running nodes."""

from __future__ import annotations

from ros.desk import Desk, until
from sensor_msgs.msg import CompressedImage

from rain_removal_ros.ros.interfaces import DERAIN, SIM_CAMERA, Interface
from rain_removal_ros.ros.tools.simulator import SimCamera

OF_EVERY_NODE = {"/parameter_events", "/rosout", "/derain/transition_event"}


def documented(entries: tuple[Interface, ...], node: str = "derain") -> set[tuple[str, str]]:
    """Documented names and types, without the entry that stands for many."""
    return {
        (entry.name.replace("~/", f"/{node}/", 1).replace("//", "/") if "~" in entry.name
         else f"/{entry.name.lstrip('/')}", entry.type)
        for entry in entries
        if "..." not in entry.type
    }  # fmt: skip


def used(desk: Desk, kind: str, node: str = "derain") -> set[tuple[str, str]]:
    found = getattr(desk.tools, f"get_{kind}_names_and_types_by_node")(node, "/")
    return {(name, types[0]) for name, types in found if name not in OF_EVERY_NODE}


def test_the_node_publishes_the_documented_topics(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always", "output.compressed": True})
    until(lambda: used(desk, "publisher") == documented(DERAIN.published), "the topics")


def test_the_node_subscribes_to_the_documented_topics(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always"})
    desk.inbox()
    seen: set[tuple[str, str]] = set()
    for camera in (desk.publisher("image"), None):
        if camera is None:
            camera = desk.publisher("image/compressed", CompressedImage)
        until(
            lambda topic=camera.topic_name: any(
                name == topic for name, _ in used(desk, "subscriber")
            ),
            f"a subscription to {camera.topic_name}",
        )
        seen |= used(desk, "subscriber")
        desk.tools.destroy_publisher(camera)
    assert seen == documented(DERAIN.subscribed)


def test_the_node_has_the_documented_services(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always"})
    until(lambda: documented(DERAIN.services) <= used(desk, "service"), "the services")
    others = used(desk, "service") - documented(DERAIN.services)
    assert all("lifecycle_msgs" in kind or "rcl_interfaces" in kind or "type_description" in kind
               for _, kind in others)  # fmt: skip


def test_the_simulated_camera_publishes_the_documented_topics(desk: Desk) -> None:
    camera = SimCamera(context=desk.context, use_global_arguments=False)
    try:
        until(
            lambda: used(desk, "publisher", "sim_camera") == documented(SIM_CAMERA.published),
            "the topics",
        )
    finally:
        camera.destroy_node()
