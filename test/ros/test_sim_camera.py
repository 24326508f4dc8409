"""The simulated camera: what it publishes, how often, and how it reports problems."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rcl_interfaces.msg import Log
from ros.desk import Desk, Inbox, picture, pixels, until
from sensor_msgs.msg import CameraInfo, Image

from rain_removal_ros.codec import stamp_ns
from rain_removal_ros.errors import RainRemovalError
from rain_removal_ros.ros.tools.simulator import Pace
from rain_removal_ros.simulation.drive import Drive

PATIENCE_S = 300.0
"""The camera takes long to start on a busy machine."""
SIZE = ("-p", "scene.width:=96", "-p", "scene.height:=64")
QUICK = (*SIZE, "-p", "scene.fps:=10.0", "-p", "loop_s:=0.5")


def camera(desk: Desk, *arguments: str) -> Any:
    return desk.process(*arguments, module="rain_removal_ros.ros.tools.sim_camera")


def by_stamp(inbox: Inbox) -> dict[int, Any]:
    return {stamp_ns(message.header): message for message in inbox.messages}


def test_image_reference_depth_and_calibration_of_a_frame_share_a_stamp(desk: Desk) -> None:
    topics = {"image": Image, "image_clean": Image, "depth": Image, "camera_info": CameraInfo}
    inboxes = {topic: desk.inbox(topic, kind) for topic, kind in topics.items()}
    camera(desk, *QUICK, "-p", "frame_id:=front", "-p", "scene.seed:=3")
    inboxes["depth"].count(8, PATIENCE_S)
    received = {topic: by_stamp(inbox) for topic, inbox in inboxes.items()}
    stamp = max(set.intersection(*(set(messages) for messages in received.values())))
    image, reference, depth, info = (received[topic][stamp] for topic in topics)
    assert {message.header.frame_id for message in (image, reference, depth, info)} == {"front"}
    # Only the picture tells which of the loop's five frames this is.
    drive = Drive(3, 96, 64, 10.0)
    seen = [drive.frame(index) for index in range(5)]
    truth = next(frame for frame in seen if np.array_equal(frame.image, pixels(reference)))
    assert depth.encoding == "32FC1"
    metres = np.frombuffer(depth.data, np.float32).reshape(64, 96)
    assert np.array_equal(metres, truth.depth)
    assert list(info.k) == [truth.fx, 0, truth.cx, 0, truth.fy, truth.cy, 0, 0, 1]
    assert (info.width, info.height) == (image.width, image.height) == (96, 64)
    assert np.abs(pixels(image).astype(int) - pixels(reference)).mean() > 5  # it rains


def test_the_same_seeds_give_the_same_rain(desk: Desk) -> None:
    shown = []
    for name in ("one", "two"):
        inbox = desk.inbox(f"{name}/image")
        camera(desk, *QUICK, "-r", f"__ns:=/{name}", "-p", "rain.severity:=0.6")
        until(lambda inbox=inbox: len(frames(inbox)) == 5, "the whole loop", PATIENCE_S)
        inbox.count(len(inbox.messages) + 5)
        shown.append(frames(inbox))
    assert len(shown[0]) == 5
    assert shown[0] == shown[1]


def frames(inbox: Inbox) -> set[bytes]:
    return {bytes(message.data) for message in list(inbox.messages)}


def test_stamps_follow_the_set_rate(desk: Desk) -> None:
    inbox = desk.inbox("image")
    camera(desk, *SIZE, "-p", "scene.fps:=30.0", "-p", "loop_s:=0.2")
    stamps = [stamp_ns(message.header) for message in inbox.count(40, PATIENCE_S)][5:]
    assert np.median(np.diff(stamps)) == pytest.approx(1e9 / 30, rel=0.3)


def test_frames_are_shown_once_and_skipped_ones_are_counted() -> None:
    pace = Pace(100.0)
    start = 1_000_000_000
    due = [pace.due(start + milliseconds * 1_000_000) for milliseconds in (0, 10, 12, 60, 71)]
    assert due == [0, 1, 2, 6, 7]
    assert pace.skipped == 3
    assert pace.due(0) == 0, "the clock was set back"


def test_a_camera_that_is_too_slow_reports_it_and_goes_on(desk: Desk) -> None:
    inbox, logs = desk.inbox("image"), desk.inbox("/rosout", Log)
    camera(desk, "-p", "scene.fps:=240.0", "-p", "loop_s:=0.0")

    def too_slow(log: Log) -> bool:
        return "too slow for 240 Hz" in log.msg

    assert "frames skipped" in logs.wait(too_slow, PATIENCE_S).msg
    seen = len(inbox.messages)
    stamps = [stamp_ns(message.header) for message in inbox.count(seen + 3, PATIENCE_S)]
    assert stamps == sorted(set(stamps))


def test_a_folder_is_shown_in_order_and_without_rain_at_severity_0(
    desk: Desk, tmp_path: Path
) -> None:
    pictures = [picture(seed) for seed in range(3)]
    for index, image in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image[..., ::-1])
    inbox = desk.inbox("image")
    info = desk.inbox("camera_info", CameraInfo)
    # Slow, so that no frame is skipped even on a busy machine.
    arguments = ("-p", f"scene.source:={tmp_path}", "-p", "scene.fps:=2.0", "-p", "loop_s:=1.5")
    camera(desk, *arguments, "-p", "rain.severity:=0.0", "-p", "encoding:=bgr8")
    received = inbox.count(6, PATIENCE_S)
    assert {message.encoding for message in received} == {"bgr8"}
    numbers = [
        next(i for i, image in enumerate(pictures) if np.array_equal(image, pixels(message)))
        for message in received
    ]
    assert all((b - a) % 3 == 1 for a, b in itertools.pairwise(numbers))
    assert not any(info.wait().k), "nothing is known of this camera"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("scene.source:=/nowhere", "scene.source"),
        ("scene.widht:=100", "scene.width"),
        ("rain.severity:=2.0", "0 to 1"),
    ],
)
def test_a_wrong_parameter_is_a_one_line_error(desk: Desk, given: str, said: str) -> None:
    process = camera(desk, "-p", given)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert process.returncode == RainRemovalError.exit_code
    assert len(errors) == 1
    assert said in errors[0]
