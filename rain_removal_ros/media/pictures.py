"""Finds, reads and writes picture files.

``read`` gives the 8-bit RGB that networks see. ``load`` and ``save`` keep the form of a picture:
grey stays grey, transparency is kept, and a 16-bit picture gets the correction added at 16 bit. A
file is written completely or not at all.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros import png
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.media.picture_headers import announced_size
from rain_removal_ros.runtime.files import write_whole

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
WRITABLE = SUFFIXES
READABLE = SUFFIXES | {".gif", ".jp2", ".pgm", ".jpe", ".jfif"}

MOST_PIXELS = 100_000_000
"""The most pixels of a picture that is decoded; cameras of robots have up to 65 million."""
_BYTES_A_PIXEL = 16
"""The most bytes per pixel in a file: four channels of 16 bit take half of that."""
_BESIDE_PIXELS = 1 << 24
"""Bytes for colour profiles, previews and the like."""

_JPEG = frozenset({".jpg", ".jpeg"})
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TRAILER = 65536
_KEEPS_16_BIT = frozenset({".png", ".tif", ".tiff", ".ppm"})
_KEEPS_ALPHA = frozenset({".png", ".tif", ".tiff", ".webp"})
_OPTIONS = {
    ".webp": (cv2.IMWRITE_WEBP_QUALITY, 101),  # over 100 is lossless
    **dict.fromkeys(_JPEG, (cv2.IMWRITE_JPEG_QUALITY, 95)),
}


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
    """The bytes of a picture file, if the size that it announces is acceptable."""
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
        raise DataError(f"{path} is not a picture that can be decoded")
    check_size(path, size, most_pixels)
    # OpenCV fills the missing part of a truncated JPEG with grey and reports success.
    if data.startswith(_JPEG_START) and _JPEG_END not in data[-_JPEG_TRAILER:]:
        raise DataError(f"{path} is a JPEG that ends too early")
    if data.startswith(png.SIGNATURE) and (flaw := png.flaw(data)):
        raise DataError(f"{path} is a PNG that {flaw}")
    return data


def decode(path: Path, data: bytes, flags: int) -> NDArray[Any]:
    """The pixels in OpenCV's channel order."""
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{path} cannot be decoded: {' '.join(str(error.err).split())}") from error
    if pixels is None:
        raise DataError(f"{path} is not a picture that can be decoded")
    return pixels


def read(path: Path) -> Image:
    """One picture as H x W x 3 RGB."""
    decoded = decode(path, encoded(path), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(frozen=True)
class Picture:
    """The contents of a picture file, colours as RGB or grey."""

    pixels: NDArray[Any]
    """H x W or H x W x 3, of uint8 or uint16."""
    alpha: NDArray[Any] | None = None
    """H x W, of the same type."""

    @property
    def image(self) -> Image:
        """The 8-bit RGB image for a network."""
        pixels = self.pixels
        if pixels.dtype == np.uint16:
            pixels = _in_8_bit(pixels)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        return np.ascontiguousarray(pixels)

    def with_image(self, derained: Image) -> Picture:
        """This picture with the colours of its derained image, at the size of that."""
        size = (derained.shape[1], derained.shape[0])
        alpha = self.alpha
        if alpha is not None and alpha.shape != size[::-1]:
            alpha = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR))
        before: NDArray[Any] = self.image
        after: NDArray[Any] = derained
        if self.pixels.ndim == 2:
            before, after = before[..., 0], np.asarray(cv2.cvtColor(derained, cv2.COLOR_RGB2GRAY))
        if self.pixels.dtype == np.uint16:
            if after.shape == before.shape:
                change = (after.astype(np.int32) - before) * 257
                after = (self.pixels + change).clip(0, 65535).astype(np.uint16)
            else:
                after = after.astype(np.uint16) * 257
        return Picture(after, alpha)


def load(path: Path, most_pixels: int = MOST_PIXELS) -> Picture:
    """One picture, with its depth and transparency. A file of several pictures is refused."""
    data = encoded(path, most_pixels)
    # A JPEG has no alpha, but may have an orientation, which only these flags respect.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    if not data.startswith(_JPEG_START):
        flags = cv2.IMREAD_UNCHANGED
    decoded = decode(path, data, flags)
    if (count := cv2.imcount(str(path))) > 1:
        raise DataError(
            f"{path} holds {count} pictures; split them, or make a video of them, first"
        )
    if decoded.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path} holds {decoded.dtype} values; 8 and 16 bit are understood")
    return _picture(decoded)


def save(path: Path, picture: Picture) -> None:
    """Write a picture in the format of its name, with as much of it as the format can hold."""
    suffix = path.suffix.lower()
    pixels, alpha = picture.pixels, picture.alpha
    if suffix not in _KEEPS_16_BIT and pixels.dtype == np.uint16:
        pixels, alpha = _in_8_bit(pixels), None if alpha is None else _in_8_bit(alpha)
    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]
    if alpha is not None and suffix in _KEEPS_ALPHA:
        colours = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        pixels = np.dstack([colours, alpha])
    try:
        made, data = cv2.imencode(
            path.suffix, np.ascontiguousarray(pixels), list(_OPTIONS.get(suffix, ()))
        )
    except cv2.error as error:
        raise DataError(f"{path} cannot be encoded: {' '.join(str(error.err).split())}") from error
    if not made:
        raise DataError(f"{path} cannot be encoded as {suffix}")
    write_whole(path, data.data)


def _picture(decoded: NDArray[Any]) -> Picture:
    """From OpenCV's channel order."""
    if decoded.ndim == 2:
        return Picture(decoded)
    colours = decoded[..., :3][..., ::-1]
    if decoded.shape[2] == 3:
        return Picture(np.ascontiguousarray(colours))
    return Picture(np.ascontiguousarray(colours), np.ascontiguousarray(decoded[..., 3]))


def _in_8_bit(values: NDArray[Any]) -> NDArray[Any]:
    # 65535 / 255 is 257: the full ranges meet.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
