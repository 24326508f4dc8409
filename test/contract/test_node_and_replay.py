"""Node and replay make the same bytes from the same messages and settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import recordings
import torch
from recordings import Entry, stamp
from ros.desk import NETWORKS, Desk, Faulty, Inbox, until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.bags import open_recording
from rain_removal_ros.bags.replaying import replay
from rain_removal_ros.settings import Settings, build

EXACT = {
    "engine.device": "cpu",
    "engine.precision": "float32",
    "engine.threads": 1,
    "stream.scene_cut": 0.0,
}
TOPICS = {
    "image_derained": Image,
    "image_derained/compressed": CompressedImage,
    "attention": Image,
    "rain_level": Float32,
    "camera_info_derained": CameraInfo,
}
Frames = Sequence[np.ndarray]


def rain(count: int = 6) -> Frames:
    return [recordings.picture(index) for index in range(count)]


def rain_after_clear_weather() -> Frames:
    clear = np.full((96, 128, 3), 90, np.uint8)
    random = np.random.default_rng(0)
    streaks = [(random.random((12, 128, 1)) > 0.95).repeat(8, axis=0) for _ in range(6)]
    return [clear] * 4 + [np.where(each, np.uint8(200), clear) for each in streaks] + [clear] * 4


def raw(pixels: np.ndarray, stamp_ns: int, encoding: str = "rgb8") -> bytes:
    pixels = {"bgr8": pixels[..., ::-1], "mono8": pixels[..., 1]}.get(encoding, pixels)
    return recordings.image(pixels, stamp_ns, encoding=encoding)


def packed(pixels: np.ndarray, stamp_ns: int, suffix: str) -> bytes:
    """A compressed message whose format names no codec, as some drivers write it."""
    _, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))
    message = recordings.STORE.types["sensor_msgs/msg/CompressedImage"](
        header=recordings.header(stamp_ns), format="camera", data=data.reshape(-1)
    )
    return bytes(recordings.STORE.serialize_cdr(message, "sensor_msgs/msg/CompressedImage"))


@dataclass(frozen=True)
class Case:
    """Settings, input, and the expected output and counts."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    frames: Callable[[], Frames] = rain
    message: Callable[[np.ndarray, int], bytes] = raw
    orders: Mapping[int, str] = field(default_factory=dict)
    """What the failing network is told to do, by number of the frame before which it is told."""
    scale: int = 1
    derained: int = 6
    passed: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    compressed: bool = False
    """Whether the input is compressed."""


CASES = {
    "plain": Case(),
    "bgr8": Case(message=lambda *frame: raw(*frame, "bgr8")),
    "mono8": Case(message=lambda *frame: raw(*frame, "mono8")),
    "half the correction": Case({"stream.strength": 0.5}),
    "attention over the frame": Case({"output.attention": "overlay"}),
    "raw in, JPEG beside": Case({"output.compressed": True, "output.jpeg_quality": 60}),
    "JPEG in": Case(
        {"output.compressed": True}, message=lambda *f: packed(*f, ".jpg"), compressed=True
    ),
    "PNG in": Case(
        {"output.compressed": True}, message=lambda *f: packed(*f, ".png"), compressed=True
    ),
    "PNG in, bypassed": Case(
        {"output.compressed": True, "bypass.mode": "always"},
        message=lambda *f: packed(*f, ".png"),
        compressed=True,
        derained=0,
        passed={"bypass": 6},
    ),
    "bypassed": Case({"bypass.mode": "always"}, derained=0, passed={"bypass": 6}),
    "only in rain": Case(
        {"bypass.mode": "auto", "bypass.hold_s": 0.0},
        frames=rain_after_clear_weather,
        derained=9,
        passed={"no rain": 5},
    ),
    "less and less as it takes too long": Case(
        {"safety.budget_ms": 1e-3},
        frames=lambda: rain(18),
        derained=15,
        passed={"over budget": 3},
    ),
    "an enlarging network": Case(scale=2, orders={0: ""}),
    "a network that fails once": Case(
        {"safety.retry_s": 0.01},
        orders={2: "raise", 3: ""},
        derained=5,
        passed={"fault": 1},
    ),
    "a network that fails once, and frames are dropped": Case(
        {"safety.retry_s": 0.01, "safety.on_fault": "drop"},
        orders={2: "nan", 3: ""},
        derained=5,
        dropped={"fault": 1},
    ),
    "an enlarging network that fails": Case(
        {"safety.retry_s": 0.01, "output.compressed": True},
        message=lambda *f: packed(*f, ".jpg"),
        compressed=True,
        orders={2: "memory", 3: ""},
        scale=2,
        derained=5,
        passed={"fault": 1},
    ),
    "an encoding that nobody knows": Case(
        message=lambda *f: raw(*f, "rgb8" if f[1] != stamp(3) else "secret"),
        derained=5,
        passed={"unreadable": 1},
    ),
}


