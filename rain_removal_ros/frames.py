"""The one form of an image inside this package.

Colour order and value range are defined here and in the codec, nowhere else: a frame is RGB, 8 bit,
rows from the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import FrameError

Image: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of one camera. ``image`` is H x W x 3 RGB; do not write to it."""

    image: Image
    stamp_ns: int = 0
    frame_id: str = ""

    def __post_init__(self) -> None:
        shape = self.image.shape
        if self.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            raise FrameError(
                f"a frame is height x width x 3 of uint8, got {shape} of {self.image.dtype}"
            )
        if 0 in shape:
            raise FrameError(f"a frame needs at least one pixel, got {shape[1]}x{shape[0]}")

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        return int(self.image.shape[1])
