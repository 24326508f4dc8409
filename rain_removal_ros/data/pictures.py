"""Pictures on disk: finds them, and reads them as RGB with a clear error if that fails."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.media.picture_headers import announced_size
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})

MOST_PIXELS = 100_000_000
"""Of a picture that is decoded; cameras of robots have up to 65 million."""
_BYTES_A_PIXEL = 16
"""At most, in a file: four channels of 16 bit take half of that."""
_BESIDE_PIXELS = 1 << 24
"""Bytes for colour profiles, previews and the like."""

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TRAILER = 65536


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def list_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in the order a person would number them."""
    return sorted((path for path in folder.iterdir() if is_picture(path)), key=natural_order)


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and everything below it."""
    return sorted((path for path in folder.rglob("*") if is_picture(path)), key=natural_order)


def natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """A sort key that puts ``frame-9`` before ``frame-10``."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def check_size(path: Path, size: tuple[int, int], most_pixels: int = MOST_PIXELS) -> None:
    """Refuse a picture or a video that would fill the memory."""
    width, height = size
    if width * height > most_pixels:
        raise DataError(
            f"{path} says it is {width}x{height} pixels; at most "
            f"{most_pixels / 1e6:g} megapixels are decoded"
        )


def encoded(path: Path, most_pixels: int = MOST_PIXELS) -> bytes:
    """What is in a picture file, which may yet prove to be no picture but announces a fair size."""
    most_bytes = most_pixels * _BYTES_A_PIXEL + _BESIDE_PIXELS
    try:
        with path.open("rb") as file:
            data = file.read(min(most_bytes, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > most_bytes:
        raise DataError(f"{path} is larger than any picture of {most_pixels / 1e6:g} megapixels")
    if not data:
        raise DataError(f"{path} is empty")
    if (size := announced_size(data)) is None:
        raise DataError(f"{path} is no picture that can be decoded")
    check_size(path, size, most_pixels)
    # OpenCV fills the missing part of a truncated JPEG with grey and reports success.
    if data.startswith(_JPEG_START) and _JPEG_END not in data[-_JPEG_TRAILER:]:
        raise DataError(f"{path} is a JPEG that ends too early")
    return data


def as_decoded(path: Path, data: bytes, flags: int) -> NDArray[Any] | None:
    """The pixels as OpenCV has them; None where there are none."""
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{path} cannot be decoded: {' '.join(str(error.err).split())}") from error
    return pixels


def read(path: Path) -> Image:
    """One picture as H x W x 3 RGB."""
    decoded = as_decoded(path, encoded(path), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError(f"{path} is no picture that can be decoded")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
