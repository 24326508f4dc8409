"""Nothing that arrives on a topic ends the process or stops the images."""

from __future__ import annotations

import gc
import random
import resource
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fuzz.messages import broken_compressed, broken_image
from fuzz.pictures import jpeg_of_many_scans
from ros.desk import Desk, Faulty, message, picture, until
from sensor_msgs.msg import CompressedImage, Image

from rain_removal_ros import codec

EXACT = {"engine.precision": "float32", "engine.threads": 1, "stream.scene_cut": 0.0}


def send_broken(desk: Desk, faulty: Faulty, count: int, kind: Any, broken: Any) -> None:
    """Send broken messages; all are accounted for, and a whole frame still comes out."""
    node = desk.derainer(
        {
            "network.weights": str(faulty.weights),
            "bypass.mode": "auto",
            "output.compressed": True,
            "input.transport": "raw" if kind is Image else "compressed",
            "qos_overrides./image.subscription.reliability": "reliable",
            "qos_overrides./image.subscription.depth": 50,
            "qos_overrides./image/compressed.subscription.reliability": "reliable",
            "qos_overrides./image/compressed.subscription.depth": 50,
            **EXACT,
        }
    )
    topic = "image" if kind is Image else "image/compressed"
    camera, derained = desk.publisher(topic, kind), desk.inbox()
    for other in ("attention", "rain_level", "image_derained/compressed"):
        desk.inbox(other, _kind_of(other))
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    choice = random.Random(7)
    for index in range(1, count + 1):
        camera.publish(broken(choice))
        if index % 10 == 0:
            until(
                lambda index=index: node.statistics[0].summary().received >= index, "their arrival"
            )
    until(lambda: _accounted(node) == count, "an account of every message")
    whole = message(picture(), stamp_ns=10**15)
    if kind is Image:
        camera.publish(whole)
    else:
        packed = CompressedImage()
        codec.write_compressed(packed, picture(), format="png", quality=50, header=whole.header)
        camera.publish(packed)
    derained.wait(lambda one: one.header == whole.header)


def _accounted(node: Any) -> int:
    summary = node.statistics[0].summary()
    return int(summary.published + summary.dropped.total())


def _kind_of(topic: str) -> Any:
    from std_msgs.msg import Float32

    return {"attention": Image, "rain_level": Float32}.get(topic, CompressedImage)


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
@pytest.mark.parametrize(
    ("kind", "broken"),
    [(Image, broken_image), (CompressedImage, broken_compressed)],
    ids=["raw", "compressed"],
)
def test_malformed_messages_pass_through_or_are_dropped_and_counted(
    desk: Desk, faulty: Faulty, count: int, kind: Any, broken: Any
) -> None:
    send_broken(desk, faulty, count, kind, broken)


def test_a_size_without_data_for_it_is_ignored(desk: Desk) -> None:
    node = desk.derainer({"bypass.mode": "always"})
    camera, through = desk.publisher(), desk.inbox()
    desk.listened(camera)
    camera.publish(Image(height=2**16, width=2**16, encoding="rgb8", step=3 * 2**16))
    through.count(1)
    assert node.sizes() == []
    camera.publish(message(picture()))
    through.count(2)
    assert node.sizes() == [(48, 64)]


def test_frames_that_are_too_large_or_would_be_mostly_padding_pass_through(
    desk: Desk, faulty: Faulty
) -> None:
    node = desk.derainer(
        {"network.name": "rainstream_s", "limits.frame_mp": 0.5, "engine.device": "cpu"}
    )
    camera, through = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    for index, (height, width) in enumerate([(1, 200_000), (600, 900)]):
        sent = message(np.zeros((height, width, 3), np.uint8), stamp_ns=index)
        camera.publish(sent)
        received = through.wait(lambda one, sent=sent: one.header == sent.header)
        assert (received.height, received.width) == (height, width)
    assert node.statistics[0].summary().passed["too large"] == 2
    assert "limits.frame_mp" in node.statistics[0].summary().last_fault


def test_memory_for_a_large_frame_is_released(desk: Desk) -> None:
    settings = (
        *("bypass.mode:=auto", "input.transport:=compressed", "safety.watchdog_s:=60.0"),
        "limits.frame_mp:=40.0",
    )
    process = desk.process(*(word for each in settings for word in ("-p", each)))
    camera, through = desk.publisher("image/compressed", CompressedImage), desk.inbox()
    desk.listened(camera)

    def resident_mb() -> float:
        pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize() / 1e6

    def send(height: int, width: int) -> None:
        through.clear()
        data = array("B", jpeg_of_many_scans(height, width, 2))
        camera.publish(CompressedImage(format="jpeg", data=data))
        through.wait(lambda one: (one.height, one.width) == (height, width))

    status = desk.inbox("/diagnostics", DiagnosticArray)
    status.wait(lambda one: " on cpu" in one.status[0].message)
    send(48, 64)
    before_mb = resident_mb()
    for _ in range(3):
        send(6000, 6400)
    assert resident_mb() > before_mb + 400
    send(48, 64)
    # The middleware keeps a buffer for the largest message of a topic, here of 115 MB.
    until(lambda: resident_mb() < before_mb + 200, "memory given back", timeout_s=20.0)


def test_size_encoding_and_rate_may_change_from_frame_to_frame(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    choice = random.Random(1)
    for index in range(40):
        size = {"height": choice.randrange(2, 60) * 2, "width": choice.randrange(2, 60) * 2}
        encoding = choice.choice(["rgb8", "bgr8", "mono8"])
        sent = message(picture(index, **size), stamp_ns=index * 10**6, encoding=encoding)
        camera.publish(sent)
        received = derained.wait(lambda one, sent=sent: one.header == sent.header)
        assert (received.height, received.width) == (sent.height, sent.width)
        assert received.encoding == encoding
    assert not node.statistics[0].summary().faults


def test_a_subscriber_that_never_reads_does_not_block_others(desk: Desk, faulty: Faulty) -> None:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    sleeper = Node("sleeper", context=desk.context, use_global_arguments=False)  # never spins
    sleeper.create_subscription(
        Image,
        "image_derained",
        lambda _: None,
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
    )
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    until(lambda: node.count_subscribers("image_derained") == 2, "both subscribers")
    large = np.zeros((480, 640, 3), np.uint8)
    for index in range(50):
        camera.publish(message(large, stamp_ns=index))
        derained.wait(lambda one, index=index: one.header.stamp.nanosec == index)
    sleeper.destroy_node()
    gc.collect()
