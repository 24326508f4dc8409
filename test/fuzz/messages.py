"""Hostile messages over real DDS, with valid ones among them.

A node reads two cameras, one raw and one compressed. Its network halves the brightness, so that
every image that comes out is seen to be derained, untouched or wrong.
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from array import array
from collections import Counter
from contextlib import closing
from typing import Any

import numpy as np
from fuzz.accounts import account, accounted
from fuzz.effort import Effort, Figures, Process, slowness
from fuzz.pictures import jpeg_of_many_scans
from ros.desk import (
    Desk,
    Faulty,
    Inbox,
    flags,
    message,
    networks_of_tests,
    picture,
    pixels,
    until,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from rain_removal_ros import codec

__all__ = ["LONG", "SHORT", "attack", "broken_compressed", "broken_image"]

SHORT, LONG = 800, 100_000
"""Numbers of messages."""
WATCHDOG_S = 2.0
FRAME_MP = 2.2
"""The limit of a robot with cameras up to 1080p. A valid picture may be as large as the limit, and
takes the memory that its size takes.
"""
_BETWEEN_WHOLE_ONES = 10
_PACE_S = 0.002
"""Long enough for the node to read most messages before the next one replaces them."""

ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "rgb16", "8UC1", "8UC3", "16UC1"),
    *("bayer_rggb8", "bayer_grbg16", "yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv12", "nv21"),
    *("nv24", "32FC1", "nonsense"),
)


def broken_image(choice: random.Random) -> Image:
    """An image with some wrong fields."""
    height, width = choice.randrange(0, 40), choice.randrange(0, 40)
    if choice.random() < 0.01:
        height, width = choice.choice([(1, 100_000), (100_000, 1), (2, 50_000), (700, 700)])
    encoding = choice.choice(ENCODINGS)
    if choice.random() < 0.1:
        encoding = "".join(chr(choice.randrange(32, 0x2FF)) for _ in range(choice.randrange(20)))
    step = width * choice.choice([1, 1, 2, 3, 3, 3, 4, 6])
    if choice.random() < 0.2:
        step = choice.choice([0, 1, 2**31, 2**32 - 1])
    length = min(step * height, 2_000_000 if width * height > 1600 else 20_000)
    if choice.random() < 0.1:
        height, width = choice.choice([(2**32 - 1, 2**32 - 1), (0, 5), (5, 0), (2**31, 1)])
    if choice.random() < 0.3:
        length = choice.randrange(0, length + 1)
    image = Image(
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        is_bigendian=choice.choice([0, 1, 255]),
        data=array("B", choice.randbytes(length)),
    )
    _break_header(image.header, choice)
    return image


def broken_compressed(choice: random.Random) -> CompressedImage:
    """A picture with changed or cut bytes, or one that takes more work than it should."""
    header = message(picture(), stamp_ns=1).header
    built = CompressedImage()
    if choice.random() < 0.03:
        content = bytearray(_costly(choice))
    else:
        kind = choice.choice(["jpeg", "png"])
        codec.write_compressed(built, picture(), format=kind, quality=50, header=header)
        content = bytearray(built.data)
        for _ in range(choice.randrange(0, 30)):
            content[choice.randrange(len(content))] = choice.randrange(256)
        if choice.random() < 0.4:
            content = content[: choice.randrange(len(content) + 1)]
    built.data = array("B", content)
    built.format = choice.choice(["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "nonsense"])
    _break_header(built.header, choice)
    return built


def broken_calibration(choice: random.Random) -> CameraInfo:
    """A calibration with numbers that no camera has."""
    odd = [0.0, -1.0, 1e308, float("nan"), float("inf")]
    info = CameraInfo(
        height=choice.choice([0, 48, 2**32 - 1]),
        width=choice.choice([0, 64, 2**32 - 1]),
        distortion_model=choice.choice(["", "plumb_bob", "x" * 1000]),
        d=[choice.choice(odd) for _ in range(choice.randrange(20))],
        k=[choice.choice(odd) for _ in range(9)],
        p=[choice.choice(odd) for _ in range(12)],
    )
    _break_header(info.header, choice)
    return info


def _break_header(header: Any, choice: random.Random) -> None:
    header.stamp.sec = choice.choice([0, 1, -(2**31), 2**31 - 1, choice.randrange(10**9)])
    header.stamp.nanosec = choice.choice([0, 999_999_999, 2**32 - 1])
    header.frame_id = choice.choice(["", "camera", "\n\x00"[:1], "x" * 500])


def _costly(choice: random.Random) -> bytes:
    """A picture of few bytes that takes much work."""
    kind = choice.randrange(4)
    if kind == 0:
        return jpeg_of_many_scans(choice.randrange(8, 2000), choice.randrange(8, 2000), 12)
    if kind == 1:
        return jpeg_of_many_scans(512, 512, choice.randrange(17, 3000))
    if kind == 2:
        return _png(choice.randrange(1, 3000), choice.randrange(1, 3000))
    return b"\xff\xd8" + b"\xff\xe0\0\2" * choice.randrange(100_000)


def _png(width: int, height: int) -> bytes:
    """A black picture."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height)))
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


