"""Which topics of a recording are derained, and the names of the new topics."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rain_removal_ros.bags.messages import (
    CAMERA_INFO,
    COMPRESSED,
    FLOAT,
    IMAGE,
    Channel,
    decoded,
    standard,
)
from rain_removal_ros.bags.reading import Recording
from rain_removal_ros.camera import OutputKind
from rain_removal_ros.errors import BagError, FrameError

REFERENCE = "image_clean"
"""The name of the images without rain in recordings made with ``bag-make``."""
_OURS = ("attention", REFERENCE)
_NO_COLOURS = ("32FC1", "64FC1", "16UC1", "32SC1", "8SC1", "16SC1")


@dataclass(frozen=True)
class CameraTopics:
    """One camera of a recording: its inputs and outputs."""

    image: Channel
    info: Channel | None
    """Its calibration, if recorded."""
    reference: Channel | None
    """The same scene without rain, if recorded."""
    outputs: Mapping[OutputKind, Channel]
    """What is written."""
    in_place: bool
    """Whether the derained images replace the recorded ones."""

    @property
    def derained(self) -> Channel:
        """The topic of the derained images, raw or compressed like the input."""
        return self.outputs[own_kind(self.image)]


def own_kind(image: Channel) -> OutputKind:
    """The output of the same kind as the camera's images."""
    return OutputKind.COMPRESSED if image.msgtype == COMPRESSED else OutputKind.IMAGE


def camera_topics(
    recording: Recording,
    *,
    topics: Sequence[str] = (),
    in_place_of: Sequence[str] = (),
    ending: str = "derained",
    reference: str = "",
    compressed: bool = False,
) -> list[CameraTopics]:
    """The cameras to derain: the requested ones, or all that are found.

    With ``compressed``, raw cameras get compressed images too.
    """
    named = list(dict.fromkeys((*topics, *in_place_of)))
    images = [_image(recording, name) for name in named] if named else _found(recording)
    spaces = [_space(image.topic) for image in images]
    cameras = [
        _camera(
            recording,
            image,
            stem=f"{space}/" if spaces.count(space) == 1 else f"{_base(image.topic)}_",
            ending=ending,
            reference=reference,
            compressed=compressed,
            in_place=image.topic in in_place_of,
        )
        for image, space in zip(images, spaces, strict=True)
    ]
    _check_new(recording, cameras)
    return cameras


def _camera(
    recording: Recording,
    image: Channel,
    *,
    stem: str,
    ending: str,
    reference: str,
    compressed: bool,
    in_place: bool,
) -> CameraTopics:
    again = "" if ending == "derained" else f"_{ending}"
    transport = image.topic[len(_base(image.topic)) :]
    info = _channel(recording, f"{_space(image.topic)}/camera_info", CAMERA_INFO)
    name = "image_" if stem.endswith("/") else ""
    derained = image.topic if in_place else f"{stem}{name}{ending}{transport}"
    outputs = {
        own_kind(image): standard(derained, image.msgtype, qos=image.qos),
        OutputKind.ATTENTION: standard(f"{stem}attention{again}", IMAGE, qos=image.qos),
        OutputKind.RAIN_LEVEL: standard(f"{stem}rain_level{again}", FLOAT, qos=image.qos),
    }
    if compressed and OutputKind.COMPRESSED not in outputs:
        topic = f"{derained}/compressed"
        outputs[OutputKind.COMPRESSED] = standard(topic, COMPRESSED, qos=image.qos)
    if info is not None:
        topic = info.topic if in_place else f"{stem}camera_info_{ending}"
        outputs[OutputKind.CALIBRATION] = standard(topic, CAMERA_INFO, qos=info.qos)
    return CameraTopics(
        image, info, _reference(recording, image, reference), outputs, in_place=in_place
    )


def _reference(recording: Recording, image: Channel, asked: str) -> Channel | None:
    if asked:
        return _image(recording, asked)
    name = f"{_space(image.topic)}/{REFERENCE}"
    return _channel(recording, name, IMAGE) or _channel(recording, f"{name}/compressed", COMPRESSED)


def _image(recording: Recording, topic: str) -> Channel:
    """The image channel of this name; an error names near ones."""
    images = {c.topic: c for c in recording.channels if c.msgtype in (IMAGE, COMPRESSED)}
    if topic in images:
        return images[topic]
    if not images:
        raise BagError(f"{recording.path} holds no images; its topics are {_list(recording)}")
    others = [c for c in recording.channels if c.topic == topic]
    what = f"is {others[0].msgtype}, no image" if others else "is not there"
    near = difflib.get_close_matches(topic, images, n=3, cutoff=0.3) or sorted(images)
    raise BagError(f"{recording.path}: {topic} {what}; images are on {', '.join(near)}")


def _found(recording: Recording) -> list[Channel]:
    """Topics that look like a camera's colour images; of one camera, raw before compressed."""
    images = [
        channel
        for channel in recording.channels
        if channel.msgtype in (IMAGE, COMPRESSED)
        and recording.counts[channel]
        and not _base(channel.topic).endswith((*_OURS, "_derained"))
        and _has_colours(recording, channel)
    ]
    raw = {channel.topic for channel in images if channel.msgtype == IMAGE}
    images = [c for c in images if c.msgtype == IMAGE or _base(c.topic) not in raw]
    if not images:
        raise BagError(f"{recording.path} holds no camera images; topics: {_list(recording)}")
    return images


def _has_colours(recording: Recording, channel: Channel) -> bool:
    """Whether a channel has colour images, judging by its first readable message."""
    for message in recording.messages([channel]):
        try:
            first: Any = decoded(channel, message.data)
        except FrameError:
            continue
        if channel.msgtype == COMPRESSED:
            return "compressedDepth" not in first.format
        return first.encoding not in _NO_COLOURS
    return False


def _check_new(recording: Recording, cameras: Sequence[CameraTopics]) -> None:
    """Refuse new topics that would mix with recorded ones."""
    replaced = {c.image.topic for c in cameras if c.in_place}
    replaced |= {c.info.topic for c in cameras if c.in_place and c.info}
    taken = {channel.topic for channel in recording.channels} - replaced
    for camera in cameras:
        for channel in camera.outputs.values():
            if channel.topic in taken:
                raise BagError(
                    f"{recording.path} has a topic {channel.topic} already; choose another name "
                    "for the new ones with --ending"
                )


def _channel(recording: Recording, topic: str, msgtype: str) -> Channel | None:
    found = (c for c in recording.channels if c.topic == topic and c.msgtype == msgtype)
    return next(found, None)


def _base(topic: str) -> str:
    """The topic without its transport."""
    return topic.removesuffix("/compressed")


def _space(topic: str) -> str:
    """The camera's namespace."""
    return _base(topic).rpartition("/")[0]


def _list(recording: Recording) -> str:
    names = [f"{channel.topic} ({channel.msgtype})" for channel in recording.channels]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"
