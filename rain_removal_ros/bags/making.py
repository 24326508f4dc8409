"""Makes a recording of a simulated drive, a video or pictures, with rain and the ground truth.

It replaces a recording of a real camera, and has what no real one can have: the same scene without
rain, its depth, and the place of every object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros import codec
from rain_removal_ros.bags.messages import (
    BOXES,
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    encoded,
    header,
    new,
    standard,
)
from rain_removal_ros.bags.topics import REFERENCE
from rain_removal_ros.bags.writing import BagWriter, create
from rain_removal_ros.errors import BagError
from rain_removal_ros.frames import Image

if TYPE_CHECKING:
    from rain_removal_ros.simulation.drive import Box
    from rain_removal_ros.simulation.scenes import RainSettings, SceneSettings, Shot, View

FIRST_STAMP_NS = 1_700_000_000_000_000_000
"""A fixed start, so that the same options make the same recording."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is recorded."""

    camera: str = "/camera"
    """The namespace of the topics."""
    seconds: float | None = None
    """Length; None for all, or for 20 seconds of the endless drive."""
    jpeg: bool = False
    """Images as JPEG instead of raw."""
    quality: int = 90
    force: bool = False
    compression: str = "none"


def make(
    scene: SceneSettings,
    rain: RainSettings,
    out: Path,
    contents: Contents,
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Write a recording of a scene in rain; returns the number of frames."""
    from rain_removal_ros.simulation.scenes import Film, open_scene

    opened = open_scene(scene)
    total = _frames(opened.frames, contents.seconds, scene.fps)
    film = Film(opened, rain)
    with create(out, force=contents.force, compression=contents.compression) as output:
        recorder = _Recorder(output, contents)
        for index in range(total):
            recorder.record(film.view(index), FIRST_STAMP_NS + round(index * 1e9 / scene.fps))
            progress(index + 1, total)
    return total


def _frames(there: int | None, seconds: float | None, fps: float) -> int:
    if seconds is not None and seconds <= 0:
        raise BagError(f"a recording lasts longer than {seconds:g} seconds")
    if there is None:
        return max(1, round((20.0 if seconds is None else seconds) * fps))
    return there if seconds is None else min(there, max(1, round(seconds * fps)))


class _Recorder:
    """Writes the messages of one moment after another."""

    def __init__(self, output: BagWriter, contents: Contents) -> None:
        self._output = output
        self._contents = contents
        space = contents.camera.rstrip("/")
        kind, ending = (COMPRESSED, "/compressed") if contents.jpeg else (IMAGE, "")
        self._rainy = standard(f"{space}/image_raw{ending}", kind)
        self._reference = standard(f"{space}/{REFERENCE}{ending}", kind)
        self._depth = standard(f"{space}/depth", IMAGE)
        self._info = standard(f"{space}/camera_info", CAMERA_INFO)
        self._boxes = standard(f"{space}/boxes", BOXES)

    def record(self, view: View, stamp_ns: int) -> None:
        stamped = header(stamp_ns, "camera")
        shot = view.shot
        self._write(self._rainy, self._image(view.rainy, stamped), stamp_ns)
        self._write(self._reference, self._image(shot.image, stamped), stamp_ns)
        self._write(self._info, calibration(shot, stamped), stamp_ns)
        if shot.depth is not None:
            self._write(self._depth, depth_image(shot.depth, stamped), stamp_ns)
            self._write(self._boxes, detections(shot.boxes, stamped), stamp_ns)

    def _write(self, channel: Any, message: Any, stamp_ns: int) -> None:
        self._output.add(channel)
        self._output.write(channel, stamp_ns, encoded(message))

    def _image(self, image: Image, stamped: Any) -> Any:
        if not self._contents.jpeg:
            fields = codec.image_fields(image, encoding="rgb8")
            return new(IMAGE, header=stamped, **fields)
        message = new(COMPRESSED, header=header(), format="", data=np.empty(0, np.uint8))
        quality = self._contents.quality
        codec.write_compressed(message, image, format="jpeg", quality=quality, header=stamped)
        return message


def calibration(shot: Shot, stamped: Any) -> Any:
    """The CameraInfo message of a shot."""
    fields = {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in shot.calibration.items()
    }
    whole = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}
    roi = new("sensor_msgs/msg/RegionOfInterest", **whole)
    return new(CAMERA_INFO, header=stamped, **fields, binning_x=0, binning_y=0, roi=roi)


def depth_image(depth: NDArray[np.float32], stamped: Any) -> Any:
    """Depth in metres as 32FC1."""
    height, width = depth.shape
    data = np.ascontiguousarray(depth, "<f4").view(np.uint8).reshape(-1)
    return new(
        IMAGE,
        header=stamped,
        height=height,
        width=width,
        encoding="32FC1",
        is_bigendian=0,
        step=4 * width,
        data=data,
    )


def detections(boxes: tuple[Box, ...], stamped: Any) -> Any:
    """Boxes as in vision_msgs, by their centre; the id is the object's number."""
    return new(BOXES, header=stamped, detections=[_detection(box, stamped) for box in boxes])


def _detection(box: Box, stamped: Any) -> Any:
    point = new("vision_msgs/msg/Point2D", x=(box.x1 + box.x2) / 2, y=(box.y1 + box.y2) / 2)
    centre = new("vision_msgs/msg/Pose2D", position=point, theta=0.0)
    size = {"size_x": box.x2 - box.x1, "size_y": box.y2 - box.y1}
    position = new("geometry_msgs/msg/Point", x=0.0, y=0.0, z=box.distance)
    orientation = new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = new(
        "geometry_msgs/msg/PoseWithCovariance",
        pose=new("geometry_msgs/msg/Pose", position=position, orientation=orientation),
        covariance=np.zeros(36),
    )
    hypothesis = new("vision_msgs/msg/ObjectHypothesis", class_id=box.label, score=1.0)
    result = new("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=pose)
    return new(
        "vision_msgs/msg/Detection2D",
        header=stamped,
        results=[result],
        bbox=new("vision_msgs/msg/BoundingBox2D", center=centre, **size),
        id=str(box.id),
    )