class _Camera:
    """A camera under attack: its topics, and valid frames that must come through."""

    def __init__(self, desk: Desk, name: str) -> None:
        self._packed = name == "packed"
        kind = CompressedImage if self._packed else Image
        topic = f"/{name}/image" + "/compressed" * self._packed
        self._images = desk.publisher(topic, kind)
        self._calibrations = desk.publisher(f"/{name}/camera_info", CameraInfo)
        self.derained: Inbox = desk.inbox(f"/{name}/image_derained")
        for other, other_kind in (("attention", Image), ("camera_info_derained", CameraInfo)):
            desk.inbox(f"/{name}/{other}", other_kind)
        desk.listened(self._images)
        self.sent = 0

    def attack(self, choice: random.Random) -> None:
        if choice.random() < 0.1:
            self._calibrations.publish(broken_calibration(choice))
        broken = broken_compressed if self._packed else broken_image
        self._publish(broken(choice))

    def whole(self, index: int) -> tuple[float, bool]:
        """Send a valid frame. Returns how long it took to come out, and whether it was derained."""
        sent = picture(index)
        built = message(sent, stamp_ns=10**15 + index)
        frame = built
        if self._packed:
            frame = CompressedImage()
            header = built.header
            codec.write_compressed(frame, sent, format="png", quality=50, header=header)
        self.derained.clear()
        began = time.monotonic()
        self._publish(frame)
        received = self.derained.wait(lambda one: one.header == built.header)
        took = time.monotonic() - began
        derained = np.abs(pixels(received).astype(int) - sent / 2).max() <= 1
        assert derained or np.array_equal(pixels(received), sent), "a frame came out wrong"
        return took, bool(derained)

    def _publish(self, built: Any) -> None:
        self._images.publish(built)
        self.sent += 1


def attack(effort: Effort) -> Figures:
    """Send ``count`` hostile messages, and valid frames after every tenth."""
    with networks_of_tests(), closing(Desk(effort.domain)) as desk:
        return _attack(desk, effort)


def _attack(desk: Desk, effort: Effort) -> Figures:
    log = effort.folder / "node.log"
    node = desk.process(*_arguments(Faulty(effort.folder)), log=log)
    cameras = [_Camera(desk, name) for name in ("raw", "packed")]
    index = 0
    for camera in cameras:
        until(lambda camera=camera: camera.whole(index)[1], "a derained frame")
    held = Process(node.pid)
    held.look()
    longest_s, untouched = 0.0, 0
    for index in range(1, effort.count + 1):
        effort.choice.choice(cameras).attack(effort.choice)
        time.sleep(_PACE_S)
        if index % _BETWEEN_WHOLE_ONES == 0:
            for camera in cameras:
                took_s, derained = camera.whole(index)
                longest_s, untouched = max(longest_s, took_s), untouched + (not derained)
        if index % 100 == 0:
            held.look()
    assert node.poll() is None, (effort.folder / "node.log").read_text()[-2000:]
    assert longest_s < (WATCHDOG_S + 1) * slowness(), f"silent for {longest_s:.1f} s"
    held.check(memory_mb=300, threads=40, files=5)
    counts = _settled(desk, sum(camera.sent for camera in cameras))
    assert counts["received"] == accounted(counts)
    return {
        "messages": effort.count,
        "whole frames": effort.count // _BETWEEN_WHOLE_ONES * 2,
        "of them untouched": untouched,
        "longest silence [s]": round(longest_s, 2),
        "received": counts["received"],
        "accounted for": accounted(counts),
        **held.figures(),
    }


def _arguments(faulty: Faulty) -> list[str]:
    parameters = {
        "network.weights": str(faulty.weights),
        "input.cameras": "[raw, packed]",
        "stream.scene_cut": "0.0",
        "engine.precision": "float32",
        "engine.threads": "1",
        "safety.watchdog_s": str(WATCHDOG_S),
        "limits.frame_mp": str(FRAME_MP),
    }
    for topic in ("/raw/image", "/packed/image/compressed"):
        parameters[f"qos_overrides.{topic}.subscription.reliability"] = "reliable"
        parameters[f"qos_overrides.{topic}.subscription.depth"] = "50"
    return flags(parameters)


def _settled(desk: Desk, sent: int) -> Counter[str]:
    """The account of all frames, once all that were sent are received and accounted for."""
    from diagnostic_msgs.msg import DiagnosticArray

    reports = desk.inbox("/diagnostics", DiagnosticArray)

    def counted() -> Counter[str] | None:
        counts = account(reports)
        return counts if counts["received"] == accounted(counts) == sent else None

    found: Counter[str] = until(counted, f"an account of {sent} frames", 30.0)
    return found
