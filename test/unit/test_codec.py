"""The codec decodes image messages of every encoding, and writes them."""

from __future__ import annotations

import struct
import sys
import zlib
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from fuzz.pictures import jpeg_of_many_scans
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rosbags.typesys import Stores, get_typestore

from rain_removal_ros import codec
from rain_removal_ros.errors import FrameError
from rain_removal_ros.settings import LimitSettings

ROS = get_typestore(Stores.LATEST).types
STAMP_NS = 1_700_000_000_123_456_789


def rosbags_header(frame_id: str = "camera") -> Any:
    stamp = ROS["builtin_interfaces/msg/Time"](sec=1_700_000_000, nanosec=123_456_789)
    return ROS["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def rosbags_image(
    encoding: str, width: int, height: int, step: int, data: bytes, is_bigendian: int = 0
) -> Any:
    return ROS["sensor_msgs/msg/Image"](
        header=rosbags_header(),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=step,
        data=np.frombuffer(data, np.uint8),
    )


def rosbags_compressed(format: str, data: bytes) -> Any:
    return ROS["sensor_msgs/msg/CompressedImage"](
        header=rosbags_header(), format=format, data=np.frombuffer(data, np.uint8)
    )


def rclpy_image(
    encoding: str, width: int, height: int, step: int, data: bytes, is_bigendian: int = 0
) -> Any:
    message = pytest.importorskip("sensor_msgs.msg").Image(
        height=height, width=width, encoding=encoding, is_bigendian=is_bigendian, step=step
    )
    message.data = data
    codec.set_stamp(message.header, STAMP_NS)
    message.header.frame_id = "camera"
    return message


def rclpy_compressed(format: str, data: bytes) -> Any:
    message = pytest.importorskip("sensor_msgs.msg").CompressedImage(format=format)
    message.data = data
    codec.set_stamp(message.header, STAMP_NS)
    message.header.frame_id = "camera"
    return message


