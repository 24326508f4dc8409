"""The topics of one camera: what is subscribed to, what is published, and who wants it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import (
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
)
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32

from rain_removal_ros.camera import Demand, OutputKind
from rain_removal_ros.camera_info import Calibrations
from rain_removal_ros.settings import Settings

_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
    QoSPolicyKind.DEADLINE,
    QoSPolicyKind.LIFESPAN,
    QoSPolicyKind.LIVELINESS,
    QoSPolicyKind.LIVELINESS_LEASE_DURATION,
)


class Topics:
    """Subscriptions and publishers of one camera."""

    def __init__(
        self,
        node: Node,
        name: str,
        settings: Settings,
        *,
        arrived: Callable[[Any], None],
        lost: Callable[[int], None],
        matched: Callable[[], None],
    ) -> None:
        """``arrived`` gets every image message, ``lost`` the number of those lost on the way.

        ``matched`` is told when subscribers change.
        """
        self.name = name
        self._node = node
        self._arrived = arrived
        self._lost = lost
        self._matched = matched
        self._prefix = f"{name}/" if name else ""
        self.raw_topic = node.resolve_topic_name(f"{self._prefix}image")
        # As image_transport has it: beside the raw topic, wherever that was remapped to.
        self.compressed_topic = f"{self.raw_topic}/compressed"
        self.mismatch = ""
        """Why a publisher's or subscriber's messages cannot pass, if so."""
        self.calibrations = Calibrations()
        self._subscriptions: list[Subscription[Any]] = []
        self.transport = ""
        """What is listened to: "raw", "compressed" or nothing."""
        self._publishers = {
            OutputKind.IMAGE: self._publisher(Image, "image_derained"),
            OutputKind.CALIBRATION: self._publisher(CameraInfo, "camera_info_derained"),
            OutputKind.ATTENTION: self._publisher(Image, "attention"),
            OutputKind.RAIN_LEVEL: self._publisher(Float32, "rain_level"),
        }
        if settings.output.compressed:
            out = node.resolve_topic_name(f"{self._prefix}image_derained")
            compressed = self._publisher(CompressedImage, f"{out}/compressed")
            self._publishers[OutputKind.COMPRESSED] = compressed

    def demand(self) -> Demand:
        """What somebody listens to now."""
        publishers = self._publishers.items()
        return frozenset(each for each, publisher in publishers if _wanted(publisher))

    def publish(self, output: OutputKind, message: Any) -> None:
        """Send out what was made of a frame."""
        self._publishers[output].publish(message)

    def offered(self, transport: str) -> str:
        """The transport to listen to: ``transport``, or for "auto" what somebody publishes."""
        if transport != "auto":
            return transport
        raw, compressed = map(self._node.count_publishers, (self.raw_topic, self.compressed_topic))
        return "compressed" if compressed and not raw else "raw"

    @property
    def topic(self) -> str:
        """The topic that is, or would be, listened to."""
        return self.compressed_topic if self.transport == "compressed" else self.raw_topic

    def publishers(self) -> Counter[str]:
        """The types of messages published there, and by how many."""
        infos = self._node.get_publishers_info_by_topic(self.topic)
        return Counter(info.topic_type for info in infos)

    def listen(self, transport: str) -> None:
        """Subscribe to images of this transport and to the calibration."""
        if transport == self.transport:
            return
        self.ignore()
        self.transport, self.mismatch = transport, ""
        kind = CompressedImage if transport == "compressed" else Image
        self._subscriptions = [
            self._images(kind, self.topic),
            self._subscription(CameraInfo, f"{self._prefix}camera_info", self.calibrations.keep),
        ]

    def ignore(self) -> None:
        """Subscribe to nothing."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.transport = ""

    def close(self) -> None:
        """Give up all topics."""
        self.ignore()
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def _publisher(self, kind: Any, topic: str) -> Publisher[Any]:
        name = topic if topic.startswith("/") else self._prefix + topic
        return self._node.create_publisher(
            kind,
            name,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
            event_callbacks=PublisherEventCallbacks(
                matched=lambda _: self._matched(),
                incompatible_qos=lambda event: self._mismatched(f"a subscriber of {name}", event),
            ),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )

    def _images(self, kind: Any, topic: str) -> Subscription[Any]:
        """A subscription that counts what is lost, where the middleware takes note of that."""
        try:
            return self._subscription(
                kind, topic, self._arrived, lost=lambda event: self._lost(event.total_count_change)
            )
        except UnsupportedEventTypeError:
            return self._subscription(kind, topic, self._arrived)

    def _subscription(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        *,
        lost: Callable[[Any], None] | None = None,
    ) -> Subscription[Any]:
        # Overrides are written into the profile, so each subscription gets one of its own.
        return self._node.create_subscription(
            kind,
            topic,
            callback,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._mismatched(f"a publisher of {topic}", event),
                message_lost=lost,
            ),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )

    def _mismatched(self, whose: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self.mismatch = f"{whose} has another {policy}: no messages pass; see qos_overrides"
        self._node.get_logger().warning(self.mismatch)


def _wanted(publisher: Publisher[Any]) -> bool:
    return bool(publisher.get_subscription_count())
