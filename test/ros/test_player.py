"""Recordings are played to topics, and the live node is measured with them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import recordings
from rcl_interfaces.msg import Log
from ros.desk import PATIENCE_S, Desk, Inbox, until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from rain_removal_ros import cli, codec
from rain_removal_ros.errors import BagError
from rain_removal_ros.ros.tools.player import Player, PlayOptions


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return recordings.write(tmp_path / "bag", recordings.entries())


def play(desk: Desk, bag: Path, **options: Any) -> Any:
    player = Player(bag, PlayOptions(**options), context=desk.context)
    try:
        return player.play()
    finally:
        player.close()


def test_messages_arrive_as_they_were_recorded(desk: Desk, bag: Path) -> None:
    images = desk.inbox("/camera/image_raw", Image)
    infos = desk.inbox("/camera/camera_info", CameraInfo)
    played = play(desk, bag, rate=20.0, subscribers=("/camera/image_raw", "/camera/camera_info"))
    assert played.messages == 12
    assert played.unknown == {"/odd": recordings.ODD}
    found = images.count(6)
    assert [codec.stamp_ns(image.header) for image in found] == list(
        map(recordings.stamp, range(6))
    )
    assert bytes(found[2].data) == recordings.picture(2).tobytes()
    assert infos.count(6)[0].k[0] == 50.0


def test_the_rate_decides_how_long_playing_takes(desk: Desk, bag: Path) -> None:
    arrivals = Arrivals()
    desk.tools.create_subscription(Image, "/camera/image_raw", arrivals, 10)
    began = time.monotonic()
    play(desk, bag, rate=0.5, subscribers=("/camera/image_raw",))
    until(lambda: len(arrivals.times) == 6, "all images")
    # Steps of 50 ms at half the rate: none may be early, but a busy machine may delay some.
    for index, at in enumerate(arrivals.times):
        assert index * 0.1 <= at - began < index * 0.1 + 5


class Arrivals:
    """Notes when messages come."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, message: Any) -> None:
        self.times.append(time.monotonic())


