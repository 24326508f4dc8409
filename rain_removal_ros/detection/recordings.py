"""A recording as a source of frames, with boxes and reference images if it has them.

Messages with equal stamps belong together. A frame that lacks one of the compared images is left
out and counted: candidates are compared only on frames that all of them have.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rain_removal_ros import codec
from rain_removal_ros.bags import Channel, Recording, open_recording
from rain_removal_ros.bags.messages import BOXES, COMPRESSED, IMAGE, decoded
from rain_removal_ros.bags.topics import REFERENCE
from rain_removal_ros.detection import messages
from rain_removal_ros.detection.boxes import Truths
from rain_removal_ros.detection.sources import Condition, Item, SourceFrame, block
from rain_removal_ros.detection.truth import as_truths
from rain_removal_ros.errors import BagError, DataError, FrameError

__all__ = ["Bag"]

_WAITING = 200
"""The most frames that wait for messages of the same stamp."""
_MADE = (REFERENCE, "attention", "_derained", "_detections")


class Bag:
    """See ``Source``."""

    conditions: tuple[Condition, ...] = (Condition("as recorded"),)

    def __init__(
        self, path: Path, *, topic: str = "", online: Sequence[str] = (), limit: int | None = None
    ) -> None:
        self.path, self._limit = path, limit
        with open_recording(path) as recording:
            self._image = _image(recording, topic)
            space = _space(self._image.topic)
            self._reference = _named(recording, f"{space}/{REFERENCE}", IMAGE, COMPRESSED)
            self._boxes = _named(recording, f"{space}/boxes", BOXES)
            self._online = [_image(recording, name) for name in online]
            self.items: list[Item] = []
            stamps = []
            begun = 0
            for stamp, together in self._together(recording):
                begun = begun or stamp
                truth = None
                if self._boxes is not None:
                    truth = _truth(path, together[self._boxes])
                part = block(path.name, (stamp - begun) / 1e9)
                self.items.append(Item(f"{stamp}", path.name, truth, part))
                stamps.append(stamp)
            seen = recording.counts[self._image]
        if not self.items:
            wanted = ", ".join(channel.topic for channel in self._channels)
            raise BagError(f"{path}: no stamp is on all of {wanted}")
        self.name = path.name
        self.has_reference = self._reference is not None
        gaps = sorted(b - a for a, b in itertools.pairwise(stamps))
        self.frame_s = max(1e-3, gaps[len(gaps) // 2] / 1e9) if gaps else None
        left_out = 0 if limit else seen - len(self.items)
        self.notes = [f"{left_out} frames lack one of the images compared"] if left_out else []
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        topics = [channel.topic for channel in self._channels]
        self.fingerprint = f"bag {facts} {topics} {limit}"

    def scenes(self, condition: Condition) -> Iterator[SourceFrame]:
        with open_recording(self.path) as recording:
            for stamp, together in self._together(recording):
                yield SourceFrame(
                    codec.decode(together[self._image]).image,
                    None
                    if self._reference is None
                    else codec.decode(together[self._reference]).image,
                    stamp,
                    {
                        channel.topic: codec.decode(together[channel]).image
                        for channel in self._online
                    },
                )

    @property
    def _channels(self) -> list[Channel]:
        beside = [channel for channel in (self._reference, self._boxes) if channel is not None]
        return [self._image, *beside, *self._online]

    def _together(self, recording: Recording) -> Iterator[tuple[int, dict[Channel, Any]]]:
        """Messages of one stamp on every channel, as soon as the last of them has arrived."""
        waiting: dict[int, dict[Channel, Any]] = {}
        given = 0
        for message in recording.messages(self._channels):
            try:
                content = decoded(message.channel, message.data)
            except FrameError:
                continue
            stamp = codec.stamp_ns(content.header)
            waiting.setdefault(stamp, {})[message.channel] = content
            if len(waiting[stamp]) == len(self._channels):
                yield stamp, waiting.pop(stamp)
                given += 1
                if given == self._limit:
                    return
            if len(waiting) > _WAITING:
                del waiting[next(iter(waiting))]


def _truth(path: Path, message: Any) -> Truths:
    """The boxes of a Detection2DArray."""
    try:
        found = messages.read(message)
    except DataError as error:
        raise BagError(f"{path}: {error}") from error
    numbers = [int(each.track) for each in found if each.track.isdigit()]
    return as_truths(
        [each.label for each in found],
        [each.box for each in found],
        tracks=numbers if len(numbers) == len(found) else (),
    )


def _image(recording: Recording, topic: str) -> Channel:
    images = [c for c in recording.channels if c.msgtype in (IMAGE, COMPRESSED)]
    if topic:
        found = [channel for channel in images if channel.topic == topic]
    else:
        found = [
            channel
            for channel in images
            if not channel.topic.removesuffix("/compressed").endswith((*_MADE, "depth"))
        ]
    if len(found) != 1:
        there = ", ".join(channel.topic for channel in images) or "none"
        wish = f"no images on {topic}" if topic else f"{len(found)} topics may be the rainy images"
        raise BagError(f"{recording.path}: {wish}; name one of {there} with --topic")
    return found[0]


def _named(recording: Recording, topic: str, *types: str) -> Channel | None:
    names = (topic, f"{topic}/compressed")
    found = (c for c in recording.channels if c.topic in names and c.msgtype in types)
    return next(found, None)


def _space(topic: str) -> str:
    return topic.removesuffix("/compressed").rpartition("/")[0]
