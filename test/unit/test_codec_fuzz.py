"""Every image message, however malformed, is decoded to a frame or refused with one line."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from rain_removal_ros import codec
from rain_removal_ros.errors import FrameError
from rain_removal_ros.frames import Frame

ROS = get_typestore(Stores.LATEST).types
ENCODINGS = [
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC1", "8UC3", "8UC4"),
    *("rgb16", "bgr16", "rgba16", "bgra16", "mono16", "16UC1", "16UC3", "16UC4"),
    *(f"bayer_{name}{depth}" for name in ("rggb", "bggr", "gbrg", "grbg") for depth in (8, 16)),
    *("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"),
    *("", "rgb", "RGB8", "32FC1", "64FC4", "8UC2", "16SC1", "passthrough", "jpeg"),
]
FORMATS = [
    *("", "jpeg", "png", "bgr8; jpeg compressed bgr8", "rgb8; png compressed ", "h264"),
    *("bayer_rggb8; jpeg compressed ", "bayer_grbg16; png compressed ", "16UC1; compressedDepth"),
]

uint32 = st.integers(0, 12) | st.sampled_from([2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1])


def header(frame_id: str) -> Any:
    stamp = ROS["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    return ROS["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


@st.composite
def images(draw: st.DrawFn) -> Any:
    """Images with consistent fields, of which up to two are then replaced."""
    width, height = draw(st.integers(1, 6)) * 2, draw(st.integers(1, 6)) * 2
    step = width * draw(st.sampled_from([8, 4, 3, 2, 1])) + draw(st.integers(0, 3))
    size = 3 * step * height
    message = ROS["sensor_msgs/msg/Image"](
        header=header(draw(st.text(max_size=3))),
        height=height,
        width=width,
        encoding=draw(st.sampled_from(ENCODINGS)),
        is_bigendian=draw(st.integers(0, 255)),
        step=step,
        data=np.frombuffer(np.random.default_rng(0).bytes(size), np.uint8),
    )
    replacements = {
        "height": uint32,
        "width": uint32,
        "step": uint32 | st.just(step + 1),
        "encoding": st.text(max_size=60),
        "data": st.integers(0, size).map(lambda end: message.data[:end]),
    }
    for field in draw(st.lists(st.sampled_from(sorted(replacements)), max_size=2, unique=True)):
        setattr(message, field, draw(replacements[field]))
    return message


def picture_files() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 10, 4), np.uint8)
    pictures = [noise[..., 0], noise[..., :3], noise, noise.astype(np.uint16) * 257]
    made = [cv2.imencode(".png", picture)[1] for picture in pictures]
    made += [cv2.imencode(".jpg", picture)[1] for picture in pictures[:2]]
    made += [cv2.imencode(".jpg", noise[..., :3], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]]
    return [data.tobytes() for data in made]


@st.composite
def compressed_images(draw: st.DrawFn) -> Any:
    """Picture files with bytes changed, inserted and removed, or random bytes."""
    data = bytearray(draw(st.sampled_from(picture_files()) | st.binary(max_size=40)))
    for _ in range(draw(st.integers(0, 4))):
        # The headers are at the beginning of a file.
        start = draw(st.integers(0, min(len(data), 40)) | st.integers(0, len(data)))
        removed = draw(st.integers(0, 3) | st.just(len(data)))
        data[start : start + removed] = draw(st.binary(max_size=4))
    return ROS["sensor_msgs/msg/CompressedImage"](
        header=header(draw(st.text(max_size=3))),
        format=draw(st.sampled_from(FORMATS) | st.text(max_size=60)),
        data=np.frombuffer(bytes(data), np.uint8),
    )


def frame_or_line(message: Any) -> Frame | str:
    try:
        return codec.decode(message)
    except FrameError as error:
        return str(error)


def check_decoding(message: Any) -> None:
    outcome = frame_or_line(message)
    if isinstance(outcome, str):
        assert len(outcome.splitlines()) == 1
        assert len(outcome) < 600
        return
    assert (outcome.stamp_ns, outcome.frame_id) == (1_000_000_002, message.header.frame_id)
    if hasattr(message, "encoding"):
        assert (outcome.width, outcome.height) == (message.width, message.height)


@settings(deadline=None)
@given(message=images())
def test_an_image_message_gives_a_frame_or_a_one_line_error(message: Any) -> None:
    check_decoding(message)


@settings(deadline=None)
@given(message=compressed_images())
def test_a_compressed_message_gives_a_frame_or_a_one_line_error(message: Any) -> None:
    check_decoding(message)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000, suppress_health_check=list(HealthCheck))
@given(message=images() | compressed_images())
def test_ten_thousand_messages_give_frames_or_one_line_errors(message: Any) -> None:
    check_decoding(message)


def test_many_encodings_among_the_drawn_messages_are_decoded() -> None:
    """If the fields never matched, the tests above would see the same error again and again."""
    decoded: set[str] = set()

    @settings(deadline=None, max_examples=500, database=None, derandomize=True)
    @given(message=images() | compressed_images())
    def draw(message: Any) -> None:
        try:
            codec.decode(message)
        except FrameError:
            return
        decoded.add(getattr(message, "encoding", "compressed"))

    draw()
    assert {"compressed"} < decoded
    assert len(decoded) > 12
