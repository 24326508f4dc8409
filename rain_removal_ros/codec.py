"""Converts image messages to frames and back, for rclpy's and rosbags' message objects alike.

Only this module knows colour orders, row padding and byte orders: frames are 8-bit RGB. Every pass
over a 1080p image costs time, so views are used instead of copies where possible, and conversions
take one pass. Messages are not trusted: any problem is a ``FrameError``, and no more memory is
allocated than the message's data justifies.
"""

from __future__ import annotations

import difflib
import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros import png
from rain_removal_ros.errors import FrameError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.settings import LimitSettings

__all__ = [
    "compression",
    "decode",
    "image_fields",
    "into",
    "output_encoding",
    "set_stamp",
    "stamp_ns",
    "write_compressed",
    "write_image",
]

# The most pixels that the formats pack into one byte: deflate 1032 bytes of eight pixels each, JPEG
# one bit per block of 64 pixels. A file that announces more is cut or lies, and a few hundred bytes
# should not make a robot clear half a gigabyte.
_PIXELS_A_BYTE = {"png": 1032 * 8, "jpeg": 64 * 8}

_MOST_SEGMENTS = 1000
"""Before a JPEG's picture. Those of cameras have a dozen; a colour profile may take 255."""

_MOST_COMPONENTS = 4

_LIMITS = LimitSettings()

_NS = 1_000_000_000


class Header(Protocol):
    """std_msgs/msg/Header, whose stamp has ``sec`` and ``nanosec``."""

    stamp: Any
    frame_id: str


class ImageMessage(Protocol):
    """sensor_msgs/msg/Image."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedMessage(Protocol):
    """sensor_msgs/msg/CompressedImage."""

    header: Any
    format: str
    data: Any


# --- What a message contains --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the pixels of one encoding are laid out in memory, and how they become RGB."""

    to_rgb: Callable[[NDArray[Any]], NDArray[Any]]
    channels: int = 1
    bytes_each: int = 1
    block: tuple[int, int] = (1, 1)  # width and height must be multiples of it
    rows_a_block: int = 1  # more than the block's height if a chroma plane follows
    least: int = 1  # the smallest number of pixels in either direction


def _nv24_to_rgb(planes: NDArray[np.uint8]) -> NDArray[Any]:
    """A luma plane, then a chroma plane of the same resolution with two bytes per pixel and twice
    the step.

    OpenCV has no such format. Each pixel is written as a YUYV pair of two equal pixels, and the
    first is kept, so the arithmetic is that of the other YUV encodings.
    """
    height, width = planes.shape[0] // 3, planes.shape[1]
    chroma = np.lib.stride_tricks.as_strided(
        planes[height:], (height, width, 2), (2 * planes.strides[0], 2, 1)
    )
    pairs = np.empty((height, width, 4), np.uint8)
    cv2.mixChannels([planes[:height], chroma], [pairs], [0, 0, 1, 1, 0, 2, 2, 3])
    doubled = cv2.cvtColor(pairs.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_YUY2)
    return cv2.resize(doubled, (width, height), interpolation=cv2.INTER_NEAREST)


