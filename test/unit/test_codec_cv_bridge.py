"""The codec agrees with upstream's cv_bridge on every encoding that cv_bridge decodes correctly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rain_removal_ros import codec

cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed")
sensor_msgs = pytest.importorskip("sensor_msgs.msg")

# Bytes per pixel. cv_bridge does not convert 8UC*, 16UC*, nv* and the newer 4:2:2 names to RGB, and
# fails on big endian with NumPy 2, so these are left out.
PIXEL = {
    **dict.fromkeys(["rgb8", "bgr8"], 3),
    **dict.fromkeys(["rgba8", "bgra8"], 4),
    **dict.fromkeys(["rgb16", "bgr16"], 6),
    **dict.fromkeys(["rgba16", "bgra16"], 8),
    **dict.fromkeys(["mono8", *(f"bayer_{name}8" for name in ("rggb", "bggr", "gbrg", "grbg"))], 1),
    **dict.fromkeys(
        ["mono16", *(f"bayer_{name}16" for name in ("rggb", "bggr", "gbrg", "grbg"))], 2
    ),
    **dict.fromkeys(["yuv422", "yuv422_yuy2"], 2),
}


@st.composite
def messages(draw: st.DrawFn, encoding: str) -> Any:
    """Images of random noise, with rows padded by whole pixels, as cv_bridge requires."""
    width, height = draw(st.integers(2, 20)) * 2, draw(st.integers(3, 20))
    message = sensor_msgs.Image(encoding=encoding, width=width, height=height)
    message.step = (width + draw(st.integers(0, 5))) * PIXEL[encoding]
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    message.data = noise.bytes(message.step * height)
    return message


@pytest.mark.parametrize("encoding", PIXEL)
@settings(deadline=None)
@given(data=st.data())
def test_the_codec_decodes_as_cv_bridge(encoding: str, data: st.DataObject) -> None:
    message = data.draw(messages(encoding))
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    np.testing.assert_array_equal(codec.decode(message).image, theirs)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_cv_bridge_reads_what_the_codec_writes(encoding: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (5, 7), np.uint8)[..., None].repeat(3, 2)
    message = sensor_msgs.Image()
    codec.write_image(message, image, encoding=encoding, header=message.header)
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    np.testing.assert_array_equal(theirs, image)
