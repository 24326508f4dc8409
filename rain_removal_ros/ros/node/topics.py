"""The topics of one camera: subscriptions, publishers, and who subscribes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rclpy.event_handler import (
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
)
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32

from rain_removal_ros.camera import Demand, OutputKind
from rain_removal_ros.camera_info import Calibrations
from rain_removal_ros.errors import SettingsError
from rain_removal_ros.ros.node.gaps import Gaps
from rain_removal_ros.ros.qos import all_reliable
from rain_removal_ros.settings import Settings

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo  # in endpoint_info on Lyrical

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
        arrived: Callable[[Any, int], None],
        lost: Callable[[int], None],
        matched: Callable[[], None],
    ) -> None:
        """``arrived`` gets every image message and how many are missing before it, ``lost`` the
        number of those lost on the way.

        ``matched`` is called when subscribers change.
        """
        self.name = name
        self._node = node
        self._arrived = arrived
        self._lost = lost
        self._matched = matched
        self._prefix = f"{name}/" if name else ""
        self.raw_topic = node.resolve_topic_name(f"{self._prefix}image")
        # As in image_transport: beside the raw topic, wherever that was remapped to.
        self.compressed_topic = f"{self.raw_topic}/compressed"
        self.info_topic = self._calibration_of(self.raw_topic)
        self.calibrations = Calibrations()
        self._subscriptions: list[Subscription[Any]] = []
        self.transport = ""
        """The subscribed transport: "raw", "compressed" or empty."""
        self.reliable = False
        """Whether the image subscription is reliable."""
        namespace = settings.output.namespace
        if name and namespace.startswith("/"):
            raise SettingsError(
                f"output.namespace: {namespace} would be that of every camera; give a relative name"
            )
        names = output_names(namespace)
        topics = {
            each: node.resolve_topic_name(self._prefixed(name)) for each, name in names.items()
        }
        topics[OutputKind.COMPRESSED] = f"{topics[OutputKind.IMAGE]}/compressed"
        if not settings.output.compressed:
            del topics[OutputKind.COMPRESSED]
        if loop := sorted({self.raw_topic, self.compressed_topic} & set(topics.values())):
            raise SettingsError(f"{loop[0]} would be both read and written; remap image or output")
        self._publishers = {
            each: self._publisher(_KINDS[each], topic) for each, topic in topics.items()
        }

    def describe(self, settings: Settings) -> str:
        """What will be read and written, and how, in one line."""
        image = (
            self.compressed_topic if settings.input.transport == "compressed" else self.raw_topic
        )
        names = ", ".join(publisher.topic_name for publisher in self._publishers.values())
        how = settings.input.reliability.replace("_", " ")
        how = "as reliable as its publishers" if how == "auto" else how
        return f"reads {image} ({how}) and {self.info_topic}, publishes {names} (reliable, depth 1)"

    def demand(self) -> Demand:
        """The outputs that have subscribers now."""
        publishers = self._publishers.items()
        return frozenset(each for each, publisher in publishers if _wanted(publisher))

    def publish(self, output: OutputKind, message: Any) -> None:
        """Publish the results of a frame."""
        self._publishers[output].publish(message)

    def offered(self, transport: str) -> str:
        """The transport to subscribe to: ``transport``, or for "auto" what is published."""
        if transport != "auto":
            return transport
        raw, compressed = map(self._node.count_publishers, (self.raw_topic, self.compressed_topic))
        return "compressed" if compressed and not raw else "raw"

    @property
    def topic(self) -> str:
        """The topic that is, or would be, subscribed to."""
        return self.compressed_topic if self.transport == "compressed" else self.raw_topic

    def publishers(self) -> Counter[str]:
        """How many publishers of each message type that topic has."""
        infos = self._node.get_publishers_info_by_topic(self.topic)
        return Counter(info.topic_type for info in infos)

    def listen(self, transport: str, reliability: str) -> None:
        """Subscribe to images of this transport and to the calibration.

        This is called repeatedly: publishers come and go, and "auto" follows what they offer. A
        best-effort subscription to a reliable camera loses frames, and a reliable one to a
        best-effort camera gets none.
        """
        topic = self.compressed_topic if transport == "compressed" else self.raw_topic
        reliability = self._overridden(topic) or reliability
        offered = reliability == "auto" and all_reliable(self._node, topic)
        reliable = reliability == "reliable" or offered
        if (transport, reliable) == (self.transport, self.reliable):
            return
        self.ignore()
        self.transport, self.reliable = transport, reliable
        kind = CompressedImage if transport == "compressed" else Image
        self._subscriptions = [
            self._images(kind, topic),
            self._subscription(CameraInfo, self.info_topic, self.calibrations.keep),
        ]

    def _overridden(self, topic: str) -> str:
        """The reliability set at start in ``qos_overrides``."""
        name = f"qos_overrides.{topic}.subscription.reliability"
        return str(self._node.get_parameter(name).value) if self._node.has_parameter(name) else ""

    def mismatch(self) -> str:
        """Why messages of a publisher or to a subscriber cannot pass at the moment, if so."""
        # As the graph reports them: our own profile does not show what it leaves to the system.
        for topic in {subscription.topic_name for subscription in self._subscriptions}:
            offers = self._node.get_publishers_info_by_topic(topic)
            asked = self._ours(self._node.get_subscriptions_info_by_topic(topic))
            if why := _cannot_pass(offers, asked):
                return f"a publisher of {topic} has another QoS: {why}"
        for topic in {publisher.topic_name for publisher in self._publishers.values()}:
            offers = self._ours(self._node.get_publishers_info_by_topic(topic))
            asked = self._node.get_subscriptions_info_by_topic(topic)
            if why := _cannot_pass(offers, asked):
                return f"a subscriber of {topic} has another QoS: {why}"
        return ""

    def _ours(self, endpoints: list[TopicEndpointInfo]) -> list[TopicEndpointInfo]:
        own = self._node.get_name(), self._node.get_namespace()
        return [found for found in endpoints if (found.node_name, found.node_namespace) == own]

    def ignore(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.transport = ""
        self.reliable = False

    def close(self) -> None:
        """Destroy all topics."""
        self.ignore()
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def _prefixed(self, name: str) -> str:
        return name if name.startswith("/") else self._prefix + name

    def _calibration_of(self, image_topic: str) -> str:
        """The calibration's topic: beside the image, as in image_transport, unless ``camera_info``
        was remapped.
        """
        name = f"{self._prefix}camera_info"
        resolved = str(self._node.resolve_topic_name(name))
        if resolved != self._node.resolve_topic_name(name, only_expand=True):
            return resolved
        return f"{image_topic.rpartition('/')[0]}/camera_info"

    def _publisher(self, kind: Any, name: str) -> Publisher[Any]:
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
        """A subscription that counts lost messages, if the middleware reports them."""
        gaps = Gaps()

        def arrived(message: Any, info: Mapping[str, Any]) -> None:
            self._arrived(message, gaps.before(info))

        try:
            return self._subscription(
                kind, topic, arrived, lost=lambda event: self._lost(event.total_count_change)
            )
        except UnsupportedEventTypeError:
            return self._subscription(kind, topic, arrived)

    def _subscription(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None] | Callable[[Any, Any], None],
        *,
        lost: Callable[[Any], None] | None = None,
    ) -> Subscription[Any]:
        reliable = (
            self.reliable if kind is not CameraInfo else self._overridden(topic) == "reliable"
        )
        wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        # Overrides are written into the profile, so each subscription gets one of its own.
        return self._node.create_subscription(
            kind,
            topic,
            callback,
            QoSProfile(depth=1, reliability=wanted),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._mismatched(f"a publisher of {topic}", event),
                message_lost=lost,
                # At once, because "auto" may need another subscription now.
                matched=lambda _: self._matched(),
            ),
            # Once declared, an override would apply to all later subscriptions too, and the
            # reliability changes from one to the next.
            qos_overriding_options=QoSOverridingOptions(
                [policy for policy in _OVERRIDABLE if policy is not QoSPolicyKind.RELIABILITY]
            ),
        )

    def _mismatched(self, whose: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._node.get_logger().warning(
            f"{whose} has another {policy}: no messages pass; see input.reliability, qos_overrides"
        )


_KINDS = {
    OutputKind.IMAGE: Image,
    OutputKind.CALIBRATION: CameraInfo,
    OutputKind.ATTENTION: Image,
    OutputKind.RAIN_LEVEL: Float32,
    OutputKind.COMPRESSED: CompressedImage,
}


def output_names(namespace: str) -> dict[OutputKind, str]:
    """The published topics, relative to the camera's namespace."""
    if namespace:
        return {
            OutputKind.IMAGE: f"{namespace}/image",
            OutputKind.CALIBRATION: f"{namespace}/camera_info",
            OutputKind.ATTENTION: f"{namespace}/attention",
            OutputKind.RAIN_LEVEL: f"{namespace}/rain_level",
        }
    return {
        OutputKind.IMAGE: "image_derained",
        OutputKind.CALIBRATION: "camera_info_derained",
        OutputKind.ATTENTION: "attention",
        OutputKind.RAIN_LEVEL: "rain_level",
    }


def _cannot_pass(offers: list[TopicEndpointInfo], asked: list[TopicEndpointInfo]) -> str:
    """Why nothing passes between a publisher and a subscriber, if so."""
    for offer, ask in itertools.product(offers, asked):
        compatible, reason = qos_check_compatible(offer.qos_profile, ask.qos_profile)
        if compatible == QoSCompatibility.ERROR:
            return " ".join(reason.split()).removeprefix("ERROR: ").rstrip(";")
    return ""


def _wanted(publisher: Publisher[Any]) -> bool:
    return bool(publisher.get_subscription_count())
