"""The node's topics follow the camera in name and reliability."""

from __future__ import annotations

from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import ReliabilityPolicy
from ros.desk import Desk, message, picture, until
from sensor_msgs.msg import CameraInfo

BYPASS = {"bypass.mode": "always"}
OFTEN = {"node.diagnostics_s": 0.1}


def reliabilities(desk: Desk, topic: str) -> list[ReliabilityPolicy]:
    """The reliability of the node's subscriptions to a topic."""
    found = desk.tools.get_subscriptions_info_by_topic(topic)
    return [info.qos_profile.reliability for info in found if info.node_name == "derain"]


@pytest.mark.parametrize("reliable", [True, False])
def test_the_input_is_as_reliable_as_the_camera(desk: Desk, reliable: bool) -> None:
    desk.derainer(BYPASS)
    camera, derained = desk.publisher("image", reliable=reliable), desk.inbox()
    wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    until(
        lambda: reliabilities(desk, "/image") == [wanted], f"a subscription that is {wanted.name}"
    )
    desk.listened(camera)
    until(lambda: camera.publish(message(picture())) or derained.messages, "a frame")


def test_the_reliability_of_the_input_follows_its_publishers(desk: Desk) -> None:
    desk.derainer(BYPASS)
    camera, derained = desk.publisher("image", reliable=True), desk.inbox()
    until(lambda: reliabilities(desk, "/image") == [ReliabilityPolicy.RELIABLE], "reliable")
    other = desk.publisher("image", reliable=False)
    until(lambda: reliabilities(desk, "/image") == [ReliabilityPolicy.BEST_EFFORT], "best effort")
    derained.clear()
    until(lambda: other.publish(message(picture())) or derained.messages, "a frame of the other")
    desk.tools.destroy_publisher(other)
    until(lambda: reliabilities(desk, "/image") == [ReliabilityPolicy.RELIABLE], "reliable again")
    derained.clear()
    until(lambda: camera.publish(message(picture())) or derained.messages, "a frame")


def test_a_mismatch_with_the_set_reliability_is_reported_until_it_ends(desk: Desk) -> None:
    desk.derainer({**BYPASS, **OFTEN, "input.reliability": "reliable"})
    camera, _ = desk.publisher("image", reliable=False), desk.inbox()
    reports = desk.inbox("/diagnostics", DiagnosticArray)

    def says(text: str) -> bool:
        reports.clear()
        newest = reports.wait()
        return any(text in status.message for status in newest.status)

    until(lambda: says("a publisher of /image has another QoS"), "a warning of the mismatch")
    desk.tools.destroy_publisher(camera)
    reliable = desk.publisher("image", reliable=True)
    until(lambda: not says("another QoS"), "no warning any more")
    reliable.publish(message(picture()))


def test_the_calibration_topic_is_beside_that_of_the_image(desk: Desk) -> None:
    desk.derainer(BYPASS, remap={"image": "/cam/image_raw"})
    camera, infos = (
        desk.publisher("/cam/image_raw"),
        desk.publisher("/cam/camera_info", CameraInfo),
    )
    derained = desk.inbox()
    info = desk.inbox("camera_info_derained", CameraInfo)
    desk.listened(camera)
    desk.listened(infos)
    sent = message(picture(), stamp_ns=7)
    infos.publish(CameraInfo(header=sent.header, width=64, height=48))
    until(lambda: camera.publish(sent) or info.messages, "a calibration")
    assert info.messages[0].header == sent.header
    assert derained.messages


def test_a_remapped_calibration_topic_is_kept(desk: Desk) -> None:
    remap = {"image": "/cam/image_raw", "camera_info": "/other/info"}
    node = desk.derainer(BYPASS, remap=remap)
    until(lambda: node.cameras, "topics")
    assert node.cameras[0].info_topic == "/other/info"


def test_an_output_namespace_holds_the_image_and_its_calibration(desk: Desk) -> None:
    desk.derainer({**BYPASS, "output.namespace": "derained"})
    camera, derained = desk.publisher(), desk.inbox("derained/image")
    infos = desk.publisher("camera_info", CameraInfo)
    info = desk.inbox("derained/camera_info", CameraInfo)
    desk.listened(camera)
    desk.listened(infos)
    sent = message(picture(), stamp_ns=7)
    infos.publish(CameraInfo(header=sent.header, width=64, height=48))
    until(lambda: camera.publish(sent) or info.messages, "a calibration")
    assert derained.wait().header == info.messages[0].header


def test_cameras_may_have_absolute_names(desk: Desk) -> None:
    desk.derainer({**BYPASS, "input.cameras": ["/robot/front", "rear"]})
    for prefix in ("/robot/front", "rear"):
        camera, derained = desk.publisher(f"{prefix}/image"), desk.inbox(f"{prefix}/image_derained")
        desk.listened(camera)
        until(lambda c=camera, d=derained: c.publish(message(picture())) or d.messages, "a frame")


@pytest.mark.parametrize(
    ("parameters", "remap"),
    [
        ({}, {"image": "/image_derained"}),
        ({}, {"image": "/x", "image_derained": "/x"}),
        ({"output.namespace": "derained"}, {"image": "/derained/image"}),
        ({"output.compressed": True}, {"image": "/x", "image_derained": "/x"}),
    ],
)
def test_a_node_that_would_read_its_own_output_is_not_configured(
    desk: Desk, parameters: dict[str, Any], remap: dict[str, str]
) -> None:
    node = desk.derainer({**BYPASS, **parameters, "node.autostart": False}, remap=remap)
    assert node.trigger_configure().name != "SUCCESS"
    assert not node.cameras
