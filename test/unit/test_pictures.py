"""A picture file is decoded only if the size in its header is allowed."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from rain_removal_ros.errors import DataError
from rain_removal_ros.media import pictures, videos
from rain_removal_ros.media.picture_headers import announced_size

SIZE = (53, 37)


def encoded_as(form: str, **options: Any) -> bytes:
    width, height = SIZE
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with io.BytesIO() as file:
        Pillow.fromarray(pixels).save(file, form, **options)
        return file.getvalue()


FORMS = {
    "png": encoded_as("PNG"),
    "jpeg": encoded_as("JPEG"),
    "progressive jpeg": encoded_as("JPEG", progressive=True),
    "bmp": encoded_as("BMP"),
    "ppm": encoded_as("PPM"),
    "ppm with remarks": b"P6 # of a road\n# in the rain\n53 37\n255\n" + bytes(53 * 37 * 3),
    "gif": encoded_as("GIF"),
    "webp": encoded_as("WEBP"),
    "lossless webp": encoded_as("WEBP", lossless=True),
    "webp with a profile": encoded_as("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "tiff": encoded_as("TIFF"),
    "packed tiff": encoded_as("TIFF", compression="tiff_lzw"),
    "big tiff": encoded_as("TIFF", big_tiff=True),
    "jpeg 2000": encoded_as("JPEG2000"),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_the_announced_size_is_the_decoded_size(data: bytes) -> None:
    assert announced_size(data) == SIZE
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1::-1] == SIZE


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_a_truncated_file_has_the_right_size_or_none(data: bytes) -> None:
    for end in range(min(len(data), 400)):
        assert announced_size(data[:end]) in (None, SIZE)


def giant_png(side: int) -> bytes:
    """A black picture: the file is a thousandth of the size of its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_giant_picture_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "giant.png"
    path.write_bytes(giant_png(30_000)[:100_000])
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(DataError, match="30000x30000 pixels; at most 100 megapixels are decoded"):
        pictures.read(path)


def test_a_png_whose_chunk_announces_a_gigabyte_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spoilt.png"
    at = FORMS["png"].index(b"IDAT")
    path.write_bytes(FORMS["png"][: at - 4] + struct.pack(">I", 2**30) + FORMS["png"][at:])
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(DataError, match="is a PNG that is cut short"):
        pictures.read(path)


def test_the_largest_allowed_size_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(giant_png(300))
    with pytest.raises(DataError, match=r"300x300 pixels; at most 0.05 megapixels"):
        pictures.encoded(path, 50_000)
    assert pictures.encoded(path, 90_000) == path.read_bytes()


def test_a_file_larger_than_any_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room on the disk
    with pytest.raises(DataError, match="is larger than any picture of 100 megapixels"):
        pictures.read(path)


def test_a_giant_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    videos.opened(path).release()
    with pytest.raises(DataError, match=r"64x48 pixels; at most 0.002 megapixels"):
        videos.opened(path, 2000)
