"""The topics and services of each node, described once.

The reference pages are made from this list, and a test compares it with the running nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BAG_PLAYER", "DERAIN", "IMAGE_FALLBACK", "SIM_CAMERA", "Interface", "NodeInterface"]


@dataclass(frozen=True)
class Interface:
    """A topic or a service."""

    name: str
    """Relative to the camera's namespace; ``~`` is the node's own name."""
    type: str
    help: str


@dataclass(frozen=True)
class NodeInterface:
    """The topics and services of one node."""

    program: str
    subscribed: tuple[Interface, ...] = ()
    published: tuple[Interface, ...] = ()
    services: tuple[Interface, ...] = ()


_IMAGE = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_INFO = "sensor_msgs/msg/CameraInfo"

DERAIN = NodeInterface(
    "derain_node",
    subscribed=(
        Interface(
            "image",
            _IMAGE,
            "The camera's images. Only the newest is kept. Reliable if every publisher is, else "
            "best effort (`input.reliability`).",
        ),
        Interface(
            "image/compressed",
            _COMPRESSED,
            "JPEG or PNG images, subscribed instead of `image` if `input.transport` is "
            "`compressed`, or if it is `auto` and nobody publishes raw images. Its name follows "
            "the remapping of `image`.",
        ),
        Interface(
            "camera_info",
            _INFO,
            "The camera's calibration; optional. Beside the image, unless it is remapped itself.",
        ),
    ),
    published=(
        Interface(
            "image_derained",
            _IMAGE,
            "The derained image, with the stamp and frame id of its input.",
        ),
        Interface(
            "image_derained/compressed",
            _COMPRESSED,
            "Compressed, if `output.compressed` is set: in the input's format; raw images as JPEG.",
        ),
        Interface(
            "camera_info_derained",
            _INFO,
            "The calibration of the derained image, scaled if the network enlarges the image.",
        ),
        Interface(
            "attention",
            _IMAGE,
            "The network's [attention map](../node.md#the-attention-map): `mono8`, or drawn "
            "over the image (`output.attention: overlay`).",
        ),
        Interface(
            "rain_level",
            "std_msgs/msg/Float32",
            "How hard it rains, from 0 to 1: the network's estimate, or one made from the images "
            "if the network makes none or does not run.",
        ),
        Interface(
            "/diagnostics",
            "diagnostic_msgs/msg/DiagnosticArray",
            "The state of the network, and for each camera what happened to its frames.",
        ),
    ),
    services=(
        Interface("~/enable", "std_srvs/srv/SetBool", "Switches deraining on or off."),
        Interface(
            "~/reset_state",
            "std_srvs/srv/Trigger",
            "Discards what the network carries from frame to frame, for every camera.",
        ),
        Interface(
            "~/change_state, ~/get_state, ...",
            "lifecycle_msgs/srv/...",
            "The services of every lifecycle node.",
        ),
    ),
)

SIM_CAMERA = NodeInterface(
    "sim_camera",
    published=(
        Interface("image", _IMAGE, "The scene in the rain."),
        Interface("image_clean", _IMAGE, "The reference: the same moment without rain."),
        Interface(
            "depth", _IMAGE, "Depth in metres as `32FC1`; only of the built-in street, else silent."
        ),
        Interface(
            "camera_info",
            _INFO,
            "The calibration; all zeros (uncalibrated) for videos and folders.",
        ),
    ),
)

IMAGE_FALLBACK = NodeInterface(
    "image_fallback",
    subscribed=(
        Interface("image_derained", _IMAGE, "What the node publishes; remap it to that."),
        Interface("image", _IMAGE, "The camera's own, while derained images are missing."),
    ),
    published=(
        Interface(
            "image_always", _IMAGE, "The derained image, or the camera's while there is none."
        ),
    ),
)

BAG_PLAYER = NodeInterface(
    "rain-removal bag-play",
    published=(
        Interface("the recording's topics", "as recorded", "The recorded messages."),
        Interface("/clock", "rosgraph_msgs/msg/Clock", "The recording's time, with `--clock`."),
    ),
    services=(Interface("~/set_paused", "std_srvs/srv/SetBool", "Pauses, or continues."),),
)
