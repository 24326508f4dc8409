"""Nothing that arrives on a topic ends the process, or the images."""

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
from fuzz.pictures import jpeg_of_many_scans
from ros.desk import Desk, Faulty, message, picture, until
from sensor_msgs.msg import CompressedImage, Image

from rain_removal_ros import codec

EXACT = {"engine.precision": "float32", "engine.threads": 1, "stream.scene_cut": 0.0}
ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "rgb16", "8UC1", "8UC3", "16UC1"),
    *("bayer_rggb8", "bayer_grbg16", "yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv12", "nv21"),
    *("nv24", "32FC1", "nonsense"),
)


def broken_image(choice: random.Random) -> Image:
    """An image with a share of its fields wrong."""
    height, width = choice.randrange(0, 40), choice.randrange(0, 40)
    encoding = choice.choice(ENCODINGS)
    if choice.random() < 0.1:
        encoding = "".join(chr(choice.randrange(32, 0x2FF)) for _ in range(choice.randrange(20)))
    step = width * choice.choice([1, 1, 2, 3, 3, 3, 4, 6])
    if choice.random() < 0.2:
        step = choice.choice([0, 1, 2**31, 2**32 - 1])
    if choice.random() < 0.1:
        height, width = choice.choice([(2**32 - 1, 2**32 - 1), (0, 5), (5, 0), (2**31, 1)])
    length = min(step * height, 20_000)
    if choice.random() < 0.3:
        length = choice.randrange(0, length + 1)
    image = Image(
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        is_bigendian=choice.choice([0, 1, 255]),
        data=array("B", choice.randbytes(length)),
    )
    image.header.stamp.sec = choice.choice([0, 1, -(2**31), 2**31 - 1, choice.randrange(10**9)])
    image.header.stamp.nanosec = choice.choice([0, 999_999_999, 2**32 - 1])
    image.header.frame_id = choice.choice(["", "camera", "\n\x00"[:1], "x" * 500])
    return image


def broken_compressed(choice: random.Random) -> CompressedImage:
    """A picture with bytes changed, cut or added."""
    header = message(picture(), stamp_ns=1).header
    built = CompressedImage()
    kind = choice.choice(["jpeg", "png"])
    codec.write_compressed(built, picture(), format=kind, quality=50, header=header)
    content = bytearray(built.data)
    for _ in range(choice.randrange(0, 30)):
        content[choice.randrange(len(content))] = choice.randrange(256)
    content = content[: choice.randrange(len(content) + 1)] if choice.random() < 0.4 else content
    built.data = array("B", content)
    built.format = choice.choice(["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "nonsense"])
    return built


def throw(desk: Desk, faulty: Faulty, count: int, kind: Any, broken: Any) -> None:
    """Broken messages among whole ones, all accounted for, and the node as good as before."""
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
    camera, clean = desk.publisher(topic, kind), desk.inbox()
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
    clean.wait(lambda one: one.header == whole.header)


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
def test_malformed_messages_are_passed_or_dropped_and_counted(
    desk: Desk, faulty: Faulty, count: int, kind: Any, broken: Any
) -> None:
    throw(desk, faulty, count, kind, broken)


def test_a_size_is_not_believed_without_data_for_it(desk: Desk) -> None:
    node = desk.derainer({"bypass.mode": "always"})
    camera, through = desk.publisher(), desk.inbox()
    desk.listened(camera)
    camera.publish(Image(height=2**16, width=2**16, encoding="rgb8", step=3 * 2**16))
    through.count(1)
    assert node.sizes() == []
    camera.publish(message(picture()))
    through.count(2)
    assert node.sizes() == [(48, 64)]


def test_a_frame_that_is_mostly_padding_or_too_large_goes_through_untouched(
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


def test_memory_for_a_large_frame_is_given_back(desk: Desk) -> None:
    settings = ("bypass.mode:=auto", "input.transport:=compressed", "safety.watchdog_s:=60.0")
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
    # The middleware keeps a buffer for the largest message that a topic has had, of 115 MB here.
    until(lambda: resident_mb() < before_mb + 200, "memory given back", timeout_s=20.0)


def test_size_encoding_and_rate_may_change_from_frame_to_frame(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, clean = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    choice = random.Random(1)
    for index in range(40):
        size = {"height": choice.randrange(2, 60) * 2, "width": choice.randrange(2, 60) * 2}
        encoding = choice.choice(["rgb8", "bgr8", "mono8"])
        sent = message(picture(index, **size), stamp_ns=index * 10**6, encoding=encoding)
        camera.publish(sent)
        received = clean.wait(lambda one, sent=sent: one.header == sent.header)
        assert (received.height, received.width) == (sent.height, sent.width)
        assert received.encoding == encoding
    assert not node.statistics[0].summary().faults


def test_a_subscriber_that_never_reads_holds_up_nobody(desk: Desk, faulty: Faulty) -> None:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    sleeper = Node("sleeper", context=desk.context, use_global_arguments=False)  # nobody spins it
    sleeper.create_subscription(
        Image,
        "image_derained",
        lambda _: None,
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
    )
    camera, clean = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    until(lambda: node.count_subscribers("image_derained") == 2, "both subscribers")
    large = np.zeros((480, 640, 3), np.uint8)
    for index in range(50):
        camera.publish(message(large, stamp_ns=index))
        clean.wait(lambda one, index=index: one.header.stamp.nanosec == index)
    sleeper.destroy_node()
    gc.collect()
