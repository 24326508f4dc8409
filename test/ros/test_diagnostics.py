"""Diagnostics show why there are no images, or why they are not derained."""

from __future__ import annotations

import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log
from ros.desk import Desk, Faulty, Inbox, message, picture, until
from sensor_msgs.msg import Image
from std_msgs.msg import String

from rain_removal_ros.engines import EngineInfo
from rain_removal_ros.ros.node.diagnostics import NetworkState, network_status

LARGE_CAMERA = """
import time
from array import array
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("camera")
best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
camera = node.create_publisher(Image, "image", best_effort)
image = Image(height=1080, width=1920, encoding="rgb8", step=3 * 1920)
image.data = array("B", bytes(1080 * image.step))
while True:
    camera.publish(image)
    time.sleep(0.03)
"""
EXACT = {"engine.precision": "float32", "engine.threads": 1, "stream.scene_cut": 0.0}
OFTEN = {"node.diagnostics_s": 0.1}


class Reports:
    """The node's diagnostics: statuses, and their values as dictionaries."""

    def __init__(self, desk: Desk) -> None:
        self._inbox: Inbox = desk.inbox("/diagnostics", DiagnosticArray)

    def wait(self, name: str, **expected: str) -> tuple[DiagnosticStatus, dict[str, str]]:
        """The first report on ``name`` with the expected text in its values; ``_`` is a space."""

        def matching(array: DiagnosticArray) -> Any:
            for status in array.status:
                values = {pair.key: pair.value for pair in status.values}
                found = {key.replace(" ", "_"): value for key, value in values.items()}
                found["message"] = status.message
                if status.name.endswith(name) and all(
                    expected[key] in found.get(key, "") for key in expected
                ):
                    return status, values
            return None

        return matching(self._inbox.wait(lambda array: matching(array) is not None))

    def clear(self) -> None:
        self._inbox.clear()


def test_diagnostics_describe_the_camera_and_the_network(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT, **OFTEN})
    reports = Reports(desk)
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    for _ in range(5):
        derained.clear()
        camera.publish(message(picture()))
        derained.wait()
    status, values = reports.wait(": camera", published="5")
    assert status.hardware_id == "/image"
    assert values["size"] == "64x48"
    assert values["received"] == "5"
    assert 0 <= float(values["latency median [ms]"]) <= float(values["latency p95 [ms]"]) < 30_000
    assert float(values["processing median [ms]"]) > 0
    assert (values["resets: start"], values["last reset"]) == ("1", "start")
    assert float(values["state age [s]"]) >= 0
    assert {"rate in [Hz]", "rate out [Hz]", "rain level"} <= set(values)
    status, values = reports.wait(": network", message=f"{faulty.weights} on cpu")
    assert status.level == DiagnosticStatus.OK
    assert values["network"] == str(faulty.weights)
    assert (values["device"], values["precision"]) == ("cpu", "float32")
    assert values["degradation level"] == "full"
    assert float(values["memory [MiB]"]) > 10
    assert values["loading"] == "false"


def test_faults_are_counted_and_the_last_one_is_described(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT, **OFTEN})
    reports = Reports(desk)
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    faulty.order("raise")
    camera.publish(message(picture()))
    derained.wait()
    _, values = reports.wait(": camera", **{"faults:_network": "1"})
    assert "told to fail" in values["last fault"]
    assert values["passed: fault"] == "1"


def test_a_network_that_cannot_be_loaded_is_an_error_with_the_reason(desk: Desk) -> None:
    desk.derainer({"network.weights": "/nowhere/at/all.safetensors", **OFTEN})
    status, _ = Reports(desk).wait(": network", message="/nowhere/at/all.safetensors")
    assert status.level == DiagnosticStatus.ERROR


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({}, "rainstream"),
        ({"network.name": "rainstream_s"}, "rainstream_s"),
        ({"network.weights": "rainstream_s"}, "rainstream_s"),
    ],
)
def test_the_network_is_reported_by_the_name_that_the_user_gave(
    desk: Desk, parameters: dict[str, str], name: str
) -> None:
    said = desk.inbox("/rosout", Log)
    desk.derainer({**parameters, **EXACT, **OFTEN})
    said.wait(lambda log: log.msg.startswith(f"ready: {name} runs on "))
    _, values = Reports(desk).wait(": network", message=f"{name} on ")
    assert values["network"] == name