def test_restamped_messages_have_the_time_of_playing(desk: Desk, bag: Path, tmp_path: Path) -> None:
    images = desk.inbox("/camera/image_raw", Image)
    before = time.time_ns()
    schedule = tmp_path / "schedule.json"
    play(desk, bag, restamp=True, rate=2.0, schedule=schedule, subscribers=("/camera/image_raw",))
    stamps = [codec.stamp_ns(image.header) for image in images.count(6)]
    assert before <= stamps[0] <= time.time_ns()
    assert {b - a for a, b in itertools.pairwise(stamps)} == {recordings.STEP_NS // 2}
    noted = json.loads(schedule.read_text())["stamps"]
    assert noted == [[recordings.stamp(i), stamp] for i, stamp in enumerate(stamps)]


def test_the_clock_shows_the_time_of_the_recording(desk: Desk, bag: Path) -> None:
    clock = desk.inbox("/clock", Clock)
    play(desk, bag, clock_hz=100.0, subscribers=())
    ticks = [tick.clock.sec * 1_000_000_000 + tick.clock.nanosec for tick in clock.count(10)]
    assert ticks == sorted(ticks)
    assert recordings.stamp(0) <= ticks[0] < ticks[-1] <= recordings.stamp(6)


def test_a_loop_starts_over_until_it_is_stopped(desk: Desk, bag: Path) -> None:
    images = desk.inbox("/camera/image_raw", Image)
    with running(desk, bag, loop=True, rate=5.0) as player:
        stamps = [codec.stamp_ns(image.header) for image in images.count(14)]
        player.stop()
    assert stamps[6:12] == stamps[:6]


def test_a_player_started_paused_waits_for_the_service(desk: Desk, bag: Path) -> None:
    images = desk.inbox("/camera/image_raw", Image)
    with running(desk, bag, paused=True, rate=20.0):
        go_on = SetBool.Request(data=False)
        until(lambda: desk.tools.count_publishers("/camera/image_raw"), "the player's topics")
        assert not images.messages
        assert desk.call(SetBool, "/bag_player/set_paused", go_on).success
        images.count(6)


class running:  # noqa: N801 - used like a function
    """Plays in a thread of its own."""

    def __init__(self, desk: Desk, bag: Path, **options: Any) -> None:
        options.setdefault("subscribers", ("/camera/image_raw",))
        self._player = Player(bag, PlayOptions(**options), context=desk.context)
        self._thread = threading.Thread(target=self._player.play)

    def __enter__(self) -> Player:
        self._thread.start()
        return self._player

    def __exit__(self, *_: object) -> None:
        self._player.stop()
        self._thread.join()
        self._player.close()


def test_a_missing_topic_is_refused(desk: Desk, bag: Path) -> None:
    with pytest.raises(BagError, match="has no topic /other; it has /camera/camera_info"):
        Player(bag, PlayOptions(topics=("/other",)), context=desk.context)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_plays_until_a_signal_ends_it(
    desk: Desk, bag: Path, number: signal.Signals
) -> None:
    images: Inbox = desk.inbox("/camera/image_raw", Image)
    process = subprocess.Popen(
        [sys.executable, "-m", "rain_removal_ros", "bag-play", bag, "--loop", "--rate", "10"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=desk_environment(desk),
    )  # fmt: skip
    images.count(8)
    process.send_signal(number)
    said, error = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, error) == (0, "")
    assert "messages played" in said
    assert "left out: /odd, as their_msgs/msg/Odd is not installed" in said


def desk_environment(desk: Desk) -> dict[str, str]:
    return {**os.environ, "ROS_DOMAIN_ID": str(desk.domain)}


def test_the_live_node_is_measured_on_a_recording(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Player, node and recorder run over DDS, as for a user; two settings make two rows."""
    content = []
    for index in range(20):
        at, pixels = recordings.stamp(index), recordings.picture(index)
        content += [
            recordings.Entry("/camera/image_raw", at, recordings.image(pixels, at)),
            recordings.Entry("/camera/image_clean", at, recordings.image(pixels // 2, at)),
        ]
    bag = recordings.write(tmp_path / "bag", content)
    figures, page = tmp_path / "bench.json", tmp_path / "bench.html"
    flags = ["--model", weights, "--device", "cpu", "--json", figures, "--report", page]
    tries = ["--try", "full:", "--try", "half:stream.strength=0.5,stream.scene_cut=0"]
    assert cli.main(["bag-bench", *map(str, [bag, *flags]), *tries]) == 0
    rows = json.loads(figures.read_text())["results"]
    assert [row["name"] for row in rows] == ["full", "half"]
    for row in rows:
        assert row["sent"] == 20
        assert row["received"] > 5
        assert row["received"] + sum(row["dropped"].values()) == 20
        assert 0 < row["latency_ms_median"] <= row["latency_ms_p95"] <= row["latency_ms_max"]
        assert row["memory_mib"] > 50
        assert row["quality"]["frames"] == row["received"]
        assert row["quality"]["psnr_after"] is not None
    said = capsys.readouterr().out
    assert "full" in said
    assert "half" in said
    assert "<svg" in page.read_text()


def test_every_frame_is_measured_offline(weights: Path, bag: Path, tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    flags = ["--offline", "--model", weights, "--device", "cpu", "--json", figures]
    assert cli.main(["bag-bench", *map(str, [bag, *flags])]) == 0
    (row,) = json.loads(figures.read_text())["results"]
    assert (row["sent"], row["received"]) == (6, 6)
    assert row["latency_ms_median"] > 0


def test_missing_weights_are_reported_before_anything_starts(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bag-bench", str(bag), "--model", "none.safetensors"]) == 2
    assert "there is no weight file none.safetensors" in capsys.readouterr().err


def test_the_player_does_not_wait_for_a_subscriber_for_ever(desk: Desk, bag: Path) -> None:
    played = play(desk, bag, rate=20.0, subscribers=("/camera/image_raw",), patience_s=0.2)
    assert played.messages > 0


def test_a_topic_to_wait_for_that_is_not_recorded_is_pointed_out(desk: Desk, bag: Path) -> None:
    said = desk.inbox("/rosout", Log)
    assert play(desk, bag, rate=20.0, subscribers=("/camera/image",)).messages > 0
    line = said.wait(lambda log: "has no topic" in log.msg).msg
    assert line == f"{bag} has no topic /camera/image; images are on /camera/image_raw"


def test_a_subscriber_of_the_compressed_images_will_do(desk: Desk, tmp_path: Path) -> None:
    raw, packed = "/camera/image_raw", "/camera/image_raw/compressed"
    pixels = recordings.picture(0)
    content = [
        recordings.Entry(raw, recordings.stamp(0), recordings.image(pixels, recordings.stamp(0))),
        recordings.Entry(
            packed, recordings.stamp(1), recordings.compressed(pixels, recordings.stamp(1))
        ),
    ]
    images = desk.inbox(packed, CompressedImage)
    assert (
        play(desk, recordings.write(tmp_path / "both", content), subscribers=(raw,)).messages == 2
    )
    images.wait()
