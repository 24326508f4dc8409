"""A fallback that outlives the node: derained images, or the camera's own while there are none.

It does as little as possible, so that little can fail: images are passed on as serialised bytes, of
which only the stamp is read. It subscribes to the camera only while derained images are missing.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image

from rain_removal_ros.ros import parameters
from rain_removal_ros.ros.qos import all_reliable
from rain_removal_ros.settings import setting

_LOOK_S = 0.1
_JUMP_NS = 10 * 10**9
"""An image older than the last one by more than this restarts the order of time, as a looping
recording does."""


@dataclass(frozen=True)
class FallbackSettings:
    """The parameters of image_fallback."""

    silence_s: float = setting(
        0.5,
        "after this time without a derained image, the camera's own are passed on",
        unit="s",
        low=0.05,
        high=60.0,
        live=False,
    )


class ImageFallback(Node):
    """Publishes ``image_always``."""

    end: Callable[[], object]
    hopeless = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            "image_fallback", automatically_declare_parameters_from_overrides=True, **options
        )
        self._silence_s = parameters.declare(self, FallbackSettings).silence_s
        reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self.create_publisher(Image, "image_always", reliable)
        self._derained: Subscription[Any] | None = None
        self._raw: Subscription[Any] | None = None
        self._last_ns: int | None = None
        self._derained_at = 0.0

    def autostart(self) -> None:
        """Start looking for missing images."""
        self.create_timer(_LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> bool:
        """Nothing to wait for."""
        return True

    def _look(self) -> None:
        """Subscribe to what is needed now; to nothing while nobody wants images."""
        if not self._publisher.get_subscription_count():
            self._ignore_derained()
            self._ignore_camera()
        elif self._derained is None:
            self._derained_at = time.monotonic()
            self._derained = self._subscription(
                "image_derained", self._pass_derained, ReliabilityPolicy.RELIABLE
            )
        elif self._raw is None and self._is_silent():
            self.get_logger().warning(
                f"no derained image in {self._silence_s:g} s: the camera's own are passed on"
            )
            reliable = all_reliable(self, self.resolve_topic_name("image"))
            policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            self._raw = self._subscription("image", self._pass_raw, policy)
        elif self._raw is not None and not self._is_silent():
            self.get_logger().info("derained images are back")
            self._ignore_camera()

    def _is_silent(self) -> bool:
        return time.monotonic() - self._derained_at > self._silence_s

    def _subscription(
        self, topic: str, callback: Callable[[Any], None], reliability: ReliabilityPolicy
    ) -> Subscription[Any]:
        qos = QoSProfile(depth=1, reliability=reliability)
        return self.create_subscription(Image, topic, callback, qos, raw=True)

    def _ignore_derained(self) -> None:
        if self._derained is not None:
            self.destroy_subscription(self._derained)
            self._derained = None

    def _ignore_camera(self) -> None:
        if self._raw is not None:
            self.destroy_subscription(self._raw)
            self._raw = None

    def _pass_derained(self, message: bytes) -> None:
        self._derained_at = time.monotonic()
        self._pass(message)

    def _pass_raw(self, message: bytes) -> None:
        if self._is_silent():
            self._pass(message)

    def _pass(self, message: bytes) -> None:
        """Send an image on, unless a later one was sent before."""
        now_ns = _stamp_ns(message)
        if self._last_ns is not None and 0 <= self._last_ns - now_ns < _JUMP_NS:
            return
        self._last_ns = now_ns
        self._publisher.publish(message)


def _stamp_ns(message: bytes) -> int:
    """The stamp at the start of a serialised image, after four bytes of encapsulation."""
    order = "<" if message[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", message, 4)
    return int(sec) * 10**9 + int(nanosec)