def _layouts() -> dict[str, _Layout]:
    """All encodings that are decoded here."""

    def by(code: int, **facts: Any) -> _Layout:
        return _Layout(partial(cv2.cvtColor, code=code), **facts)

    rgb = _Layout(lambda pixels: pixels, channels=3)
    bgr = by(cv2.COLOR_BGR2RGB, channels=3)
    rgba = by(cv2.COLOR_RGBA2RGB, channels=4)
    bgra = by(cv2.COLOR_BGRA2RGB, channels=4)
    mono = by(cv2.COLOR_GRAY2RGB)
    any_depth = {
        "rgb{}": rgb,
        "bgr{}": bgr,
        "rgba{}": rgba,
        "bgra{}": bgra,
        "mono{}": mono,
        # OpenCV's own names do not say a colour order; OpenCV's order is assumed.
        "{}UC1": mono,
        "{}UC3": bgr,
        "{}UC4": bgra,
        # ROS names a Bayer pattern by its first two rows from the corner, OpenCV from one pixel
        # inside.
        "bayer_rggb{}": by(cv2.COLOR_BayerBG2RGB, least=3),
        "bayer_bggr{}": by(cv2.COLOR_BayerRG2RGB, least=3),
        "bayer_gbrg{}": by(cv2.COLOR_BayerGR2RGB, least=3),
        "bayer_grbg{}": by(cv2.COLOR_BayerGB2RGB, least=3),
    }
    uyvy = by(cv2.COLOR_YUV2RGB_UYVY, channels=2, block=(2, 1))
    yuyv = by(cv2.COLOR_YUV2RGB_YUY2, channels=2, block=(2, 1))
    return {
        **{name.format(8): layout for name, layout in any_depth.items()},
        **{name.format(16): replace(layout, bytes_each=2) for name, layout in any_depth.items()},
        "yuv422": uyvy,
        "uyvy": uyvy,
        "yuv422_yuy2": yuyv,
        "yuyv": yuyv,
        "nv12": by(cv2.COLOR_YUV2RGB_NV12, block=(2, 2), rows_a_block=3),
        "nv21": by(cv2.COLOR_YUV2RGB_NV21, block=(2, 2), rows_a_block=3),
        "nv24": _Layout(_nv24_to_rgb, rows_a_block=3),
    }


_LAYOUTS = _layouts()
_LAYOUT_OF_CHANNELS = {1: _LAYOUTS["mono8"], 3: _LAYOUTS["bgr8"], 4: _LAYOUTS["bgra8"]}

# OpenCV's conversion from an engine's output (RGB or grey, by its dimensions) to the outgoing
# encoding
_WRITERS = {
    ("rgb8", 3): None,
    ("bgr8", 3): cv2.COLOR_RGB2BGR,
    ("mono8", 3): cv2.COLOR_RGB2GRAY,
    ("rgb8", 2): cv2.COLOR_GRAY2RGB,
    ("bgr8", 2): cv2.COLOR_GRAY2BGR,
    ("mono8", 2): None,
}
_WRITABLE = ("rgb8", "bgr8", "mono8")


# --- Message to frame --------------------------------------------------------------------------


def decode(message: ImageMessage | CompressedMessage, limits: LimitSettings = _LIMITS) -> Frame:
    """The image in a raw or compressed message.

    For ``rgb8`` it is a read-only view into the message, valid while nobody writes there. All
    others are new arrays. 16 bit become 8 as in cv_bridge: ``value * 255 / 65535``, rounded.
    Compressed images beyond the limits are refused, not decoded.
    """
    if hasattr(message, "encoding"):
        image = _raw_image(cast("ImageMessage", message))
    elif hasattr(message, "format"):
        image = _compressed_image(message, limits)
    else:
        raise FrameError(f"a {type(message).__name__} is neither an Image nor a CompressedImage")
    return Frame(image, stamp_ns=stamp_ns(message.header), frame_id=message.header.frame_id)


def output_encoding(encoding: str) -> str:
    """The encoding of the derained image for an input of this encoding.

    Grey and BGR cameras keep their encoding; all other colour images, which no network makes,
    become ``rgb8``.
    """
    if encoding == "bgr8":
        return "bgr8"
    return "mono8" if encoding in ("mono8", "mono16", "8UC1", "16UC1") else "rgb8"


def stamp_ns(header: Header) -> int:
    """The header's stamp in nanoseconds."""
    return int(header.stamp.sec) * _NS + int(header.stamp.nanosec)


def compression(message: CompressedMessage) -> str:
    """``jpeg`` or ``png``, from the data: drivers write anything into the format."""
    return "png" if bytes(_buffer(message)[: len(png.SIGNATURE)]) == png.SIGNATURE else "jpeg"


def set_stamp(header: Header, stamp_ns: int) -> None:
    """Write a stamp in nanoseconds into a header."""
    sec, nanosec = divmod(stamp_ns, _NS)
    if not -(1 << 31) <= sec < 1 << 31:
        raise FrameError(f"a stamp of {stamp_ns} ns does not fit in a header, which ends in 2038")
    header.stamp.sec, header.stamp.nanosec = sec, nanosec