def test_a_missing_engine_is_replaced_and_the_reason_is_reported(
    desk: Desk, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    weights = {"network.weights": str(faulty.weights), "engine.name": "openvino"}
    node = desk.derainer({**weights, **EXACT, **OFTEN})
    until(lambda: node.engine, "a loaded network")
    status, values = Reports(desk).wait(": network", network=str(faulty.weights))
    assert status.level == DiagnosticStatus.WARN
    assert status.message == f"{faulty.weights} on cpu: {values['note']}"
    assert values["engine"] == "torch"
    assert values["note"].startswith("running in torch on cpu instead: openvino is not installed")


def test_missing_subscribers_publishers_and_images_are_reported(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always", **OFTEN})
    reports = Reports(desk)
    status, _ = reports.wait(": camera", message="nobody subscribes")
    assert status.level == DiagnosticStatus.OK
    desk.inbox()
    status, _ = reports.wait(": camera", message="nobody publishes /image")
    assert status.level == DiagnosticStatus.WARN
    desk.publisher()
    reports.wait(": camera", message="no image arrives")


def test_a_publisher_with_incompatible_qos_is_reported(desk: Desk) -> None:
    desk.derainer(
        {
            "bypass.mode": "always",
            "qos_overrides./image.subscription.reliability": "reliable",
            **OFTEN,
        }
    )
    reports = Reports(desk)
    desk.inbox()
    desk.publisher(reliable=False)
    status, _ = reports.wait(": camera", message="Best effort publisher")
    assert status.level == DiagnosticStatus.WARN


def test_text_from_messages_cannot_break_lines(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT, **OFTEN})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    nasty = message(picture(), frame="../../etc\n\x1b[31m%s{}" + "x" * 10_000)
    camera.publish(nasty)
    assert derained.wait().header == nasty.header
    odd = Image(header=nasty.header, encoding="\n\x1b[31mrgb8", width=4, height=4, step=12)
    camera.publish(odd)
    derained.wait(lambda one: one.encoding == odd.encoding)
    _, values = Reports(desk).wait(": camera", **{"faults:_unreadable": "1"})
    assert values["last fault"].isprintable()


def test_a_camera_that_nobody_can_read_is_a_warning_until_it_is_over(desk: Desk) -> None:
    node = desk.derainer({"node.diagnostics_s": 0.5})
    reports = Reports(desk)
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    odd = Image(encoding="foo8", width=4, height=4, step=12, data=bytes(48))
    camera.publish(odd)
    status, values = reports.wait(": camera", message="faults just now: 1, the encoding 'foo8'")
    assert status.level == DiagnosticStatus.WARN
    assert values["passed: unreadable"] == "1"
    derained.clear()
    reports.clear()
    camera.publish(message(picture()))
    derained.wait()
    status, _ = reports.wait(": camera", message="Hz")
    assert status.level == DiagnosticStatus.OK


def test_another_type_on_the_topic_is_reported(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always", **OFTEN})
    desk.inbox()
    reports = Reports(desk)
    elsewhere = Desk(desk.domain)  # one participant cannot create both types
    elsewhere.publisher("image", String)
    status, _ = reports.wait(": camera", message="std_msgs/msg/String")
    assert status.level == DiagnosticStatus.WARN
    elsewhere.close()


def test_images_lost_in_transport_are_counted(desk: Desk) -> None:
    """Without the shipped profile, Fast DDS loses most large images sent with best effort."""
    without = {f"{name}_DEFAULT_PROFILES_FILE": "" for name in ("FASTDDS", "FASTRTPS")}
    inbox = desk.inbox("/diagnostics", DiagnosticArray)
    desk.inbox()
    desk.process("-p", "bypass.mode:=always", "-p", "node.diagnostics_s:=0.1", **without)
    desk.python("-c", LARGE_CAMERA, **without)

    def lost(array: DiagnosticArray) -> int:
        values = {pair.key: pair.value for status in array.status for pair in status.values}
        return int(values.get("lost in transport", "0"))

    report = inbox.wait(lambda array: lost(array) or len(inbox.messages) > 150)
    if not lost(report):
        pytest.skip("the middleware here loses none, or takes no note of it")


@pytest.mark.parametrize(("engine", "told"), [("torch", "7"), ("onnxruntime", None)])
def test_gpu_memory_is_reported_for_torch_only(
    monkeypatch: pytest.MonkeyPatch, engine: str, told: str | None
) -> None:
    """Torch does not see what other engines allocate, and would report next to nothing."""
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7 * 2**20)
    info = EngineInfo("prenet", engine, "cuda", "float32")
    running: Any = SimpleNamespace(info=info, note="")
    state = NetworkState(
        active=True,
        enabled=True,
        engine=running,
        loading=False,
        trouble="",
        rung="full",
        stages=1,
        faults=Counter(),
    )
    values = {pair.key: pair.value for pair in network_status("derain", state).values}
    assert values.get("device memory [MiB]") == told
