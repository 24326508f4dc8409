"""Real rain and its reference, from the frames of a camera that stands still or turns slowly.

Rain brightens a place for one frame, so the median of aligned neighbouring frames is nearly dry. It
is also slightly blurred, and leaves have moved. So the reference is the frame itself, and the
median only where the frame is brighter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image

NEIGHBOURS = 3
"""Frames on either side that the median is taken over."""
_LEAST_FRAMES = 5
_BLUR = 1.2
"""Standard deviation in pixels of a blur that evens out a slightly misaligned edge, which is bright
on one side and dark on the other, but not a drop."""
_FAINTEST, _CERTAIN = 2.0, 5.0
"""Grey levels at which a brighter place begins to count as rain, and counts fully."""
_FEATURES, _LEAST_MATCHED = 400, 30


def window(index: int, count: int) -> range:
    """The frames to take the median over for frame ``index`` of ``count``."""
    if count < _LEAST_FRAMES:
        raise DataError(f"the median of {count} frames is not dry; it takes {_LEAST_FRAMES}")
    size = min(2 * NEIGHBOURS + 1, count)
    start = min(max(0, index - NEIGHBOURS), count - size)
    return range(start, start + size)


def reference(frame: Image, others: Sequence[Image]) -> Image:
    """``frame`` without the parts that are brighter than in the frames around it."""
    if any(other.shape != frame.shape for other in others):
        raise DataError("the frames of a still camera must all be of one size")
    stack = np.stack([frame, *(_laid_over(frame, other) for other in others)])
    middle = len(stack) // 2
    dry = np.partition(stack, middle, axis=0)[middle]
    brighter = cv2.GaussianBlur(_grey(frame).astype(np.float32) - _grey(dry), (0, 0), _BLUR)
    share = np.clip((brighter - _FAINTEST) / (_CERTAIN - _FAINTEST), 0, 1)
    # The faint ends of a streak are rain as well.
    share = cv2.GaussianBlur(cv2.dilate(share, np.ones((5, 5), np.uint8)), (0, 0), 1.0)[..., None]
    mixed = frame + share * (dry.astype(np.float32) - frame)
    return np.asarray(np.rint(mixed), np.uint8)


def _laid_over(frame: Image, other: Image) -> Image:
    """``other``, aligned with ``frame``."""
    height, width = frame.shape[:2]
    matrix = _motion(_grey(frame), _grey(other))
    warped = cv2.warpPerspective(
        other, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    # Beyond the border of the other frame, the frame itself is used.
    inside = cv2.warpPerspective(
        np.ones((height, width), np.uint8), matrix, (width, height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )  # fmt: skip
    return np.where(cv2.erode(inside, np.ones((3, 3), np.uint8))[..., None] > 0, warped, frame)


def _motion(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where the points of ``first`` are in ``second``, as a homography."""
    # OpenCV's type stubs do not say that there may be no features and no homography.
    points: Any = cv2.goodFeaturesToTrack(first, _FEATURES, 0.01, 8)
    if points is None or len(points) < _LEAST_MATCHED:
        return np.eye(3)
    found, there, _ = cv2.calcOpticalFlowPyrLK(first, second, points, np.zeros_like(points))
    good = there.ravel() == 1
    if good.sum() < _LEAST_MATCHED:
        return np.eye(3)
    matrix: Any = cv2.findHomography(points[good], found[good], cv2.RANSAC, 1.0)[0]
    return np.eye(3) if matrix is None else matrix


def _grey(image: Image) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
