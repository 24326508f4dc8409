"""Reads and writes videos with OpenCV, which reports few errors.

OpenCV does not notice truncated files or a full disk. So the number of frames read is compared with
what the file announces, and a written file is opened again before it gets its name. Sound is not
copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.media.pictures import MOST_PIXELS, check_size
from rain_removal_ros.runtime.files import draft_of

__all__ = ["READABLE", "WRITABLE", "Reader", "Writer", "opened", "reading", "writing"]

# MPEG-4 part 2 and Motion JPEG: encoders that every build of OpenCV has.
WRITABLE = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".m4v": "mp4v", ".avi": "MJPG"}
READABLE = frozenset(WRITABLE) | {".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".mjpg"}

_USUAL_RATE = 30.0
"""The frame rate of a video that does not state one."""


def opened(path: Path, most_pixels: int = MOST_PIXELS) -> cv2.VideoCapture:
    """A video, to be released by the caller."""
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


class Reader:
    """The frames of a video, in order."""

    def __init__(self, path: Path, capture: cv2.VideoCapture) -> None:
        self.path = path
        self._capture = capture
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= 1000 else _USUAL_RATE
        self.announced = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.read = 0

    def __iter__(self) -> Iterator[Image]:
        while True:
            try:
                there, frame = self._capture.read()
            except cv2.error as error:
                reason = " ".join(str(error.err).split())
                raise DataError(f"{self.path}: frame {self.read + 1}: {reason}") from error
            if not there:
                break
            self.read += 1
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        if self.read == 0:
            raise DataError(f"{self.path} is a video of which no frame can be decoded")

    @property
    def ends_early(self) -> bool:
        """Whether there were fewer frames than announced, which some formats only estimate."""
        return self.announced - self.read > max(1.0, 0.01 * self.announced)


@contextmanager
def reading(path: Path, most_pixels: int = MOST_PIXELS) -> Iterator[Reader]:
    """A video, open."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if empty:
        raise DataError(f"{path} is empty")
    capture = opened(path, most_pixels)
    try:
        yield Reader(path, capture)
    finally:
        capture.release()


class Writer:
    """Takes frames of one size, that of the first."""

    def __init__(self, path: Path, draft: Path, rate: float) -> None:
        self._path = path
        self._draft = draft
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None
        self.written = 0

    def write(self, image: Image) -> None:
        if self._writer is None:
            self._writer = self._opened(image.shape[1], image.shape[0])
        if shutil.disk_usage(self._draft.parent).free < image.nbytes:
            raise DataError(f"cannot write {self._path}: {os.strerror(28)}")
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.written += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Make sure that all that was written is there."""
        capture = cv2.VideoCapture(str(self._draft))
        there = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if there < self.written:
            raise DataError(
                f"cannot write {self._path}: of {self.written} frames {max(0, there)} "
                "arrived; is the disk full?"
            )

    def _opened(self, width: int, height: int) -> cv2.VideoWriter:
        if min(width, height) < 2:
            raise DataError(f"{self._path}: a video of {width}x{height} cannot be written")
        code = cv2.VideoWriter.fourcc(*WRITABLE[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._draft), code, self._rate, (width, height))
        if not writer.isOpened():
            raise DataError(f"cannot write {self._path}: no encoder for it is here")
        return writer


@contextmanager
def writing(path: Path, rate: float) -> Iterator[Writer]:
    """A video to be written, which appears under its name once it is whole."""
    with draft_of(path) as draft:
        writer = Writer(path, draft, rate)
        try:
            yield writer
        finally:
            writer.close()
        writer.check()