def _raw_image(message: ImageMessage) -> Image:
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        return _by_cv_bridge(message)
    pixels = _pixels(message, layout)
    image = _rgb(pixels, layout, message.encoding)
    if image is pixels:
        image.flags.writeable = False
    return image


def _pixels(message: ImageMessage, layout: _Layout) -> NDArray[Any]:
    """A view of the message's data: rows x width (x channels), chroma planes as further rows."""
    width, height, step = message.width, message.height, message.step
    if width < 1 or height < 1:
        raise FrameError(f"the image is {width}x{height} pixels, which is empty")
    across, down = layout.block
    if width % across or height % down:
        raise FrameError(
            f"{message.encoding} comes in blocks of {across}x{down} pixels, "
            f"but the image is {width}x{height}"
        )
    pixel = layout.channels * layout.bytes_each
    if step < width * pixel:
        raise FrameError(
            f"a row of {width} pixels of {message.encoding} takes {width * pixel} bytes, "
            f"but step says {step}"
        )
    data = _buffer(message)
    rows = height // down * layout.rows_a_block
    if len(data) < rows * step:
        raise FrameError(
            f"{width}x{height} pixels of {message.encoding} with a step of {step} take "
            f"{rows * step} bytes, but the message carries {len(data)}"
        )
    order = ">" if message.is_bigendian else "<"
    view = np.ndarray(
        (rows, width, layout.channels),
        f"{order}u{layout.bytes_each}",
        data,
        strides=(step, pixel, layout.bytes_each),
    )
    return view if layout.channels > 1 else view[..., 0]


def _rgb(pixels: NDArray[Any], layout: _Layout, encoding: str) -> Image:
    if min(pixels.shape[:2]) < layout.least:
        raise FrameError(
            f"{encoding} needs {layout.least}x{layout.least} pixels to find the colours, "
            f"but the image is {pixels.shape[1]}x{pixels.shape[0]}"
        )
    if pixels.dtype.itemsize == 1:
        return layout.to_rgb(pixels)
    # OpenCV needs its own byte order, and rows that start at a multiple of two bytes.
    colours = layout.to_rgb(np.require(pixels, np.uint16, ["C", "A"]))
    return cast("Image", cv2.convertScaleAbs(colours, alpha=255 / 65535))


