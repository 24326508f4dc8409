"""Recordings for tests, written by rosbags, so that the package is not tested with itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

START_NS = 1_700_000_000_000_000_000
STEP_NS = 50_000_000
STORE = get_typestore(Stores.ROS2_KILTED)
ODD = "their_msgs/msg/Odd"
"""A message type that the package does not know."""


@dataclass(frozen=True)
class Entry:
    """One message of a recording."""

    topic: str
    stamp_ns: int
    data: bytes


def picture(seed: int, *, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture unlike those of other seeds, but of the same scene."""
    rng = np.random.default_rng(7)
    scene = cv2.resize(rng.integers(0, 256, (8, 10, 3), np.uint8), (width, height))
    streaks = np.random.default_rng(seed).random((height, width, 1)) > 0.97
    return np.where(streaks, np.uint8(230), scene)


def stamp(index: int) -> int:
    return START_NS + index * STEP_NS


def header(stamp_ns: int) -> Any:
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    time = STORE.types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="camera")


def image(pixels: np.ndarray, stamp_ns: int, *, encoding: str = "rgb8") -> bytes:
    """The bytes of a ``sensor_msgs/msg/Image``."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    message = STORE.types["sensor_msgs/msg/Image"](
        header=header(stamp_ns), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=len(data) // height, data=data,
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))


def compressed(pixels: np.ndarray, stamp_ns: int) -> bytes:
    """The bytes of a ``sensor_msgs/msg/CompressedImage``."""
    _, packed = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]))
    message = STORE.types["sensor_msgs/msg/CompressedImage"](
        header=header(stamp_ns), format="rgb8; jpeg compressed bgr8", data=packed.reshape(-1)
    )
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/CompressedImage"))


def camera_info(stamp_ns: int, *, width: int = 64, height: int = 48) -> bytes:
    """The bytes of a ``sensor_msgs/msg/CameraInfo``."""
    roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    message = STORE.types["sensor_msgs/msg/CameraInfo"](
        header=header(stamp_ns), height=height, width=width, distortion_model="plumb_bob",
        d=np.zeros(5), k=np.array([50.0, 0, 31.5, 0, 50, 23.5, 0, 0, 1]), r=np.eye(3).reshape(9),
        p=np.array([50.0, 0, 31.5, 0, 0, 50, 23.5, 0, 0, 0, 1, 0]), binning_x=0, binning_y=0,
        roi=roi,
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/CameraInfo"))


TYPES = {
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/image_clean": "sensor_msgs/msg/Image",
    "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/depth": "sensor_msgs/msg/Image",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/odd": ODD,
}


def entries(frames: int = 6, *, width: int = 64, height: int = 48) -> list[Entry]:
    """A camera with its calibration, and a topic of an unknown type."""
    found = []
    for index in range(frames):
        at = stamp(index)
        pixels = picture(index, width=width, height=height)
        found += [
            Entry("/camera/image_raw", at, image(pixels, at)),
            Entry("/camera/camera_info", at + 1, camera_info(at, width=width, height=height)),
            Entry("/odd", at + 2, b"\x00\x01\x00\x00" + bytes([index] * 5)),
        ]
    return found


def write(
    path: Path,
    content: Sequence[Entry],
    *,
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
    types: dict[str, str] | None = None,
) -> Path:
    """A recording with these messages."""
    types = types or TYPES
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for entry in content:
            if entry.topic not in connections:
                msgtype = types[entry.topic]
                odd = msgtype == ODD
                connections[entry.topic] = writer.add_connection(
                    entry.topic,
                    msgtype,
                    typestore=STORE,
                    msgdef="uint8 a\n" if odd else None,
                    rihs01="RIHS01_" + "1" * 64 if odd else None,
                )
            writer.write(connections[entry.topic], entry.stamp_ns, entry.data)
    return path


def split(path: Path, content: Sequence[Entry]) -> Path:
    """A recording in two files under one metadata.yaml, as long recordings are."""
    import yaml

    half = len(content) // 2
    parts = [write(path.with_name(f"{path.name}-{i}"), part) for i, part in
             enumerate((content[:half], content[half:]))]  # fmt: skip
    path.mkdir()
    names = []
    facts: dict[str, Any] = {}
    for index, part in enumerate(parts):
        name = f"{path.name}_{index}.mcap"
        shutil.copy(part / f"{part.name}.mcap", path / name)
        names.append(name)
        facts = yaml.safe_load((part / "metadata.yaml").read_text())
        shutil.rmtree(part)
    facts["rosbag2_bagfile_information"]["relative_file_paths"] = names
    (path / "metadata.yaml").write_text(yaml.safe_dump(facts))
    return path


def storage_file(folder: Path) -> Path:
    """The one file in a recording's folder that holds its messages."""
    (file,) = (path for path in folder.iterdir() if path.name != "metadata.yaml")
    return file