@pytest.fixture(params=["rosbags", "rclpy"])
def make(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Makes messages of rosbags or rclpy, with stamp ``STAMP_NS`` and frame id ``camera``."""
    if request.param == "rosbags":
        return SimpleNamespace(image=rosbags_image, compressed=rosbags_compressed)
    return SimpleNamespace(image=rclpy_image, compressed=rclpy_compressed)


def padded_rows(pixels: np.ndarray, *, padding: int = 0) -> tuple[int, bytes]:
    """The step and the bytes of these pixels, each row followed by padding."""
    lines = np.frombuffer(pixels.tobytes(), np.uint8).reshape(len(pixels), -1)
    padded = np.pad(lines, ((0, 0), (0, padding)), constant_values=99)
    return padded.shape[1], padded.tobytes()


def random_pixels(*shape: int, dtype: str = "u1") -> np.ndarray:
    native = np.dtype(dtype).newbyteorder("=")
    drawn = np.random.default_rng(7).integers(0, np.iinfo(native).max + 1, shape, dtype=native)
    return drawn.astype(dtype)


CHANNELS_TO_RGB = {
    "rgb8": (0, 1, 2),
    "bgr8": (2, 1, 0),
    "rgba8": (0, 1, 2),
    "bgra8": (2, 1, 0),
    "mono8": (0, 0, 0),
    "8UC1": (0, 0, 0),
    "8UC3": (2, 1, 0),
    "8UC4": (2, 1, 0),
    "rgb16": (0, 1, 2),
    "bgr16": (2, 1, 0),
    "rgba16": (0, 1, 2),
    "bgra16": (2, 1, 0),
    "mono16": (0, 0, 0),
    "16UC1": (0, 0, 0),
    "16UC3": (2, 1, 0),
    "16UC4": (2, 1, 0),
}


def channels_of(encoding: str) -> int:
    return 4 if "a" in encoding or encoding.endswith("4") else len(set(CHANNELS_TO_RGB[encoding]))


def nearest_8_bit(value: np.ndarray) -> np.ndarray:
    return np.rint(value.astype(np.float64) * 255 / 65535).astype(np.uint8)


class TestRawImages:
    @pytest.mark.parametrize("encoding", CHANNELS_TO_RGB)
    @pytest.mark.parametrize("padding", [0, 1, 2, 7])
    @pytest.mark.parametrize("is_bigendian", [0, 1])
    def test_channels_become_rgb_at_any_step_and_byte_order(
        self, make: SimpleNamespace, encoding: str, padding: int, is_bigendian: int
    ) -> None:
        deep = "16" in encoding
        dtype = (">u2" if is_bigendian else "<u2") if deep else "u1"
        pixels = random_pixels(5, 7, channels_of(encoding), dtype=dtype)
        step, data = padded_rows(pixels, padding=padding)

        frame = codec.decode(make.image(encoding, 7, 5, step, data, is_bigendian))

        expected = pixels[..., CHANNELS_TO_RGB[encoding]]
        np.testing.assert_array_equal(frame.image, nearest_8_bit(expected) if deep else expected)
        assert (frame.stamp_ns, frame.frame_id) == (STAMP_NS, "camera")

    @given(
        pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(4))),
        encoding=st.sampled_from([name for name in CHANNELS_TO_RGB if "16" not in name]),
        padding=st.integers(0, 9),
    )
    def test_every_small_size_is_decoded(
        self, pixels: np.ndarray, encoding: str, padding: int
    ) -> None:
        pixels = pixels[..., : channels_of(encoding)]
        step, data = padded_rows(pixels, padding=padding)
        height, width = pixels.shape[:2]
        frame = codec.decode(rosbags_image(encoding, width, height, step, data))
        np.testing.assert_array_equal(frame.image, pixels[..., CHANNELS_TO_RGB[encoding]])

    def test_rgb8_is_a_read_only_view_into_the_message(self, make: SimpleNamespace) -> None:
        step, data = padded_rows(random_pixels(4, 5, 3), padding=2)
        message = make.image("rgb8", 5, 4, step, data)
        image = codec.decode(message).image
        assert np.shares_memory(image, np.frombuffer(message.data, np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0] = 0

    @pytest.mark.parametrize("encoding", ["bgr8", "rgba8", "mono8"])
    def test_a_converted_image_is_contiguous_and_shares_no_memory(
        self, make: SimpleNamespace, encoding: str
    ) -> None:
        step, data = padded_rows(random_pixels(4, 5, channels_of(encoding)), padding=2)
        message = make.image(encoding, 5, 4, step, data)
        image = codec.decode(message).image
        assert image.flags.c_contiguous
        assert not np.shares_memory(image, np.frombuffer(message.data, np.uint8))

    def test_every_16_bit_value_becomes_the_nearest_8_bit_value(self) -> None:
        values = np.arange(65536, dtype="<u2").reshape(256, 256)
        frame = codec.decode(rosbags_image("mono16", 256, 256, 512, values.tobytes()))
        np.testing.assert_array_equal(frame.image[..., 1], nearest_8_bit(values))

    def test_16_bit_pixels_at_an_odd_address_are_decoded(self) -> None:
        values = random_pixels(3, 4, 3, dtype="<u2")
        message = rosbags_image("rgb16", 4, 3, 24, values.tobytes())
        message.data = np.frombuffer(b"." + values.tobytes(), np.uint8)[1:]
        np.testing.assert_array_equal(codec.decode(message).image, nearest_8_bit(values))

    def test_bytes_after_the_last_row_are_ignored(self, make: SimpleNamespace) -> None:
        pixels = random_pixels(2, 2, 3)
        message = make.image("rgb8", 2, 2, 6, pixels.tobytes() + b"more")
        np.testing.assert_array_equal(codec.decode(message).image, pixels)


COLOUR = {"r": 200, "g": 120, "b": 40}


class TestBayerImages:
    @pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
    @pytest.mark.parametrize(("depth", "is_bigendian"), [(8, 0), (16, 0), (16, 1)])
    @pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 3)])
    def test_a_uniform_colour_is_recovered(
        self, make: SimpleNamespace, pattern: str, depth: int, is_bigendian: int, size: Any
    ) -> None:
        tile = np.array([COLOUR[letter] for letter in pattern]).reshape(2, 2)
        mosaic = np.tile(tile, (4, 4))[: size[0], : size[1]]
        dtype = "u1" if depth == 8 else (">u2" if is_bigendian else "<u2")
        step, data = padded_rows((mosaic * (257 if depth == 16 else 1)).astype(dtype), padding=3)
        message = make.image(f"bayer_{pattern}{depth}", size[1], size[0], step, data, is_bigendian)

        image = codec.decode(message).image

        assert image.shape == (*size, 3)
        np.testing.assert_array_equal(image, np.broadcast_to([200, 120, 40], image.shape))

    @pytest.mark.parametrize(("width", "height"), [(2, 9), (9, 2), (1, 1)])
    def test_a_mosaic_smaller_than_3x3_is_refused(self, width: int, height: int) -> None:
        with pytest.raises(FrameError, match="needs 3x3 pixels"):
            codec.decode(rosbags_image("bayer_rggb8", width, height, width, bytes(width * height)))


def bt601(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """RGB of studio-range YUV, as the recommendation defines it."""
    luma, blue, red = 1.164384 * (y - 16.0), u - 128.0, v - 128.0
    rgb = [luma + 1.596027 * red, luma - 0.391762 * blue - 0.812968 * red, luma + 2.017232 * blue]
    return np.clip(np.stack(rgb, -1), 0, 255)


def assert_close(image: np.ndarray, expected: np.ndarray) -> None:
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() <= 1.5  # fixed-point arithmetic


class TestYuv:
    WIDTH, HEIGHT = 6, 4
    LUMA = random_pixels(HEIGHT, WIDTH).clip(16)  # OpenCV clips luma below 16, which is black
    BLUE, RED = np.moveaxis(random_pixels(HEIGHT, WIDTH, 2)[:, :, ::-1], -1, 0)

    def image(self, make: SimpleNamespace, encoding: str, step: int, data: bytes) -> np.ndarray:
        return codec.decode(make.image(encoding, self.WIDTH, self.HEIGHT, step, data)).image

    @pytest.mark.parametrize("padding", [0, 1, 6])
    @pytest.mark.parametrize(
        ("encoding", "order"),
        [("uyvy", "uyvy"), ("yuv422", "uyvy"), ("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv")],
    )
    def test_two_pixels_share_their_chroma(
        self, make: SimpleNamespace, encoding: str, order: str, padding: int
    ) -> None:
        blue, red = self.BLUE[:, ::2], self.RED[:, ::2]
        luma = iter([self.LUMA[:, ::2], self.LUMA[:, 1::2]])
        parts = [{"u": blue, "v": red}.get(letter) for letter in order]
        parts = [next(luma) if part is None else part for part in parts]
        step, data = padded_rows(np.stack(parts, -1), padding=padding)
        expected = bt601(self.LUMA, blue.repeat(2, 1), red.repeat(2, 1))
        assert_close(self.image(make, encoding, step, data), expected)

    @pytest.mark.parametrize("padding", [0, 1, 6])
    @pytest.mark.parametrize("encoding", ["nv12", "nv21"])
    def test_four_pixels_share_their_chroma(
        self, make: SimpleNamespace, encoding: str, padding: int
    ) -> None:
        blue, red = self.BLUE[::2, ::2], self.RED[::2, ::2]
        pair = [blue, red] if encoding == "nv12" else [red, blue]
        chroma = np.stack(pair, -1).reshape(self.HEIGHT // 2, self.WIDTH)
        step, data = padded_rows(np.concatenate([self.LUMA, chroma]), padding=padding)
        expected = bt601(self.LUMA, blue.repeat(2, 0).repeat(2, 1), red.repeat(2, 0).repeat(2, 1))
        assert_close(self.image(make, encoding, step, data), expected)

    @pytest.mark.parametrize("padding", [0, 1, 6])
    def test_nv24_has_chroma_for_every_pixel(self, make: SimpleNamespace, padding: int) -> None:
        step, luma = padded_rows(self.LUMA, padding=padding)
        _, chroma = padded_rows(np.stack([self.BLUE, self.RED], -1), padding=2 * padding)
        image = self.image(make, "nv24", step, luma + chroma)
        assert_close(image, bt601(self.LUMA, self.BLUE, self.RED))

    @pytest.mark.parametrize(
        ("encoding", "width", "height", "block"),
        [
            ("uyvy", 5, 4, "2x1"),
            ("yuyv", 1, 1, "2x1"),
            ("nv21", 4, 3, "2x2"),
            ("nv12", 3, 4, "2x2"),
        ],
    )
    def test_a_size_that_splits_a_block_is_refused(
        self, encoding: str, width: int, height: int, block: str
    ) -> None:
        with pytest.raises(FrameError, match=f"blocks of {block} .* {width}x{height}$"):
            codec.decode(rosbags_image(encoding, width, height, 64, bytes(4096)))

    @pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
    def test_luma_without_its_chroma_is_refused(self, encoding: str) -> None:
        with pytest.raises(FrameError, match=r"but the message carries 24$"):
            codec.decode(rosbags_image(encoding, 6, 4, 6, bytes(24)))


class TestMalformedImages:
    @pytest.mark.parametrize(
        ("encoding", "width", "height", "step", "size", "line"),
        [
            ("rgb8", 0, 0, 0, 0, "0x0 pixels, which is empty"),
            ("rgb8", 4, 0, 12, 48, "4x0 pixels, which is empty"),
            ("bgr8", 4, 4, 11, 48, "takes 12 bytes, but step says 11"),
            ("mono16", 4, 4, 7, 48, "takes 8 bytes, but step says 7"),
            ("bgr8", 4, 4, 12, 47, "take 48 bytes, but the message carries 47"),
            ("bgr8", 4, 4, 13, 51, "take 52 bytes, but the message carries 51"),
            ("bgr8", 4, 4, 12, 0, "take 48 bytes, but the message carries 0"),
            ("bgr8", 2**31, 2**31, 12, 48, "takes 6442450944 bytes, but step says 12"),
            ("mono8", 2**31, 2**31, 2**32 - 1, 48, "but the message carries 48"),
            ("mono8", 1, 2**32 - 1, 1, 48, "take 4294967295 bytes"),
        ],
    )
    def test_the_error_for_a_malformed_image_says_what_does_not_fit(
        self,
        make: SimpleNamespace,
        encoding: str,
        width: int,
        height: int,
        step: int,
        size: int,
        line: str,
    ) -> None:
        with pytest.raises(FrameError, match=line):
            codec.decode(make.image(encoding, width, height, step, bytes(size)))

    def test_data_that_is_not_bytes_is_refused(self) -> None:
        message = rosbags_image("rgb8", 1, 1, 3, b"123")
        message.data = [1, 2, 3]
        with pytest.raises(FrameError, match="not bytes"):
            codec.decode(message)

    def test_another_message_type_is_refused(self) -> None:
        with pytest.raises(FrameError, match="neither an Image nor a CompressedImage"):
            codec.decode(rosbags_header())


class TestUnknownEncodings:
    @pytest.fixture
    def message(self) -> Any:
        return rosbags_image("RGB9", 1, 1, 3, b"123")

    def test_without_cv_bridge_the_error_names_similar_encodings(
        self, message: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "cv_bridge", None)
        with pytest.raises(FrameError, match=r"'RGB9' is not known .*rgb8.* no cv_bridge to ask$"):
            codec.decode(message)

    def test_without_a_similar_encoding_the_error_names_all(
        self, message: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "cv_bridge", None)
        message.encoding = "\n" * 1000
        with pytest.raises(FrameError, match=r"known: rgb8, .*nv24") as caught:
            codec.decode(message)
        assert "\n" not in str(caught.value)

    def test_cv_bridge_is_asked_for_rgb8(
        self, message: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def imgmsg_to_cv2(_: Any, message: Any, desired_encoding: str) -> np.ndarray:
            assert desired_encoding == "rgb8"
            return np.frombuffer(message.data, np.uint8).reshape(1, 1, 3)

        self.install_cv_bridge(monkeypatch, imgmsg_to_cv2)
        frame = codec.decode(message)
        assert (frame.image.tobytes(), frame.stamp_ns) == (b"123", STAMP_NS)

    def test_an_error_of_cv_bridge_is_reported_in_one_line(
        self, message: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def imgmsg_to_cv2(_: Any, message: Any, desired_encoding: str) -> np.ndarray:
            raise RuntimeError("Unrecognized\nimage encoding")

        self.install_cv_bridge(monkeypatch, imgmsg_to_cv2)
        with pytest.raises(FrameError, match=r"nor to cv_bridge: Unrecognized image encoding$"):
            codec.decode(message)

    @staticmethod
    def install_cv_bridge(monkeypatch: pytest.MonkeyPatch, imgmsg_to_cv2: Any) -> None:
        """A cv_bridge that knows one more encoding than the real one does."""
        module = ModuleType("cv_bridge")
        module.CvBridge = type("CvBridge", (), {"imgmsg_to_cv2": imgmsg_to_cv2})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cv_bridge", module)


def encoded(extension: str, pixels: np.ndarray) -> bytes:
    done, data = cv2.imencode(extension, pixels)
    assert done
    return data.tobytes()


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded(".jpg", random_pixels(8, 8, 3)))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


class TestCompressedImages:
    BGR = random_pixels(9, 11, 3)

    @pytest.mark.parametrize(
        "format", ["png", "", "jpeg", "rgb8; png compressed ", "bgr8; png compressed bgr8"]
    )
    def test_png_is_decoded_exactly_whatever_the_format_says(
        self, make: SimpleNamespace, format: str
    ) -> None:
        frame = codec.decode(make.compressed(format, encoded(".png", self.BGR)))
        np.testing.assert_array_equal(frame.image, self.BGR[..., ::-1])
        assert (frame.stamp_ns, frame.frame_id) == (STAMP_NS, "camera")

    @pytest.mark.parametrize("format", ["jpeg", "jpg", "bgr8; jpeg compressed bgr8"])
    def test_jpeg_is_decoded_as_by_opencv(self, make: SimpleNamespace, format: str) -> None:
        data = encoded(".jpg", self.BGR)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        frame = codec.decode(make.compressed(format, data))
        np.testing.assert_array_equal(frame.image, expected[..., ::-1])

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_16_bit_grey_and_alpha_become_8_bit_rgb(self, channels: int) -> None:
        pixels = random_pixels(5, 6, channels, dtype="<u2")
        frame = codec.decode(rosbags_compressed("png", encoded(".png", pixels)))
        order = [0, 0, 0] if channels == 1 else [2, 1, 0]
        np.testing.assert_array_equal(frame.image, nearest_8_bit(pixels[..., order]))

    def test_a_compressed_mosaic_is_decoded_to_colours(self) -> None:
        mosaic = np.tile(np.array([[200, 120], [120, 40]], np.uint8), (4, 4))
        message = rosbags_compressed("bayer_rggb8; png compressed ", encoded(".png", mosaic))
        image = codec.decode(message).image
        np.testing.assert_array_equal(image, np.broadcast_to([200, 120, 40], image.shape))

    def test_padding_after_a_jpeg_is_ignored(self) -> None:
        data = encoded(".jpg", self.BGR) + bytes(64)
        assert codec.decode(rosbags_compressed("jpeg", data)).image.shape == self.BGR.shape

    def test_the_orientation_tag_of_a_jpeg_is_ignored(self) -> None:
        tag = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 0x0112, 3, 1, 6) + bytes(4)
        body = b"Exif\0\0" + tag
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        plain = encoded(".jpg", self.BGR)
        turned = plain[:2] + segment + plain[2:]
        assert cv2.imdecode(np.frombuffer(turned, np.uint8), 1).shape == (11, 9, 3)
        assert codec.decode(rosbags_compressed("jpeg", turned)).image.shape == (9, 11, 3)

    @pytest.mark.parametrize("extension", [".jpg", ".png"])
    def test_a_truncated_file_is_refused(self, extension: str) -> None:
        data = encoded(extension, self.BGR)
        for end in range(len(data) - 1):
            with pytest.raises(FrameError):
                codec.decode(rosbags_compressed("", data[:end]))

    @pytest.mark.parametrize("end", [3000, 9000])
    def test_a_jpeg_truncated_in_its_scan_is_refused_although_its_thumbnail_is_complete(
        self, end: int
    ) -> None:
        thumbnail = encoded(".jpg", random_pixels(16, 16, 3))
        plain = encoded(".jpg", random_pixels(100, 100, 3))
        segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
        data = plain[:2] + segment + plain[2:]
        assert codec.decode(rosbags_compressed("jpeg", data)).image.shape == (100, 100, 3)
        with pytest.raises(FrameError, match=f"100x100 pixels is cut short after {end} bytes"):
            codec.decode(rosbags_compressed("jpeg", data[:end]))

    @pytest.mark.parametrize(
        ("data", "line"),
        [
            (b"", "is empty"),
            (b"garbage" * 100, "neither JPEG nor PNG"),
            (encoded(".bmp", BGR), "neither JPEG nor PNG"),
            (b"\xff\xd8" + bytes(100), "JPEG without a picture"),
            (b"\xff\xd8\xff\xd9", "JPEG without a picture"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "0x0 pixels; from 1"),
            (
                png_claiming(2**31 - 1, 2**31 - 1),
                "2147483647x2147483647 pixels; from 1 to 13000000",
            ),
            (png_claiming(40_000, 40_000), "40000x40000 pixels; from 1 to 13000000"),
            (png_claiming(0, 7), "0x7 pixels; from 1"),
            (jpeg_claiming(65_535, 65_535), "65535x65535 pixels; from 1 to 13000000"),
            (jpeg_claiming(8, 0), "8x0 pixels; from 1"),
            (png_claiming(3_600, 3_600), "3600x3600 pixels is cut short after"),
            (png_claiming(640, 480), "640x480 pixels is damaged"),
        ],
    )
    def test_the_error_for_a_compressed_image_says_what_is_wrong(
        self, make: SimpleNamespace, data: bytes, line: str
    ) -> None:
        with pytest.raises(FrameError, match=line):
            codec.decode(make.compressed("jpeg", data))

    def with_packed_texts(self, count: int) -> bytes:
        data = encoded(".png", self.BGR)
        body = b"iTXtkey\0\1\0\0\0" + zlib.compress(bytes(1000))
        text = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return data[:33] + count * text + data[33:]

    def test_a_png_with_some_packed_texts_is_decoded(self) -> None:
        decoded = codec.decode(rosbags_compressed("png", self.with_packed_texts(8)))
        assert decoded.image.shape == self.BGR.shape

    def test_a_png_with_many_packed_texts_is_refused(self) -> None:
        with pytest.raises(FrameError, match="11x9 pixels has 9 packed texts"):
            codec.decode(rosbags_compressed("png", self.with_packed_texts(9)))

    def test_a_png_whose_chunk_announces_a_gigabyte_is_not_decoded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = bytearray(encoded(".png", self.BGR))
        at = data.index(b"IDAT")
        data[at - 4 : at] = struct.pack(">I", 2**30)
        monkeypatch.setattr(cv2, "imdecode", None)
        with pytest.raises(FrameError, match="11x9 pixels is cut short"):
            codec.decode(rosbags_compressed("png", bytes(data)))

    @pytest.mark.parametrize("extension", [".jpg", ".png"])
    def test_a_black_image_that_compresses_well_is_decoded(self, extension: str) -> None:
        data = encoded(extension, np.zeros((2000, 3000), np.uint8))
        assert not codec.decode(rosbags_compressed("", data)).image.any()

    def test_a_jpeg_with_too_many_scans_is_refused(self) -> None:
        data = jpeg_of_many_scans(8000, 4000, 1000)
        with pytest.raises(FrameError, match=r"has 1000 scans; up to 16 .*limits.jpeg_scans"):
            codec.decode(rosbags_compressed("jpeg", data))

    def test_a_progressive_jpeg_is_decoded(self) -> None:
        _, data = cv2.imencode(".jpg", self.BGR, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
        assert bytes(data).count(b"\xff\xda") > 1
        frame = codec.decode(rosbags_compressed("jpeg", data.tobytes()))
        np.testing.assert_array_equal(frame.image, cv2.imdecode(data, 1)[..., ::-1])

    def test_settings_limit_the_scans_and_pixels_of_a_jpeg(self) -> None:
        data = jpeg_of_many_scans(40, 30, 50)
        assert not codec.decode(
            rosbags_compressed("jpeg", data), LimitSettings(jpeg_scans=50)
        ).image.std()
        with pytest.raises(FrameError, match=r"30x40 pixels; from 1 to 1000 .*limits.frame_mp"):
            codec.decode(
                rosbags_compressed("jpeg", data), LimitSettings(jpeg_scans=50, frame_mp=0.001)
            )

    @pytest.mark.parametrize("format", ["16UC1; compressedDepth", "32FC1; compressedDepth png"])
    def test_depth_images_are_refused(self, format: str) -> None:
        with pytest.raises(FrameError, match="is a depth image"):
            codec.decode(rosbags_compressed(format, encoded(".png", self.BGR)))

    def test_the_error_for_an_unknown_codec_names_it(self) -> None:
        with pytest.raises(FrameError, match=r"'h264'.* neither JPEG nor PNG"):
            codec.decode(rosbags_compressed("h264", bytes(100)))


class TestWriting:
    HEADER = rosbags_header("front/optical")

    @pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
    def test_an_rgb_image_is_written_completely(self, make: SimpleNamespace, encoding: str) -> None:
        image, message = random_pixels(5, 7, 3), make.image("", 0, 0, 0, b"")
        codec.write_image(message, image, encoding=encoding, header=self.HEADER)
        assert bytes(message.data) == image[..., CHANNELS_TO_RGB[encoding]].tobytes()
        assert (message.height, message.width, message.step) == (5, 7, 21)
        assert (message.encoding, message.is_bigendian) == (encoding, sys.byteorder == "big")

    @pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
    def test_a_grey_image_can_be_written_as_colour(
        self, make: SimpleNamespace, encoding: str
    ) -> None:
        image, message = random_pixels(5, 7), make.image("", 0, 0, 0, b"")
        codec.write_image(message, image, encoding=encoding, header=self.HEADER)
        assert bytes(message.data) == image.repeat(3).tobytes()

    def test_a_grey_image_is_written_unchanged(self, make: SimpleNamespace) -> None:
        image, message = random_pixels(5, 7), make.image("", 0, 0, 0, b"")
        codec.write_image(message, image, encoding="mono8", header=self.HEADER)
        assert (bytes(message.data), message.step) == (image.tobytes(), 7)

    def test_colours_become_grey_by_their_luma(self, make: SimpleNamespace) -> None:
        image, message = random_pixels(5, 7, 3), make.image("", 0, 0, 0, b"")
        codec.write_image(message, image, encoding="mono8", header=self.HEADER)
        luma = image @ np.array([0.299, 0.587, 0.114])
        assert np.abs(np.array(message.data).reshape(5, 7) - luma).max() <= 1

    def test_stamp_and_frame_id_are_copied_and_not_shared(self, make: SimpleNamespace) -> None:
        message = make.image("", 0, 0, 0, b"")
        header = rosbags_header("front/optical")
        codec.write_image(message, random_pixels(2, 2, 3), encoding="rgb8", header=header)
        codec.set_stamp(header, 0)
        header.frame_id = ""
        assert codec.stamp_ns(message.header) == STAMP_NS
        assert message.header.frame_id == "front/optical"

    def test_a_buffer_of_the_right_size_is_reused(self, make: SimpleNamespace) -> None:
        message = make.image("", 0, 0, 0, b"")
        codec.write_image(message, random_pixels(5, 7, 3), encoding="rgb8", header=self.HEADER)
        buffer = message.data
        codec.write_image(message, random_pixels(7, 5, 3), encoding="bgr8", header=self.HEADER)
        assert message.data is buffer
        codec.write_image(message, random_pixels(5, 8, 3), encoding="rgb8", header=self.HEADER)
        assert (message.data is not buffer, len(message.data)) == (True, 120)

    def test_writing_does_not_overwrite_the_bytes_of_a_recording(self) -> None:
        message = rosbags_image("rgb8", 2, 1, 6, b"record")
        recorded = message.data
        codec.write_image(message, random_pixels(1, 2, 3), encoding="rgb8", header=self.HEADER)
        assert recorded.tobytes() == b"record"
        assert message.data is not recorded

    @given(
        image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))),
        encoding=st.sampled_from(["rgb8", "bgr8"]),
    )
    def test_decoding_restores_a_written_image(self, image: np.ndarray, encoding: str) -> None:
        message = rosbags_image("", 0, 0, 0, b"")
        codec.write_image(message, image[:, ::-1], encoding=encoding, header=self.HEADER)
        np.testing.assert_array_equal(codec.decode(message).image, image[:, ::-1])

    @given(image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))))
    def test_decoding_restores_a_written_grey_image(self, image: np.ndarray) -> None:
        message = rosbags_image("", 0, 0, 0, b"")
        colours = image[..., None].repeat(3, axis=2)
        for written in (image, colours):
            codec.write_image(message, written, encoding="mono8", header=self.HEADER)
            np.testing.assert_array_equal(codec.decode(message).image, colours)

    @pytest.mark.parametrize(("encoding", "shape"), [("rgb8", (2, 3, 3)), ("mono8", (2, 3))])
    def test_pixels_can_be_written_in_place(
        self, make: SimpleNamespace, encoding: str, shape: Any
    ) -> None:
        message = make.image("", 0, 0, 0, b"")
        pixels = codec.into(message, height=2, width=3, encoding=encoding, header=self.HEADER)
        assert pixels.shape == shape
        pixels[:] = expected = random_pixels(*shape)
        assert bytes(message.data) == expected.tobytes()
        assert codec.stamp_ns(message.header) == STAMP_NS

    @pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
    def test_a_message_can_be_built_from_its_fields(self, encoding: str) -> None:
        image = random_pixels(5, 7)[..., None].repeat(3, axis=2)
        fields = codec.image_fields(image, encoding=encoding)
        message = ROS["sensor_msgs/msg/Image"](header=self.HEADER, **fields)
        np.testing.assert_array_equal(codec.decode(message).image, image)

    @pytest.mark.parametrize(
        ("image", "encoding", "line"),
        [
            (
                random_pixels(2, 2, 3),
                "bgra8",
                "cannot write 'bgra8'; possible are rgb8, bgr8, mono8",
            ),
            (random_pixels(2, 2, 4), "rgb8", r"H x W \(x 3\)"),
            (random_pixels(2, 2, 3).astype(np.float32), "rgb8", "of float32"),
            (random_pixels(2, 0, 3), "rgb8", "0x2 pixels cannot be sent"),
        ],
    )
    def test_an_image_that_cannot_be_written_is_refused(
        self, image: np.ndarray, encoding: str, line: str
    ) -> None:
        message = rosbags_image("", 0, 0, 0, b"")
        with pytest.raises(FrameError, match=line):
            codec.write_image(message, image, encoding=encoding, header=self.HEADER)


class TestWritingCompressed:
    HEADER = rosbags_header("front/optical")
    RGB = cv2.resize(random_pixels(3, 4, 3), (64, 48), interpolation=cv2.INTER_CUBIC)

    @pytest.mark.parametrize("format", ["png", "rgb8; png compressed "])
    def test_decoding_restores_a_written_png(self, make: SimpleNamespace, format: str) -> None:
        message = make.compressed("", b"")
        codec.write_compressed(message, self.RGB, format=format, quality=90, header=self.HEADER)
        frame = codec.decode(message)
        np.testing.assert_array_equal(frame.image, self.RGB)
        assert message.format == "rgb8; png compressed bgr8"
        assert (frame.stamp_ns, frame.frame_id) == (STAMP_NS, "front/optical")

    @pytest.mark.parametrize("format", ["jpeg", "jpg", "", "bgr8; jpeg compressed bgr8"])
    def test_decoding_nearly_restores_a_written_jpeg(
        self, make: SimpleNamespace, format: str
    ) -> None:
        message = make.compressed("", b"")
        codec.write_compressed(message, self.RGB, format=format, quality=95, header=self.HEADER)
        image = codec.decode(message).image
        assert np.abs(image.astype(int) - self.RGB).mean() < 3
        assert message.format == "rgb8; jpeg compressed bgr8"

    @pytest.mark.parametrize("codec_name", ["png", "jpeg"])
    def test_grey_stays_one_channel(self, make: SimpleNamespace, codec_name: str) -> None:
        message = make.compressed("", b"")
        grey = np.full((16, 16), 77, np.uint8)
        codec.write_compressed(message, grey, format=codec_name, quality=90, header=self.HEADER)
        assert message.format == f"mono8; {codec_name} compressed "
        assert cv2.imdecode(np.frombuffer(message.data, np.uint8), -1).shape == (16, 16)

    def test_lower_quality_takes_fewer_bytes(self, make: SimpleNamespace) -> None:
        sizes = []
        for quality in (20, 95):
            message = make.compressed("", b"")
            codec.write_compressed(
                message, self.RGB, format="jpeg", quality=quality, header=self.HEADER
            )
            sizes.append(len(message.data))
        assert sizes[0] < sizes[1]

    @pytest.mark.parametrize(
        ("format", "shape", "line"),
        [
            ("theora", (2, 2, 3), "cannot compress as 'theora'; jpeg and png are possible"),
            ("jpeg", (1, 70_000, 3), "jpeg"),
        ],
    )
    def test_an_image_that_cannot_be_compressed_is_refused(
        self, format: str, shape: Any, line: str
    ) -> None:
        message = rosbags_compressed("", b"")
        with pytest.raises(FrameError, match=line):
            codec.write_compressed(
                message, np.zeros(shape, np.uint8), format=format, quality=90, header=self.HEADER
            )


class TestStamps:
    @given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
    def test_a_stamp_is_read_as_it_was_set(self, stamp_ns: int) -> None:
        header = rosbags_header()
        codec.set_stamp(header, stamp_ns)
        assert codec.stamp_ns(header) == stamp_ns
        assert 0 <= header.stamp.nanosec < 10**9

    @pytest.mark.parametrize("stamp_ns", [2**31 * 10**9, -(2**31) * 10**9 - 1])
    def test_a_stamp_that_does_not_fit_is_refused(self, stamp_ns: int) -> None:
        with pytest.raises(FrameError, match=f"{stamp_ns} ns does not fit"):
            codec.set_stamp(rosbags_header(), stamp_ns)


@pytest.mark.parametrize(
    ("encoding", "derained"),
    [
        ("bgr8", "bgr8"),
        ("rgb8", "rgb8"),
        ("rgba8", "rgb8"),
        ("bayer_rggb8", "rgb8"),
        ("nv21", "rgb8"),
        ("mono8", "mono8"),
        ("mono16", "mono8"),
        ("8UC1", "mono8"),
        ("16UC1", "mono8"),
        ("never_heard_of", "rgb8"),
    ],
)
def test_the_derained_image_is_grey_if_the_input_is(encoding: str, derained: str) -> None:
    assert codec.output_encoding(encoding) == derained
