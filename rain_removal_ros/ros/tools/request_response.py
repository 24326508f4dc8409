"""Shows pictures to another node, one at a time, and collects its answers."""

from __future__ import annotations

import time
from typing import Any

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from rain_removal_ros import codec
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image


class RequestResponse:
    """Publishes a picture and waits for the message with the same stamp."""

    def __init__(
        self,
        images: str,
        answers: str,
        kind: type[Any],
        *,
        patience_s: float = 10.0,
        domain_id: int | None = None,
    ) -> None:
        self._answers = answers
        self._patience_s = patience_s
        self._context = Context()
        self._context.init(domain_id=domain_id)
        self._node = Node("rain_removal_detect", context=self._context)
        self._publisher = self._node.create_publisher(ImageMessage, images, 1)
        # Best effort: this accepts answers from reliable and from best-effort publishers.
        self._node.create_subscription(kind, answers, self._take, qos_profile_sensor_data)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._asked_ns = 0
        self._answer: Any = None

    def ask(self, image: Image) -> Any:
        """The other node's answer to a picture."""
        deadline = time.monotonic() + self._patience_s
        topic = self._publisher.topic_name
        while not self._publisher.get_subscription_count():
            if time.monotonic() > deadline:
                raise DataError(f"nobody listens to {topic}")
            self._executor.spin_once(0.05)
        message = ImageMessage()
        header = Header(frame_id="camera")
        self._asked_ns, self._answer = time.time_ns(), None
        codec.set_stamp(header, self._asked_ns)
        codec.write_image(message, image, encoding="rgb8", header=header)
        self._publisher.publish(message)
        while self._answer is None:
            if time.monotonic() > deadline:
                raise DataError(
                    f"a picture on {topic} got no answer on {self._answers} within "
                    f"{self._patience_s:g} s with its stamp"
                )
            self._executor.spin_once(0.05)
        return self._answer

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _take(self, message: Any) -> None:
        if codec.stamp_ns(message.header) == self._asked_ns:
            self._answer = message