def _buffer(message: ImageMessage | CompressedMessage) -> NDArray[np.uint8]:
    """The message's data, not copied."""
    try:
        return np.frombuffer(message.data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise FrameError(f"the image's data are not bytes: {_line(error)}") from error


def _by_cv_bridge(message: ImageMessage) -> Image:
    """Decode an encoding that is unknown here with the machine's cv_bridge."""
    try:
        import cv_bridge
    except ModuleNotFoundError as error:
        raise FrameError(
            f"{_unknown(message.encoding)} and there is no cv_bridge to ask"
        ) from error
    except Exception as error:  # a cv_bridge built for another NumPy fails in many ways
        raise FrameError(
            f"{_unknown(message.encoding)} and cv_bridge is broken: {_line(error)}"
        ) from error
    try:
        image = cv_bridge.CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:  # foreign code on foreign data: none of its errors may end a node
        raise FrameError(
            f"{_unknown(message.encoding)}, nor to cv_bridge: {_line(error)}"
        ) from error
    return np.asarray(image)


def _unknown(encoding: str) -> str:
    near = difflib.get_close_matches(encoding[:40].lower(), _LAYOUTS, n=3, cutoff=0.5)
    known = f"near ones: {', '.join(near)}" if near else f"known: {', '.join(_LAYOUTS)}"
    return f"the encoding {encoding[:40]!r} is not known ({known})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- Compressed message to frame ---------------------------------------------------------------


def _compressed_image(message: CompressedMessage, limits: LimitSettings) -> Image:
    if "compressedDepth" in message.format:
        raise FrameError(f"{message.format[:40]!r} is a depth image, not one of a camera's colours")
    data = _buffer(message)
    width, height = _checked_size(data.tobytes(), message.format, limits)
    try:
        # Unchanged: this code reduces the depth itself, and ignores orientation tags.
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FrameError(f"the compressed image is damaged: {_line(error)}") from error
    if pixels is None:
        raise FrameError(f"the compressed image of {width}x{height} pixels is damaged")
    source = message.format.partition(";")[0].strip()
    if source.startswith("bayer_") and source in _LAYOUTS and pixels.ndim == 2:
        return _rgb(pixels, _LAYOUTS[source], source)
    return _rgb(pixels, _LAYOUT_OF_CHANNELS[1 if pixels.ndim == 2 else pixels.shape[2]], source)


def _checked_size(encoded: bytes, format: str, limits: LimitSettings) -> tuple[int, int]:
    """Width and height from the file's header. The file must be of a known kind, and complete.

    The data decide what it is, not ``format``, in which drivers write anything. Incomplete files
    are refused here because older OpenCV makes up the rest.
    """
    kind = "png"
    cut_short = f"is cut short after {len(encoded)} bytes"
    if encoded.startswith(b"\xff\xd8"):
        kind = "jpeg"
        width, height, scan = _jpeg_header(encoded)
        flaw = "" if encoded.rfind(b"\xff\xd9") > scan else cut_short
        _check_scans(encoded, scan, limits.jpeg_scans)
    elif encoded.startswith(png.SIGNATURE) and len(encoded) >= 24:
        width, height = struct.unpack_from(">II", encoded, 16)
        flaw = png.flaw(encoded)
    elif encoded:
        raise FrameError(f"the compressed image ({format[:40]!r}) is neither JPEG nor PNG")
    else:
        raise FrameError("the compressed image is empty")
    most = int(limits.frame_mp * 1e6)
    if not 0 < width * height <= most:
        raise FrameError(
            f"the compressed image says it is {width}x{height} pixels; "
            f"from 1 to {most} can be decoded (limits.frame_mp)"
        )
    if width * height > _PIXELS_A_BYTE[kind] * len(encoded):
        flaw = cut_short
    if flaw:
        raise FrameError(f"the compressed image of {width}x{height} pixels {flaw}")
    return width, height


def _check_scans(encoded: bytes, first: int, most: int) -> None:
    """Refuse many scans: a decoder goes through the whole picture for each, however small it is."""
    scans = encoded.count(b"\xff\xda", first)  # within a scan no such two bytes meet
    if scans > most:
        raise FrameError(
            f"the compressed image has {scans} scans; up to {most} are decoded (limits.jpeg_scans)"
        )


def _jpeg_header(encoded: bytes) -> tuple[int, int, int]:
    """Width, height and the start of the scan, found the way libjpeg finds them."""
    size: tuple[int, int] | None = None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        at = encoded.find(b"\xff", at)
        if at < 0 or at + 9 > len(encoded):
            break
        marker = encoded[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # a marker without a segment
            at += 2
        elif marker == 0xDA and size:
            return *size, at
        elif marker in (0xD9, 0xDA):
            break
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                if encoded[at + 9 : at + 10] > bytes([_MOST_COMPONENTS]):
                    raise FrameError("the compressed image is a JPEG of more than four components")
                height, width = struct.unpack_from(">HH", encoded, at + 5)
                size = width, height
            at += 2 + struct.unpack_from(">H", encoded, at + 2)[0]
    raise FrameError("the compressed image is a JPEG without a picture: cut short or damaged")


# --- Image to message --------------------------------------------------------------------------


def into(
    message: ImageMessage, *, height: int, width: int, encoding: str, header: Header
) -> NDArray[np.uint8]:
    """Turn ``message`` into an image of this size and return its pixels, to be written in place.

    They are H x W x 3 in the channel order of ``encoding``, or H x W for ``mono8``. The buffer is
    reused if its size fits, so one outgoing message serves a whole stream.
    """
    channels = _channels(encoding)
    _copy_header(message, header)
    message.height, message.width, message.encoding = height, width, encoding
    message.step = width * channels
    message.is_bigendian = int(sys.byteorder == "big")
    return _writable(message, height * width * channels).reshape(_shape(height, width, channels))


def write_image(message: ImageMessage, image: Image, *, encoding: str, header: Header) -> None:
    """Fill ``message`` with an RGB (H x W x 3) or grey (H x W) image, in one pass."""
    height, width = _checked_shape(image)
    pixels = into(message, height=height, width=width, encoding=encoding, header=header)
    _write(pixels, image, encoding)


def image_fields(image: Image, *, encoding: str) -> dict[str, Any]:
    """All fields of a message except its header, for constructors that need all fields."""
    height, width = _checked_shape(image)
    channels = _channels(encoding)
    pixels = np.empty(_shape(height, width, channels), np.uint8)
    _write(pixels, image, encoding)
    return {
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": int(sys.byteorder == "big"),
        "step": width * channels,
        "data": pixels.reshape(-1),
    }


def write_compressed(
    message: CompressedMessage, image: Image, *, format: str, quality: int, header: Header
) -> None:
    """Fill ``message`` with an RGB or grey image as JPEG (``quality`` 1 to 100) or PNG.

    ``format`` is ``jpeg`` or ``png``, or the format of an incoming message, whose codec is kept. If
    that is empty it means JPEG, by the message's definition.
    """
    height, width = _checked_shape(image)
    codec, grey = _codec(format), image.ndim == 2
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if codec == "jpeg" else []
    pixels = image if grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        done, encoded = cv2.imencode(f".{codec}", pixels, options)
    except cv2.error as error:
        raise FrameError(f"cannot compress as {codec}: {_line(error)}") from error
    if not done:
        raise FrameError(f"an image of {width}x{height} pixels cannot be compressed as {codec}")
    _copy_header(message, header)
    # The format that image_transport writes, so that its subscribers get the right encoding.
    message.format = f"mono8; {codec} compressed " if grey else f"rgb8; {codec} compressed bgr8"
    _writable(message, encoded.size)[:] = encoded.reshape(-1)


def _copy_header(message: ImageMessage | CompressedMessage, header: Header) -> None:
    """Copy by value, because the outgoing message is reused."""
    message.header.frame_id = header.frame_id
    message.header.stamp.sec = header.stamp.sec
    message.header.stamp.nanosec = header.stamp.nanosec


def _codec(format: str) -> str:
    if not format or "jpeg" in format or "jpg" in format:
        return "jpeg"
    if "png" in format:
        return "png"
    raise FrameError(f"cannot compress as {format[:40]!r}; jpeg and png are possible")


def _writable(message: ImageMessage | CompressedMessage, size: int) -> NDArray[np.uint8]:
    """The message's data as ``size`` writable bytes, allocated again only if the size differs."""
    data = message.data
    if isinstance(data, np.ndarray):
        if data.shape != (size,) or data.dtype != np.uint8 or not data.flags.writeable:
            message.data = np.empty(size, np.uint8)
    elif not isinstance(data, array) or data.typecode != "B" or len(data) != size:
        # rclpy accepts an array without checking every byte; other types it checks.
        message.data = array("B", b"\0") * size
    return np.frombuffer(message.data, np.uint8)


def _write(pixels: NDArray[np.uint8], image: Image, encoding: str) -> None:
    code = _WRITERS[encoding, image.ndim]
    if code is None:
        np.copyto(pixels, image)
    else:
        cv2.cvtColor(image, code, dst=pixels)


def _checked_shape(image: Image) -> tuple[int, int]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise FrameError(f"an image is H x W (x 3) of uint8, got {image.shape} of {image.dtype}")
    if not image.size:
        raise FrameError(f"an image of {image.shape[1]}x{image.shape[0]} pixels cannot be sent")
    return int(image.shape[0]), int(image.shape[1])


def _channels(encoding: str) -> int:
    if encoding not in _WRITABLE:
        raise FrameError(f"cannot write {encoding[:40]!r}; possible are {', '.join(_WRITABLE)}")
    return 1 if encoding == "mono8" else 3


def _shape(height: int, width: int, channels: int) -> tuple[int, ...]:
    return (height, width) if channels == 1 else (height, width, channels)
