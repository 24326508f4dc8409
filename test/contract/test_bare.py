"""The shipped graphs, which contain no weights, give the results of torch without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import recordings
from without_torch import without_torch

from rain_removal_ros import checkpoints, engines
from rain_removal_ros.bags import open_recording
from rain_removal_ros.engines import bare_graphs
from rain_removal_ros.errors import EngineError
from rain_removal_ros.settings import EngineSettings, NetworkSettings
from rain_removal_ros.simulation.drive import Drive

MODELS = ("rainstream_s", "rainstream", "rainstream_l")
GREY_LEVELS = 1
STATE = 1e-3
STALE = "is its graph stale? run scripts/graphs"
CPU = EngineSettings(device="cpu", precision="float32")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The command line in an environment without torch."""
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    environment = {**os.environ, **without_torch(hiding)}

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "rain_removal_ros", *map(str, arguments)]
        return subprocess.run(
            words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return command


@pytest.mark.parametrize("name", MODELS)
def test_frames_and_states_equal_those_of_torch_over_a_clip_with_a_reset(name: str) -> None:
    """A graph is stale if it no longer computes what the network does, whatever the weights."""
    ours = bare_graphs.load(NetworkSettings(name=name), EngineSettings(device="cpu"))
    by_torch = engines.load(NetworkSettings(name=name), CPU)
    assert (ours.info.scale, ours.info.recurrent, ours.info.stages, ours.info.cautions) == (
        by_torch.info.scale,
        by_torch.info.recurrent,
        by_torch.info.stages,
        by_torch.info.cautions,
    ), STALE
    for width, height in ((96, 64), (75, 53)):  # another size starts afresh
        street = Drive(3, width=width, height=height)
        state: Any = None
        wanted_state: Any = None
        for index in range(3):
            frame = street.frame(60 + index).image
            (got,) = ours.step([frame], [state])
            (wanted,) = by_torch.step([frame], [wanted_state])
            assert np.abs(got.image.astype(int) - wanted.image).max() <= GREY_LEVELS, STALE
            assert got.attention is not None
            assert wanted.attention is not None
            assert np.abs(got.attention.astype(int) - wanted.attention).max() <= GREY_LEVELS, STALE
            state, wanted_state = got.state, wanted.state
            for part, other in zip(state, wanted_state, strict=True):
                np.testing.assert_allclose(part.numpy(), other.numpy(), atol=STATE, err_msg=STALE)


def test_every_shipped_size_of_rainstream_has_a_graph() -> None:
    shipped = [path for path in checkpoints.shipped() if checkpoints.name_of(path) == "rainstream"]
    assert {path.stem for path in shipped} == set(MODELS)
    for path in shipped:
        assert bare_graphs.find(path)[0].fits(checkpoints.read(path)), STALE


def test_weights_trained_further_use_the_same_graph(tmp_path: Path) -> None:
    network = checkpoints.load(checkpoints.resolve("rainstream_s")).network
    for parameter in network.parameters():
        parameter.data *= 1.01
    path = tmp_path / "mine.safetensors"
    checkpoints.save(path, network, {})
    mine = NetworkSettings(weights=str(path))
    frame = Drive(3, width=96, height=64).frame(60).image
    (got,) = bare_graphs.load(mine, EngineSettings(device="cpu")).step([frame], [None])
    (wanted,) = engines.load(mine, CPU).step([frame], [None])
    assert np.abs(got.image.astype(int) - wanted.image).max() <= GREY_LEVELS


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rainstream.graph"
    path.write_bytes(b"PK no zip")
    with pytest.raises(EngineError, match=r"rainstream\.graph is damaged; install"):
        bare_graphs.read(path)


def test_a_picture_is_derained_without_torch(run: Run, tmp_path: Path) -> None:
    picture = Drive(3, width=160, height=120).frame(60).image
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    done = run("image", "in.png", "-o", "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    derained = cv2.imread(str(tmp_path / "out.png"))
    engine = engines.load(NetworkSettings(), CPU)
    read = np.ascontiguousarray(cv2.imread(str(tmp_path / "in.png"))[..., ::-1])
    wanted = engine.step([read], [None])[0].image[..., ::-1]
    assert np.abs(derained.astype(int) - wanted).max() <= GREY_LEVELS


def test_a_large_picture_is_tiled_without_torch(run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.full((300, 500, 3), 90, np.uint8))
    done = run("image", "in.png", "-o", "out.png", "--model", "rainstream_s", "--tile", "256")
    assert (done.returncode, done.stderr) == (0, "")
    assert cv2.imread(str(tmp_path / "out.png")).shape == (300, 500, 3)


def test_a_recording_is_replayed_without_torch(run: Run, tmp_path: Path) -> None:
    recordings.write(tmp_path / "in", recordings.entries(3))
    done = run("replay", "in", "-o", "out", "--model", "rainstream_s")
    assert done.returncode == 0, done.stderr
    with open_recording(tmp_path / "out") as recording:
        topics = {channel.topic for channel in recording.channels}
    assert any("derained" in topic for topic in topics)


def test_the_demo_runs_without_torch(run: Run, tmp_path: Path) -> None:
    done = run("demo", "--way", "direct", "--seconds", "0.1", "-o", "demo")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/still.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--config", "config/train/prenet.yaml"),
        ("export", "rainstream", "-o", "x.onnx"),
        ("bench",),
        ("image", "in.png", "-o", "out.png", "--model", "prenet"),
    ],
    ids=lambda words: words[0],
)
def test_a_command_that_needs_torch_says_so_in_one_line(
    run: Run, tmp_path: Path, repository: Path, arguments: tuple[str, ...]
) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.full((64, 64, 3), 90, np.uint8))
    words = [str(repository / word) if word.startswith("config") else word for word in arguments]
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "torch" in done.stderr
    assert "pip install '.[torch]'" in done.stderr
