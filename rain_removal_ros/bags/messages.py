"""ROS messages in recordings: their types, and conversion between bytes and objects.

The types are the standard ones of ROS 2 as rosbags knows them, and those of vision_msgs, which it
does not know. A recording's own definitions are copied with it, but images are read with the
standard ones.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg
from rosbags.typesys import get_typestore as rosbags_store

from rain_removal_ros.errors import FrameError
from rain_removal_ros.parsing import from_yaml

if TYPE_CHECKING:
    from rosbags.interfaces import Qos
    from rosbags.typesys.store import Typestore

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
FLOAT = "std_msgs/msg/Float32"
BOXES = "vision_msgs/msg/Detection2DArray"

_VISION = {
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    "vision_msgs/msg/Detection2DArray": (
        "std_msgs/Header header\nvision_msgs/Detection2D[] detections"
    ),
}
_IDL_RULE = "=" * 80 + "\n"
MOST_DEFINITION = 1 << 18
"""The longest definition, with everything nested; that of sensor_msgs/PointCloud2 has 10,000
characters."""
_MOST_QOS = 1 << 14
_ZEROS = "RIHS01_" + "0" * 64


@dataclass(frozen=True)
class Channel:
    """One topic of a recording, with everything needed to write it to another."""

    topic: str
    msgtype: str
    """As in ROS 2: ``sensor_msgs/msg/Image``."""
    definition: str = ""
    """The text of the type and of nested ones; empty if the recording does not have it."""
    encoding: str = "cdr"
    qos: tuple[Qos, ...] = ()


class Message(NamedTuple):
    """One message of a recording."""

    channel: Channel
    stamp_ns: int
    """When it was recorded."""
    data: bytes | memoryview


@functools.cache
def store() -> Typestore:
    """The types that are read and written here."""
    types = rosbags_store(Stores.LATEST)
    for name, text in _VISION.items():
        types.register(get_types_from_msg(text, name))
    return types


def canonical(msgtype: str) -> str:
    """A type's name with ``/msg/``, which older recorders leave out."""
    parts = msgtype.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else msgtype


def standard(topic: str, msgtype: str, *, qos: tuple[Qos, ...] = ()) -> Channel:
    """A channel of a type that is known here."""
    return Channel(topic, msgtype, definition_of(msgtype), qos=qos)


def definition_of(msgtype: str) -> str:
    """The text of a known type; empty for others."""
    if msgtype not in store().fielddefs:
        return ""
    return store().generate_msgdef(msgtype, ros_version=2)[0]


@functools.lru_cache(maxsize=1024)
def digest_of(msgtype: str, definition: str) -> str:
    """The hash by which ROS distinguishes types (RIHS01); zeros if the text cannot be parsed."""
    if len(definition) > MOST_DEFINITION:
        return _ZEROS
    try:
        types = rosbags_store(Stores.EMPTY)
        for part in _parts(definition):
            if definition.startswith(_IDL_RULE):
                types.register(get_types_from_idl(part))
            else:
                types.register(get_types_from_msg(part, msgtype))
        return types.hash_rihs01(msgtype)
    except Exception:  # noqa: BLE001 - what rosbags does not check in a text comes as any error
        return _ZEROS


@functools.lru_cache(maxsize=1024)
def qos_of(text: str) -> tuple[Qos, ...]:
    """The qualities of service that a recording has; none if they cannot be parsed."""
    if len(text) > _MOST_QOS:
        return ()
    try:
        return tuple(parse_qos(from_yaml(text)))
    except Exception:  # noqa: BLE001 - what rosbags does not check in the values comes as any error
        return ()


def _parts(definition: str) -> list[str]:
    if not definition.startswith(_IDL_RULE):
        return [definition]
    return [part.partition("\n")[2] for part in definition.split(_IDL_RULE)[1:]]


def decoded(channel: Channel, data: bytes | memoryview) -> Any:
    """The message object in the bytes; a ``FrameError`` if they cannot be read."""
    try:
        return store().deserialize_cdr(data, channel.msgtype)
    except Exception as error:  # rosbags does not check the bytes and may raise anything
        reason = re.sub(r"\s+", " ", str(error)) or type(error).__name__
        raise FrameError(f"a message on {channel.topic} cannot be read: {reason}") from error


def encoded(message: Any) -> memoryview:
    """A message object's bytes."""
    return store().serialize_cdr(message, message.__msgtype__)


def new(msgtype: str, **fields: Any) -> Any:
    """A message of a known type; all fields must be given."""
    return store().types[msgtype](**fields)


def header(stamp_ns: int = 0, frame_id: str = "") -> Any:
    """A ``std_msgs/msg/Header``."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    stamp = new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)
