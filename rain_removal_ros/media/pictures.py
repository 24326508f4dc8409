"""Reads and writes picture files, which should come out derained and otherwise as they were.

Networks see 8-bit RGB. Grey stays grey, transparency is kept, and a 16-bit picture gets the
correction added at 16 bit. A file is written completely or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data.pictures import MOST_PIXELS, SUFFIXES, as_decoded, encoded
from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.runtime.files import write_whole

__all__ = ["READABLE", "WRITABLE", "Picture", "load", "save"]

WRITABLE = SUFFIXES
READABLE = SUFFIXES | {".gif", ".jp2", ".pgm", ".jpe", ".jfif"}

_JPEG = frozenset({".jpg", ".jpeg"})
_KEEPS_16_BIT = frozenset({".png", ".tif", ".tiff", ".ppm"})
_KEEPS_ALPHA = frozenset({".png", ".tif", ".tiff", ".webp"})
_JPEG_START = b"\xff\xd8"
_OPTIONS = {
    ".webp": (cv2.IMWRITE_WEBP_QUALITY, 101),  # over 100 is lossless
    **dict.fromkeys(_JPEG, (cv2.IMWRITE_JPEG_QUALITY, 95)),
}


@dataclass(frozen=True)
class Picture:
    """What is in a picture file, colours as RGB or grey."""

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
        """This picture as ``clean`` shows it, at its size."""
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
    """One picture; what cannot be read, or is more than one picture, is one clear error."""
    data = encoded(path, most_pixels)
    # A JPEG has no alpha, but may have an orientation, which only these flags respect.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    if not data.startswith(_JPEG_START):
        flags = cv2.IMREAD_UNCHANGED
    decoded = as_decoded(path, data, flags)
    if decoded is None:
        raise DataError(f"{path} is no picture that can be decoded")
    if (count := cv2.imcount(str(path))) > 1:
        raise DataError(
            f"{path} holds {count} pictures; take them apart, or make a video of them, first"
        )
    if decoded.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path} holds {decoded.dtype} values; 8 and 16 bit are understood")
    return _picture(decoded)


def save(path: Path, picture: Picture) -> None:
    """Write a picture in the format that its name says, as much of it as the format can hold."""
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
