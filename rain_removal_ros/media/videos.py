"""Reads videos with OpenCV, and writes them with ffmpeg if it is installed.

OpenCV cannot copy sound, its wheels have no H.264 encoder, and it does not notice truncated files
or a full disk. So the number of frames read is compared with what the file announces, and a written
file is opened again before it gets its name.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from rain_removal_ros.errors import DataError
from rain_removal_ros.frames import Image
from rain_removal_ros.media.pictures import MOST_PIXELS, check_size
from rain_removal_ros.runtime.files import draft_of

__all__ = [
    "READABLE",
    "WRITABLE",
    "Reader",
    "Writer",
    "for_browsers",
    "opened",
    "reading",
    "writing",
]

WRITABLE = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".m4v": "mp4v", ".avi": "MJPG"}
"""MPEG-4 part 2 and Motion JPEG, as a fallback: every build of OpenCV has them."""
READABLE = frozenset(WRITABLE) | {".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".mjpg"}

_USUAL_RATE = 30.0
"""The frame rate of a video that does not state one."""


def opened(path: Path, most_pixels: int = MOST_PIXELS) -> cv2.VideoCapture:
    """A video, to be released by the caller."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path} is not a video that can be decoded, or is cut off")
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
    def seconds(self) -> float:
        """The announced duration; 0 if there is none."""
        return self.announced / self.rate

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

    def __init__(self, path: Path, draft: Path, rate: float, sound: Reader | None) -> None:
        self._path = path
        self._draft = draft
        self._rate = rate
        self._sound = sound
        self._encoder: _Encoder | None = None
        self.written = 0
        self.is_plain = False
        """Whether neither ffmpeg nor OpenCV could write H.264."""

    def write(self, image: Image) -> None:
        height, width = (side // 2 * 2 for side in image.shape[:2])  # encoders take no odd sizes
        if self._encoder is None:
            self._encoder = self._opened(width, height)
        if shutil.disk_usage(self._draft.parent).free < image.nbytes:
            raise DataError(f"cannot write {self._path}: {os.strerror(28)}")
        try:
            self._encoder.write(image[:height, :width])
        except BrokenPipeError as error:
            raise DataError(f"cannot write {self._path}: {self._encoder.close()}") from error
        self.written += 1

    def close(self) -> str:
        """End the file; returns what went wrong, or nothing."""
        return self._encoder.close() if self._encoder else ""

    def check(self) -> None:
        """Check that all frames were written."""
        capture = cv2.VideoCapture(str(self._draft))
        there = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if there < self.written:
            raise DataError(
                f"cannot write {self._path}: of {self.written} frames {max(0, there)} "
                "arrived; is the disk full?"
            )

    def _opened(self, width: int, height: int) -> _Encoder:
        if min(width, height) < 2:
            raise DataError(f"{self._path}: a video of {width}x{height} cannot be written")
        suffix = self._path.suffix.lower()
        if (program := _ffmpeg()) is not None and suffix in WRITABLE:
            return _Ffmpeg(_command(program, self._draft, self._rate, (width, height), self._sound))
        codes = {".webm": ("VP80",), ".avi": ("MJPG",)}
        for code in codes.get(suffix) or ("avc1", WRITABLE[suffix]):
            self.is_plain = code == WRITABLE.get(suffix)
            if (encoder := _opencv(self._draft, code, self._rate, (width, height))) is not None:
                return encoder
        raise DataError(f"cannot write {self._path}: no encoder for it is here")


@contextmanager
def writing(path: Path, rate: float, sound: Reader | None = None) -> Iterator[Writer]:
    """A video to write; it gets its name once it is complete.

    ``sound`` is a video whose sound is copied if ffmpeg is installed.
    """
    with draft_of(path) as draft:
        writer = Writer(path, draft, rate, sound)
        try:
            yield writer
        finally:
            reason = writer.close()
        if reason:
            raise DataError(f"cannot write {path}: {reason}")
        writer.check()


class _Encoder(Protocol):
    """Writes RGB frames of one size to a file."""

    def write(self, image: Image) -> None: ...

    def close(self) -> str:
        """End the file; returns what went wrong, or nothing."""


class _OpenCv:
    def __init__(self, writer: cv2.VideoWriter) -> None:
        self._writer = writer

    def write(self, image: Image) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> str:
        self._writer.release()
        return ""  # OpenCV reports no error


class _Ffmpeg:
    def __init__(self, arguments: list[str]) -> None:
        # In a session of its own, so that Ctrl-C reaches only this process. ffmpeg prints a line or
        # two on errors, which fit into the pipe.
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def write(self, image: Image) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(np.ascontiguousarray(image).data)

    def close(self) -> str:
        _, said = self._process.communicate()
        if self._process.wait() == 0:
            return ""
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"ffmpeg ended with {self._process.returncode}"


@functools.cache
def _ffmpeg() -> str | None:
    """An ffmpeg that writes H.264, from the system or from imageio-ffmpeg; None without one."""
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg

        with suppress(RuntimeError):
            found = imageio_ffmpeg.get_ffmpeg_exe()
    if found is None:
        return None
    listed = subprocess.run(
        [found, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    )
    return found if " libx264 " in listed.stdout else None


@functools.cache
def _opencv_has_h264() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        writer = _opencv(Path(folder) / "probe.mp4", "avc1", 25.0, (64, 64))
        return writer is not None


def _opencv(path: Path, code: str, rate: float, size: tuple[int, int]) -> _OpenCv | None:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), rate, size)
    return _OpenCv(writer) if writer.isOpened() else None


def for_browsers(path: Path) -> Path:
    """``path`` with the suffix of a format that plays in a browser and can be written here."""
    return path.with_suffix(".mp4" if _ffmpeg() or _opencv_has_h264() else ".webm")


def _command(
    program: str, draft: Path, rate: float, size: tuple[int, int], sound: Reader | None
) -> list[str]:
    """ffmpeg's arguments: frames on its standard input become ``draft``."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"{rate:.6f}"]
    source: list[str] = []
    heard: list[str] = []
    if sound is not None and (codec := _sound_codec(program, sound.path, draft)):
        heard = ["-map", "0:v", "-map", "1:a:0", "-c:a", codec]
        source = _untrusted(sound.path, sound.seconds)
    if draft.suffix.lower() == ".avi":
        video = ["-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"]
    else:
        # 18 looks like the original; the colour matrix is the one that OpenCV reads with.
        video = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p"]
        video += ["-colorspace", "smpte170m"]
    if draft.suffix.lower() in (".mp4", ".m4v", ".mov"):
        video += ["-movflags", "+faststart"]
    return [
        *(program, "-v", "error", "-y", *raw, "-i", "pipe:0", *source),
        *(*heard, *video, f"file:{draft.absolute()}"),
    ]


def _untrusted(path: Path, seconds: float) -> list[str]:
    """Arguments to read a stranger's file, no longer than it announces, and no other files."""
    limit = ["-t", f"{seconds:.3f}"] if seconds else []
    return ["-protocol_whitelist", "file,pipe", *limit, "-i", f"file:{path.absolute()}"]


def _sound_codec(program: str, source: Path, draft: Path) -> str:
    """The codec for the sound of ``source`` in a file like ``draft``; empty without sound."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / f"probe{draft.suffix}"
        for codec in ("copy", "pcm_s16le" if draft.suffix.lower() == ".avi" else "aac"):
            tried = subprocess.run(
                [
                    *(program, "-v", "error", "-y", *_untrusted(source, 0.2)),
                    *("-map", "0:a:0", "-c:a", codec, f"file:{probe}"),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            if tried.returncode == 0:
                return codec
    return ""
