"""``rain-removal demo`` writes a video and a still, and leaves no process behind."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.cli import main
from rain_removal_ros.media import videos

PATIENCE_S = 120.0
SMALL = ("--size", "96x64", "--fps", "10", "--seconds", "1")

with_ros = pytest.mark.skipif(
    importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network, which hardly changes a frame."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, networks.create("rainstream", channels=8, blocks=1), {})
    return path


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(weights: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the demo as a process."""
    started = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "rain_removal_ros", "demo", "-o", str(tmp_path / "out")),
                *("--model", str(weights), *SMALL, *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def frames_of(video: Path) -> int:
    capture = cv2.VideoCapture(str(video))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def test_the_demo_runs_without_ros(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    assert main(["demo", "-o", str(out), "--model", str(weights), "--way", "direct", *SMALL]) == 0
    said = capsys.readouterr().out
    video = videos.for_browsers(out / "demo")
    assert f"look at {out / 'still.png'} and {video}" in said
    assert frames_of(video) == 10
    still = cv2.imread(str(out / "still.png"))
    assert still.shape[1] == 2 * 480, "small frames are enlarged, or labels could not be read"
    # An untrained network hardly changes anything, so the figures must hardly differ.
    before, after = map(float, re.findall(r"([\d.]+) dB,", said.replace(" dB (", " dB, (")))
    assert 5 < before < 40
    assert abs(after - before) < 3


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
PAGE = """
<video muted src="NAME"></video>
<script>
const video = document.querySelector("video");
const tell = () => { document.title = `at ${video.currentTime}, ${video.videoWidth} wide`; };
video.addEventListener("seeked", tell);
video.addEventListener("error", () => { document.title = video.error.message; });
video.addEventListener("loadeddata", () => { video.currentTime = 0.5; });
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_video_plays_in_a_browser(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == ".webm":
        monkeypatch.setattr(videos, "_ffmpeg", lambda: None)
        monkeypatch.setattr(videos, "_opencv_has_h264", lambda: False)
    video = videos.for_browsers(tmp_path / "demo")
    if video.suffix != suffix:
        pytest.skip("nothing here writes H.264")
    with videos.writing(video, 10.0) as writer:
        for index in range(10):
            writer.write(np.full((64, 97, 3), 20 * index, np.uint8))
    page = tmp_path / "page.html"
    page.write_text(PAGE.replace("NAME", video.name))
    assert BROWSER is not None
    shown = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'user'}", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    ).stdout
    assert "<title>at 0.5, 96 wide</title>" in shown, shown


@with_ros
def test_camera_and_node_run_as_processes_and_end_with_the_demo(
    start: Start, tmp_path: Path
) -> None:
    demo = start("--way", "ros")
    children = processes_of(demo)
    said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, said
    assert re.search(r"in +[\d.]+ Hz, out +[\d.]+ Hz, latency +\d+ ms, dropped \d+", said)
    count = int(re.search(r"(\d+) frames, against", said)[1])  # type: ignore[index]
    assert frames_of(videos.for_browsers(tmp_path / "out" / "demo")) == count > 0
    assert (tmp_path / "out" / "still.png").is_file()
    assert all_gone(children)


@with_ros
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_demo(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    demo = start("--way", "ros", "--seconds", "300")
    children = processes_of(demo)
    demo.send_signal(how)
    assert demo.wait(PATIENCE_S) == (-how if how is signal.SIGKILL else 130)
    assert wait_until(lambda: all_gone(children))
    assert not list((tmp_path / "out").iterdir())


@with_ros
def test_the_demo_fails_at_once_if_the_node_ends(start: Start) -> None:
    demo = start("--way", "ros", "--seconds", "300")
    os.kill(processes_of(demo)[-1], signal.SIGKILL)
    said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1
    assert said.splitlines()[-1] == "rain-removal demo: the process node has ended with -9"


def test_a_missing_weight_file_is_reported_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.safetensors")
    assert main(["demo", "-o", str(tmp_path / "out"), "--model", missing]) == 2
    assert capsys.readouterr() == ("", f"rain-removal demo: there is no weight file {missing}\n")


def processes_of(demo: subprocess.Popen[str]) -> list[int]:
    """The processes of camera and node, once they run."""
    listed = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
    assert wait_until(lambda: sum(map(is_a_node, listed.read_text().split())) == 2)
    return [int(child) for child in listed.read_text().split()]


def is_a_node(process: str) -> bool:
    """Whether the process runs a node, and is no longer a copy of the demo that started it."""
    try:
        return b"rain_removal_ros.ros." in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def all_gone(processes: list[int]) -> bool:
    return not any(is_a_node(str(process)) for process in processes)


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
