"""The simulated camera: a node that shows a scene in the rain.

Beside the rainy image it publishes what a real camera cannot: the same moment without rain, and its
depth. Rendering a frame can take longer than showing it, so a loop is rendered first and then
played. Without a loop, frames that cannot be rendered in time are skipped and counted. A stamp is
always the moment that a frame shows.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from rain_removal_ros import codec
from rain_removal_ros.ros import parameters
from rain_removal_ros.settings import group, setting
from rain_removal_ros.simulation.scenes import (
    Film,
    RainSettings,
    SceneSettings,
    View,
    open_scene,
)

_OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
_QUIET_S = 5.0


@dataclass(frozen=True)
class SimCameraSettings:
    """The simulated camera's parameters."""

    scene: SceneSettings = group(SceneSettings)
    rain: RainSettings = group(RainSettings)
    loop_s: float = setting(
        4.0,
        "length of the loop that is rendered at the start and repeated; 0 renders every frame when "
        "it is due, and skips frames that take too long",
        unit="s",
        low=0.0,
        high=3600.0,
        live=False,
    )
    encoding: str = setting(
        "rgb8", "encoding of the images", choices=("rgb8", "bgr8", "mono8"), live=False
    )
    frame_id: str = setting("camera", "frame id of the messages", live=False)


class Pace:
    """Which frame is due at a time. It starts over when the clock is set back."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._first_ns: int | None = None
        self._next = 0
        self.skipped = 0

    def due(self, now_ns: int) -> int:
        """The number of the frame to show now; each is returned once."""
        index = 0 if self._first_ns is None else round((now_ns - self._first_ns) * self._fps / 1e9)
        if self._first_ns is None or index < self._next - 1:
            self._first_ns, self._next, index = now_ns, 0, 0
        # A tick that comes slightly early is still for the next frame.
        index = max(index, self._next)
        self.skipped += index - self._next
        self._next = index + 1
        return index


class SimCamera(Node):
    """Publishes one scene at a camera's rate, by the node's clock."""

    def __init__(self, name: str = "sim_camera", **options: Any) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True, **options)
        self.settings = parameters.declare(self, SimCameraSettings)
        self._fps = self.settings.scene.fps
        loop = round(self.settings.loop_s * self._fps)
        self._film = Film(open_scene(self.settings.scene), self.settings.rain, loop=loop)
        self._image, self._reference, self._depth = (
            self._publisher(Image, topic) for topic in ("image", "image_clean", "depth")
        )
        self._info = self._publisher(CameraInfo, "camera_info")
        # Outgoing messages are reused: their buffers are large.
        self._messages = {publisher: Image() for publisher in (self._image, self._reference)}
        self._pace = Pace(self._fps)
        self._began = time.monotonic()
        self.end: Callable[[], object] = lambda: None

    hopeless = ""

    def autostart(self) -> None:
        """Start rendering, then publish."""
        self.create_timer(1 / self._fps, self._tick)

    def close(self) -> bool:
        """Nothing to wait for."""
        return True

    def _tick(self) -> None:
        if not self._film.ready:
            self._prepare()
            return
        now_ns = self.get_clock().now().nanoseconds
        self._publish(self._film.view(self._due(now_ns)), now_ns)

    def _prepare(self) -> None:
        self._film.prepare()
        if self._film.ready:
            took_s = time.monotonic() - self._began
            self.get_logger().info(f"ready after {took_s:.1f} s, playing at {self._fps:g} Hz")
        else:
            self.get_logger().info(
                f"rendered {self._film.kept} of {self._film.loop} frames, to be played in a loop",
                throttle_duration_sec=_QUIET_S,
            )

    def _due(self, now_ns: int) -> int:
        before = self._pace.skipped
        index = self._pace.due(now_ns)
        if self._pace.skipped > before:
            self.get_logger().warning(
                f"too slow for {self._fps:g} Hz: {self._pace.skipped} of {index} frames skipped"
                + ("" if self._film.loop else "; with loop_s they are rendered in advance"),
                throttle_duration_sec=_QUIET_S,
            )
        return index

    def _publish(self, view: View, stamp_ns: int) -> None:
        header = Header(frame_id=self.settings.frame_id)
        codec.set_stamp(header, stamp_ns)
        shot = view.shot
        self._info.publish(CameraInfo(header=header, **shot.calibration))
        for publisher, pixels in ((self._image, view.rainy), (self._reference, shot.image)):
            if publisher.get_subscription_count():
                message = self._messages[publisher]
                codec.write_image(message, pixels, encoding=self.settings.encoding, header=header)
                publisher.publish(message)
        if shot.depth is not None and self._depth.get_subscription_count():
            self._depth.publish(depth_image(shot.depth, header))

    def _publisher(self, kind: Any, topic: str) -> Publisher[Any]:
        return self.create_publisher(
            kind,
            topic,
            # A reliable publisher suits best-effort subscribers too.
            QoSProfile(depth=5),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )


def depth_image(depth: NDArray[np.float32], header: Header) -> Image:
    """Depth in metres as 32FC1."""
    height, width = depth.shape
    data = array("B")
    data.frombytes(np.ascontiguousarray(depth).tobytes())
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="32FC1",
        is_bigendian=int(sys.byteorder == "big"),
        step=4 * width,
        data=data,
    )