@dataclass(frozen=True)
class Run:
    """The published messages by topic, and the counts."""

    messages: dict[str, list[bytes]]
    passed: dict[str, int]
    dropped: dict[str, int]
    faults: dict[str, int]
    resets: dict[str, int]


@pytest.fixture
def desk() -> Iterator[Desk]:
    opened = Desk(1 + os.getpid() % 100)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", CASES)
def test_node_and_replay_give_the_same_messages_and_counts(
    name: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(NETWORKS)])
    faulty = Faulty(tmp_path)
    weights = faulty.saved(scale=case.scale) if case.orders else small(tmp_path)
    settings = {"network.weights": str(weights), **EXACT, **case.settings}
    images = [case.message(image, stamp(i)) for i, image in enumerate(case.frames())]

    def order(number: int) -> None:
        if number in case.orders:
            faulty.order(case.orders[number])

    derained, recorded = offline(case, settings, images, order, tmp_path)
    counts = {topic: len(messages) for topic, messages in recorded.messages.items()}
    assert (derained, recorded.passed, recorded.dropped) == (
        case.derained, case.passed, case.dropped,
    )  # fmt: skip
    live = online(desk, case, settings, images, order, counts)
    assert live == recorded


def small(folder: Path) -> Path:
    """Weights of a recurrent network that changes its input."""
    path = folder / "small.safetensors"
    torch.manual_seed(0)
    network = networks.create("rainstream", channels=8, blocks=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    checkpoints.save(path, network, {})
    return path


def offline(
    case: Case,
    settings: Mapping[str, Any],
    images: Sequence[bytes],
    order: Callable[[int], None],
    folder: Path,
) -> tuple[int, Run]:
    """The number of frames that a replay derains, and what it writes."""
    topic = "/camera/image_raw" + "/compressed" * case.compressed
    entries = []
    for index, image in enumerate(images):
        entries += [
            Entry(topic, stamp(index), image),
            Entry("/camera/camera_info", stamp(index) + 1, recordings.camera_info(stamp(index))),
        ]
    chosen = build(Settings, settings)
    engine = engines.load(chosen.network, chosen.engine)
    order(0)
    source = recordings.write(folder / "bag", entries)
    (tally,) = replay(
        source, folder / "out", engine, chosen, progress=lambda done, _: order(done)
    ).cameras
    found: dict[str, list[bytes]] = {}
    with open_recording(folder / "out") as recording:
        for message in recording.messages():
            name = message.channel.topic.removeprefix("/camera/")
            if name in TOPICS:
                found.setdefault(name, []).append(bytes(message.data))
    run = Run(found, tally.passed, tally.dropped, tally.faults, tally.resets)
    return tally.cleaned, run


def online(
    desk: Desk,
    case: Case,
    settings: Mapping[str, Any],
    images: Sequence[bytes],
    order: Callable[[int], None],
    counts: Mapping[str, int],
) -> Run:
    """What the node publishes on these topics over DDS, byte for byte."""
    order(0)
    node = desk.derainer({**settings, "safety.watchdog_s": 60.0})
    topic, kind = ("image/compressed", CompressedImage) if case.compressed else ("image", Image)
    camera, infos = desk.publisher(topic, kind), desk.publisher("camera_info", CameraInfo)
    inboxes = {topic: Inbox() for topic in counts}
    for name, inbox in inboxes.items():
        desk.tools.create_subscription(TOPICS[name], name, inbox, 100, raw=True)
    for publisher in (camera, infos):
        desk.listened(publisher)
    until(lambda: node.engine, "a loaded network")
    (topics,) = node.cameras
    until(lambda: len(topics.demand()) == len(counts), "all subscribers")
    statistics = node.statistics[0]
    for index, image in enumerate(images):
        order(index)
        infos.publish(recordings.camera_info(stamp(index)))
        until(lambda at=index: stamp(at) in topics.calibrations, "the calibration")
        camera.publish(image)
        until(lambda number=index + 1: finished(statistics.summary()) == number, "the frame's end")
    for name, inbox in inboxes.items():
        inbox.count(counts[name])
    summary = statistics.summary()
    messages = {
        topic: [without_padding(topic, data) for data in inbox.messages]
        for topic, inbox in inboxes.items()
    }
    return Run(messages, summary.passed, summary.dropped, summary.faults, summary.resets)


def without_padding(topic: str, data: bytes) -> bytes:
    """A message's bytes with zeros as alignment padding, in which DDS leaves arbitrary values."""
    kind = f"{TOPICS[topic].__module__.split('.')[0]}/msg/{TOPICS[topic].__name__}"
    return bytes(recordings.STORE.serialize_cdr(recordings.STORE.deserialize_cdr(data, kind), kind))


def finished(summary: Any) -> int:
    return int(summary.published + summary.dropped.total())
