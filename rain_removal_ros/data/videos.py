"""Opens videos, of a size that fits into memory."""

from __future__ import annotations

from pathlib import Path

import cv2

from rain_removal_ros.data.pictures import MOST_PIXELS, check_size
from rain_removal_ros.errors import DataError


def opened(path: Path, most_pixels: int = MOST_PIXELS) -> cv2.VideoCapture:
    """A video, to be released by whoever asks for it."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path} is no video that can be decoded, or is cut off")
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        width, height = (max(0, int(capture.get(side))) for side in sides)
        check_size(path, (width, height), most_pixels)
    except BaseException:
        capture.release()
        raise
    return capture
