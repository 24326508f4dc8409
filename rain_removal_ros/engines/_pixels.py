"""Converts 8-bit pictures to the floats that networks compute with, and back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.frames import Image
from rain_removal_ros.runtime import native


def as_planes(image: Image, *, stride: int) -> NDArray[np.float32]:
    """A picture as 1 x 3 x H x W in [0, 1], both sides padded to multiples of ``stride``."""
    height, width = image.shape[:2]
    planes = np.empty((1, 3, padded(height, stride), padded(width, stride)), np.float32)
    fill(planes[0], image)
    return planes


def fill(planes: NDArray[np.float32], image: Image) -> None:
    """Write a picture into 3 x H x W floats in [0, 1], which may be larger: edges are repeated."""
    height, width = image.shape[:2]
    if _channels_last(planes):
        canvas = planes.transpose(1, 2, 0)
        np.multiply(image, np.float32(1 / 255), out=canvas[:height, :width])
        extend_edges(canvas, height, width)
        return
    if native.unpack_rgb(image, planes):
        return
    # Split as bytes: that is a quarter of the memory traffic of splitting floats.
    for plane, channel in zip(planes, cv2.split(image), strict=True):
        np.multiply(channel, np.float32(1 / 255), out=plane[:height, :width])
        extend_edges(plane, height, width)


def as_picture(planes: NDArray[np.float32], into: Image | None) -> Image:
    """3 x H x W in [0, 1] as an RGB picture, rounded, in a given or new array."""
    target = np.empty((*planes.shape[1:], 3), np.uint8) if into is None else into
    if native.pack_rgb(planes, target):
        return target
    if _channels_last(planes):
        written = cv2.convertScaleAbs(planes.transpose(1, 2, 0), target, alpha=255)
    else:
        written = cv2.merge([as_map(plane) for plane in planes], target)
    if written is not target:  # OpenCV cannot write to targets with unusual strides
        target[...] = written
    return target


def _channels_last(planes: NDArray[np.float32]) -> bool:
    return planes.strides[0] == planes.itemsize


def as_map(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    """H x W in [0, 1] as bytes, rounded."""
    # One pass, in a third of the time of OpenCV's multiplication.
    return np.asarray(cv2.convertScaleAbs(plane, alpha=255))


def padded(side: int, stride: int) -> int:
    """The smallest multiple of ``stride`` that is at least ``side``."""
    return -(-side // stride) * stride


def extend_edges(canvas: NDArray[Any], height: int, width: int) -> None:
    """Fill the padding right and below by repeating the last column and row."""
    canvas[:height, width:] = canvas[:height, width - 1 : width]
    canvas[height:] = canvas[height - 1]
