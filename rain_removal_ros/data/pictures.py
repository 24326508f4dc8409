"""Pictures on disk: which files they are, and reading one as RGB or saying why it cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})

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
    """Sorts ``frame-9`` before ``frame-10``."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def encoded(path: Path) -> bytes:
    """What is in a picture file, which may yet prove to be no picture."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    # OpenCV fills what is missing of a cut-off JPEG with grey and calls it a success.
    if data.startswith(_JPEG_START) and _JPEG_END not in data[-_JPEG_TRAILER:]:
        raise DataError(f"{path} is a JPEG that ends too early")
    return data


def read(path: Path) -> Image:
    """One picture as H x W x 3 RGB."""
    data = encoded(path)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if decoded is None:
        raise DataError(f"{path} is no picture that can be decoded")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
