"""A stream carries state while frames follow each other, and drops it when they do not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import cv2
import numpy as np
import pytest

from rain_removal_ros.engines import Derained, EngineInfo
from rain_removal_ros.errors import EngineError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.settings import StreamSettings
from rain_removal_ros.stream import Step, Stream, step_together

SECOND = 1_000_000_000


class Counting:
    """An engine whose state counts frames, and which darkens each frame by that count."""

    def __init__(self, *, scale: int = 1) -> None:
        self.info = EngineInfo("counting", "none", "cpu", "uint8", scale=scale, recurrent=True)
        self.stages: list[int] = []
        self.batches: list[int] = []
        self.broken = False

    def step(
        self,
        images: Sequence[Image],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[Image | None] | None = None,
    ) -> list[Derained]:
        self.batches.append(len(images))
        self.stages.append(stages)
        if self.broken:
            raise EngineError("broken")
        results = []
        for image, state, target in zip(images, states, into or [None] * len(images), strict=True):
            seen = (state or 0) + 1
            derained = cv2.subtract(image, np.full_like(image, seen))
            derained = derained.repeat(self.info.scale, 0).repeat(self.info.scale, 1)
            if target is not None:
                target[...] = derained
                derained = target
            shown = np.zeros(image.shape[:2], np.uint8) if attention else None
            results.append(Derained(derained, shown, None, seen))
        return results


def scene(seed: int = 0, *, size: tuple[int, int] = (96, 128)) -> Image:
    """A picture of smooth blobs, different for every seed."""
    coarse = np.random.default_rng(seed).integers(30, 220, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))


def frame(index: int, image: Image | None = None) -> Frame:
    """A frame of a camera with 30 frames a second."""
    image = scene() if image is None else image
    return Frame(image, stamp_ns=index * SECOND // 30, frame_id="camera")


def resets(stream: Stream, frames: Sequence[Frame]) -> list[str | None]:
    return [stream.step(each).reset for each in frames]


def test_state_is_carried_while_frames_follow_each_other() -> None:
    stream = Stream(Counting())
    assert resets(stream, [frame(index) for index in range(4)]) == ["start", None, None, None]
    assert stream.state == 4


def test_stamp_and_frame_id_are_kept() -> None:
    step = Stream(Counting()).step(frame(3))
    assert (step.frame.stamp_ns, step.frame.frame_id) == (3 * SECOND // 30, "camera")
    assert step.seconds >= 0


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [
        (frame(2, scene(size=(48, 64))), "another size"),
        (frame(0), "time ran backwards"),
        (Frame(scene(), stamp_ns=SECOND // 30 + SECOND // 2 + 1), "gap"),
        (frame(2, scene(seed=7)), "scene cut"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stream_starts_afresh_and_says_why(breaking: Frame, reason: str) -> None:
    stream = Stream(Counting())
    assert resets(stream, [frame(0), frame(1), breaking]) == ["start", None, reason]
    assert stream.state == 1
    assert stream.state_since_ns == breaking.stamp_ns


def test_an_allowed_gap_and_a_repeated_stamp_do_not_reset_the_state() -> None:
    stream = Stream(Counting())
    later = Frame(scene(), stamp_ns=SECOND // 2)
    assert resets(stream, [frame(0), later, later]) == ["start", None, None]


def test_rain_noise_light_and_a_moving_camera_are_no_scene_cuts() -> None:
    wide = scene(size=(96, 300))
    random = np.random.default_rng(1)
    frames = []
    for index in range(20):
        view = wide[:, 3 * index : 3 * index + 128].astype(float) * (1 + 0.01 * index)
        view = view + random.normal(0, 8, view.shape) + 90 * (random.random((1, 128, 1)) > 0.9)
        frames.append(frame(index, view.clip(0, 255).astype(np.uint8)))
    assert resets(Stream(Counting()), frames) == ["start", *[None] * 19]


def test_noise_in_a_featureless_picture_is_no_scene_cut() -> None:
    random = np.random.default_rng(1)
    fog = [random.integers(125, 131, (96, 128, 3), np.uint8) for _ in range(5)]
    walls = [frame(index, image) for index, image in enumerate(fog)]
    assert resets(Stream(Counting()), walls) == ["start", *[None] * 4]


def test_scene_cuts_can_be_ignored() -> None:
    stream = Stream(Counting(), StreamSettings(scene_cut=0.0))
    assert resets(stream, [frame(0), frame(1, scene(seed=7))]) == ["start", None]


def test_a_requested_reset_happens_once() -> None:
    stream = Stream(Counting())
    stream.step(frame(0))
    stream.reset("deactivated")
    assert stream.state is None
    assert resets(stream, [frame(1), frame(2)]) == ["deactivated", None]


def test_another_engine_does_not_get_the_state() -> None:
    stream = Stream(Counting())
    stream.step(frame(0))
    stream.use(stream.engine)
    assert stream.step(frame(1)).reset is None
    stream.use(Counting())
    assert stream.step(frame(2)).reset == "another network"
    assert stream.state == 1


def test_frames_are_independent_without_carried_state() -> None:
    stream = Stream(Counting(), StreamSettings(carry_state=False))
    alone = [stream.step(frame(index)) for index in range(3)]
    assert all(np.array_equal(step.frame.image, alone[0].frame.image) for step in alone)
    assert stream.state is None


def test_interleaved_streams_give_the_results_of_separate_ones() -> None:
    def alone(seed: int, count: int) -> list[Image]:
        stream = Stream(Counting())
        return [stream.step(frame(i, scene(seed))).frame.image for i in range(count)]

    engine = Counting()
    left, right = Stream(engine), Stream(engine)
    mixed: dict[int, list[Image]] = {1: [], 2: []}
    for index in range(4):
        mixed[1].append(left.step(frame(index, scene(1))).frame.image)
        if index % 2:
            mixed[2].append(right.step(frame(index // 2, scene(2))).frame.image)
    for seed, images in mixed.items():
        for image, expected in zip(images, alone(seed, len(images)), strict=True):
            assert np.array_equal(image, expected)


def test_batched_steps_give_the_results_of_single_steps() -> None:
    def steps(*, together: bool) -> tuple[list[list[Step]], list[int]]:
        engine = Counting()
        streams = [Stream(engine) for _ in range(4)]
        streams[1].step(frame(0, scene(1)))
        streams[2].step(frame(0, scene(2)))
        engine.batches.clear()
        found = []
        for index in (1, 2):
            small = scene(3, size=(48, 64))
            frames = [frame(index, image) for image in (scene(0), scene(1), scene(2), small)]
            if together:
                found.append(step_together(streams, frames))
            else:
                found.append([each.step(one) for each, one in zip(streams, frames, strict=True)])
        return found, engine.batches

    batched, sizes = steps(together=True)
    single, _ = steps(together=False)
    # In the first step one stream has no state, two have, and one has another size; in the second
    # only the size differs.
    assert sizes == [1, 2, 1, 3, 1]
    for ours, theirs in zip(chain(*batched), chain(*single), strict=True):
        assert ours.reset == theirs.reset
        assert np.array_equal(ours.frame.image, theirs.frame.image)


def test_a_fault_resets_every_stream_of_its_batch() -> None:
    engine = Counting()
    streams = [Stream(engine), Stream(engine)]
    step_together(streams, [frame(0), frame(0)])
    engine.broken = True
    with pytest.raises(EngineError):
        step_together(streams, [frame(1), frame(1)])
    engine.broken = False
    assert [step.reset for step in step_together(streams, [frame(2), frame(2)])] == ["fault"] * 2
    assert [stream.state for stream in streams] == [1, 1]


@pytest.mark.parametrize(("strength", "darker"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_strength_scales_the_correction(strength: float, darker: int) -> None:
    stream = Stream(Counting(), StreamSettings(strength=strength))
    grey = np.full((32, 32, 3), 100, np.uint8)
    for index in range(4):
        step = stream.step(frame(index, grey))
    assert (step.frame.image == 100 - darker).all()
    assert stream.state == 4
    assert (grey == 100).all()


def test_strength_0_of_an_enlarging_network_gives_the_enlarged_frame() -> None:
    stream = Stream(Counting(scale=2), StreamSettings(strength=0.0))
    step = stream.step(frame(0))
    enlarged = cv2.resize(scene(), (256, 192), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(step.frame.image, enlarged)


def test_a_step_uses_the_given_number_of_stages() -> None:
    stream = Stream(engine := Counting())
    stream.step(frame(0))
    stream.step(frame(1), stages=3)
    assert engine.stages == [0, 3]


def test_the_derained_frame_is_written_into_the_given_array() -> None:
    target = np.zeros_like(scene())
    step = Stream(Counting()).step(frame(0), attention=False, into=target)
    assert step.frame.image is target
    assert target.any()
    assert step.attention is None
