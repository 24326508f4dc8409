"""Pictures are sent to a detector that is a node of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import PointStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from rain_removal_ros import codec
from rain_removal_ros.detection import detectors, messages
from rain_removal_ros.detection.detectors.live import as_detections
from rain_removal_ros.errors import DataError
from rain_removal_ros.ros.tools.request_response import RequestResponse


class Watcher:
    """Answers each picture with its mean red, after an answer with another stamp."""

    def __init__(self, domain_id: int, *, answers: bool = True) -> None:
        self.context = Context()
        self.context.init(domain_id=domain_id)
        self.node = Node("watcher", context=self.context)
        self.publisher = self.node.create_publisher(PointStamped, "found", 10)
        if answers:
            self.node.create_subscription(Image, "pictures", self.look, 10)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def look(self, message: Image) -> None:
        image = codec.decode(message).image
        for shift, value in ((-1, -1.0), (0, float(image[..., 0].mean()))):
            answer = PointStamped()
            codec.set_stamp(answer.header, codec.stamp_ns(message.header) + shift)
            answer.point.x = value
            self.publisher.publish(answer)

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join(10)
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def watcher(domain_id: int) -> Iterator[Watcher]:
    watching = Watcher(domain_id)
    yield watching
    watching.close()


def test_each_picture_gets_the_answer_with_its_stamp(watcher: Watcher, domain_id: int) -> None:
    asker = RequestResponse("pictures", "found", PointStamped, patience_s=30, domain_id=domain_id)
    try:
        for value in (10, 200):
            picture = np.full((12, 16, 3), value, np.uint8)
            assert asker.ask(picture).point.x == value
    finally:
        asker.close()


def test_a_missing_subscriber_is_an_error(domain_id: int) -> None:
    asker = RequestResponse("pictures", "found", PointStamped, patience_s=0.3, domain_id=domain_id)
    try:
        with pytest.raises(DataError, match="nobody listens to /pictures"):
            asker.ask(np.zeros((12, 16, 3), np.uint8))
    finally:
        asker.close()


def box(name: str, *scores: tuple[str, float]) -> SimpleNamespace:
    results = [
        SimpleNamespace(hypothesis=SimpleNamespace(class_id=label, score=score))
        for label, score in scores
    ]
    centre = SimpleNamespace(position=SimpleNamespace(x=20.0, y=10.0))
    return SimpleNamespace(
        id=name, results=results, bbox=SimpleNamespace(center=centre, size_x=8.0, size_y=4.0)
    )


def test_a_box_has_its_likeliest_class_and_numbers_are_coco_classes() -> None:
    message = SimpleNamespace(
        detections=[box("1", ("bus", 0.2), ("car", 0.7)), box("", ("0", 0.9))]
    )
    found = as_detections(messages.read(message))
    assert found.labels == ("car", "person")
    assert found.scores.tolist() == [0.7, 0.9]
    assert found.boxes.tolist() == [[16, 8, 24, 12]] * 2


def test_a_box_without_class_is_refused() -> None:
    with pytest.raises(DataError, match="box 0 of a Detection2DArray has no class"):
        messages.read(SimpleNamespace(detections=[box("1")]))


def test_a_detector_with_one_topic_is_refused() -> None:
    with pytest.raises(DataError, match="ros:IMAGES=DETECTIONS, not ros:/image"):
        detectors.create("ros:/image")


def test_missing_message_packages_are_an_error_that_names_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", None)
    with pytest.raises(DataError, match="vision_msgs"):
        detectors.create("ros:/a=/b")
