"""``rain-removal bag-make`` makes recordings of drives, pictures and videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import recordings
from rosbags.highlevel import AnyReader

from rain_removal_ros import cli, codec
from rain_removal_ros.bags import open_recording
from rain_removal_ros.bags.messages import decoded


def make(*arguments: object) -> int:
    return cli.main(["bag-make", *map(str, arguments)])


def test_a_recorded_drive_has_images_references_depth_calibration_and_boxes(tmp_path: Path) -> None:
    out = tmp_path / "drive"
    assert make("drive", "-o", out, "--seconds", 0.3, "--fps", 10, "--size", "160x120") == 0
    with AnyReader([out]) as reader:
        found = {
            connection.topic: reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages()
        }
        assert {c.topic: c.msgcount for c in reader.connections} == dict.fromkeys(found, 3)
    rainy, reference = (
        codec.decode(found[f"/camera/image_{name}"]).image for name in ("raw", "clean")
    )
    assert rainy.shape == reference.shape == (120, 160, 3)
    assert np.abs(rainy.astype(int) - reference).mean() > 1
    depth = found["/camera/depth"]
    metres = depth.data.view(np.float32).reshape(120, 160)
    assert depth.encoding == "32FC1"
    assert metres[-1].mean() < metres[0].mean()
    assert found["/camera/camera_info"].k[0] == pytest.approx(0.8 * 160)
    for box in found["/camera/boxes"].detections:
        assert box.results[0].hypothesis.class_id in ("car", "person")
        assert 0 <= box.bbox.center.position.x <= 160
        assert box.bbox.size_x > 0
    assert found["/camera/boxes"].header.stamp == stamp_of_the_rainy_image(found)


def stamp_of_the_rainy_image(found: dict[str, object]) -> object:
    return found["/camera/image_raw"].header.stamp  # type: ignore[attr-defined]


def test_the_first_frame_of_a_drive_has_boxes(tmp_path: Path) -> None:
    assert make("drive", "-o", tmp_path / "drive", "--seconds", 0.1, "--severity", 0) == 0
    with open_recording(tmp_path / "drive") as recording:
        wanted = [c for c in recording.channels if c.topic == "/camera/boxes"]
        (first, *_) = [decoded(m.channel, m.data) for m in recording.messages(wanted)]
    assert first.detections


def test_the_same_flags_make_the_same_recording(tmp_path: Path) -> None:
    flags = ("--seconds", 0.2, "--fps", 10, "--size", "96x64", "--seed", 3)
    for name in ("one", "two"):
        assert make("drive", "-o", tmp_path / name / "bag", *flags) == 0
    files = [recordings.storage_file(tmp_path / name / "bag") for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_folder_of_pictures_becomes_a_recording_of_jpegs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), recordings.picture(index))
    flags = ("--jpeg", "--severity", 0, "--camera", "/front")
    assert make(tmp_path / "in", "-o", tmp_path / "out.mcap", *flags) == 0
    with open_recording(tmp_path / "out.mcap") as recording:
        assert {channel.topic for channel in recording.channels} == {
            "/front/image_raw/compressed",
            "/front/image_clean/compressed",
            "/front/camera_info",
        }
        assert recording.counts.total() == 9


def test_a_video_becomes_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(5):
        writer.write(recordings.picture(index))
    writer.release()
    assert make(path, "-o", tmp_path / "out", "--seconds", 0.2, "--fps", 10) == 0
    with open_recording(tmp_path / "out") as recording:
        counts = {channel.topic: count for channel, count in recording.counts.items()}
    assert counts["/camera/image_raw"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere'"),
        (["drive", "--style", "cats"], "rain"),
        (["drive", "--severity", "2"], "severity"),
        (["drive", "--seconds", "-1"], "lasts longer than -1 seconds"),
    ],
)
def test_a_wrong_argument_gives_a_one_line_error_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert make(*arguments, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_gives_a_one_line_error_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        make("drive", "--size", "large", "-o", tmp_path / "out")
    error = capsys.readouterr().err
    assert "'large' is not a size like 640x480" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
