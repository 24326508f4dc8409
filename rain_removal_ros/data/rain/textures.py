"""Streak textures from disk, such as the renderings of Garg and Nayar (2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rain_removal_ros.data.pictures import as_decoded, encoded
from rain_removal_ros.data.rain.description import TextureLayer
from rain_removal_ros.errors import DataError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Texture:
    """Streaks on black."""

    image: Tensor
    """H x W in [0, 1]."""
    direction: float
    """Which way they fall, in radians from the vertical."""


def load_textures(folder: Path) -> list[Texture]:
    """Every streak texture of a folder, in the order of their names."""
    if not folder.is_dir():
        raise DataError(f"no folder of streak textures at {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    textures = []
    for path in paths:
        image = as_decoded(path, encoded(path), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise DataError(f"{path} is not a picture OpenCV can read; remove or replace it")
        grey: NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
        textures.append(Texture(torch.from_numpy(grey), streak_direction(grey)))
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
    # ``across`` is measured from the horizontal, and the streaks lie at a right angle to it.
    return -across


def draw_texture(canvas: Tensor, layer: TextureLayer, texture: Texture, first: int) -> Tensor:
    """Like ``canvas``, T x 1 x H x W: a piece of a texture, sliding along its streaks."""
    frames, _, height, width = canvas.shape
    image = texture.image.to(canvas)
    tall, broad = image.shape
    turn = layer.direction - texture.direction
    cos, sin = math.cos(turn) / layer.zoom, math.sin(turn) / layer.zoom
    xs = torch.arange(width, device=canvas.device) - width / 2
    ys = (torch.arange(height, device=canvas.device) - height / 2)[:, None]
    across, down = cos * xs - sin * ys, sin * xs + cos * ys
    frame = torch.arange(first, first + frames, device=canvas.device)[:, None, None]
    slid = -layer.speed / layer.zoom * frame
    u = across + layer.start[0] * broad + slid * math.sin(texture.direction)
    v = down + layer.start[1] * tall + slid * math.cos(texture.direction)
    # Reflection at the borders would cross the streaks there; wrapping only cuts a few short.
    grid = torch.stack([_wrapped(u, broad), _wrapped(v, tall)], -1)
    drawn = F.grid_sample(
        image.expand(frames, 1, tall, broad), grid, mode="bilinear",
        padding_mode="border", align_corners=False,
    )  # fmt: skip
    return drawn * layer.opacity


def _wrapped(position: Tensor, size: int) -> Tensor:
    """Pixels, any number of times around, as ``grid_sample`` wants them."""
    return (position % size) / size * 2 - 1
