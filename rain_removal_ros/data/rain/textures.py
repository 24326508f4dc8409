"""Streak textures from disk, such as the renderings of Garg and Nayar (2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.data.rain.description import TextureLayer
from rain_removal_ros.errors import DataError
from rain_removal_ros.media.pictures import decode, encoded

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Texture:
    """Streaks on black."""

    image: NDArray[np.float32]
    """H x W in [0, 1]."""
    direction: float
    """The direction in which they fall, in radians from the vertical."""


def load_textures(folder: Path) -> list[Texture]:
    """Every streak texture of a folder, in the order of their names."""
    if not folder.is_dir():
        raise DataError(f"no folder of streak textures at {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    textures = []
    for path in paths:
        image = decode(path, encoded(path), cv2.IMREAD_GRAYSCALE)
        grey: NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
        textures.append(Texture(grey, streak_direction(grey)))
    if not textures:
        raise DataError(f"no streak textures in {folder}; expected {', '.join(sorted(_SUFFIXES))}")
    return textures


def streak_direction(image: NDArray[np.float32]) -> float:
    """The direction along which brightness changes least (structure tensor), from the vertical."""
    # Smoothed first: across a line one pixel wide, differences of neighbours are mostly aliasing.
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    right, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float((a * b).sum()) for a, b in ((right, right), (down, down), (right, down)))
    across = 0.5 * math.atan2(2 * xy, xx - yy)
    # ``across`` is measured from the horizontal, and the streaks are perpendicular to it.
    return -across


def draw_texture(
    shape: tuple[int, int, int], layer: TextureLayer, texture: Texture, first: int
) -> NDArray[np.float32]:
    """T x H x W: a piece of a texture, sliding along its streaks."""
    _, height, width = shape
    image = texture.image
    tall, broad = image.shape
    turn = layer.direction - texture.direction
    cos, sin = math.cos(turn) / layer.zoom, math.sin(turn) / layer.zoom
    # OpenCV counts from the middle of a pixel, everything else here from its corner.
    middle = (width / 2, height / 2)
    right = layer.start[0] * broad - cos * middle[0] + sin * middle[1] - 0.5
    down = layer.start[1] * tall - sin * middle[0] - cos * middle[1] - 0.5
    pieces = np.empty(shape, np.float32)
    for index, piece in enumerate(pieces):
        slid = -layer.speed / layer.zoom * (first + index)
        # Wrapped into the texture again, because OpenCV's coordinates have 16 bits.
        x = (right + slid * math.sin(texture.direction)) % broad
        y = (down + slid * math.cos(texture.direction)) % tall
        # Reflection at the borders would cross the streaks there; wrapping only cuts a few short.
        cv2.warpAffine(
            image, np.array([[cos, -sin, x], [sin, cos, y]]), (width, height), dst=piece,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP,
        )  # fmt: skip
    pieces *= np.float32(layer.opacity)
    return pieces
