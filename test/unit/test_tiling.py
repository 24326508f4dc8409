"""A picture derained in tiles is nearly the one derained whole, within limited memory."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.engines import Engine
from rain_removal_ros.errors import EngineError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.media.tiling import Needs, TiledEngine, memory_left, spans
from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Facts, Output, State
from rain_removal_ros.networks._cost import peak_bytes
from rain_removal_ros.settings import EngineSettings
from rain_removal_ros.stream import Stream

SMALL = {"channels": 8, "stages": 2, "blocks": 2, "units": 2}
GLOBAL = {
    "joint_derain_sr": "its patches are a sixteenth of what it sees, and it weighs channels by "
    "their mean over all of it",
    "rainstream": "its coarsest features are summed up over all of what it sees",
}


def engine_of(name: str, *, gain: float = 1.0, **config: object) -> Engine:
    known = {field.name for field in dataclasses.fields(networks.module(name).Config)}
    torch.manual_seed(3)
    shrunk = {key: value for key, value in SMALL.items() if key in known}
    network = networks.create(name, **{**shrunk, **config})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain if parameter.dim() > 1 else 1.0)
    return engines.create(network, EngineSettings(device="cpu", precision="float32"))


def rainy(height: int, width: int, *, seed: int = 0) -> Image:
    """Streaks and blobs of all sizes over a gradient."""
    random = np.random.default_rng(seed)
    image = np.linspace(40, 160, height)[:, None, None] + np.zeros((height, width, 3))
    for size in (4, 16, 64):
        coarse = random.normal(0, 20, (height // size + 2, width // size + 2, 3))
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += 60 * (random.random((1, width, 1)) > 0.9)
    return image.clip(0, 255).astype(np.uint8)


@given(
    length=st.integers(1, 9000), side=st.integers(192, 2000), overlap=st.sampled_from([0, 64, 128])
)
@settings(max_examples=300, deadline=None)
def test_tiles_cover_the_whole_side_with_the_given_overlap(
    length: int, side: int, overlap: int
) -> None:
    found = spans(length, side, overlap)
    assert (found[0].start, found[-1].stop) == (0, length)
    for span in found:
        assert 0 < span.stop - span.start <= side
        assert span.start % 64 == 0
    for before, after in pairwise(found):
        assert before.start < after.start
        assert before.stop - after.start >= overlap


def test_tiles_too_small_for_their_overlap_are_refused() -> None:
    with pytest.raises(EngineError, match="tiles of 150 pixels are too small; from 192 on"):
        TiledEngine(engine_of("prenet"), side=150)


@pytest.mark.parametrize("name", networks.available())
def test_tiled_and_whole_results_agree(name: str) -> None:
    engine = engine_of(name)
    image = rainy(331, 453)
    tiled = TiledEngine(engine, side=256)
    assert len(tiled.tiles(331, 453)) == 6
    (expected,) = engine.step([image], [None])
    (result,) = tiled.step([image], [None])
    assert result.image.shape == (331 * engine.info.scale, 453 * engine.info.scale, 3)
    assert not np.array_equal(result.image[:: engine.info.scale, :: engine.info.scale], image)
    difference = np.abs(result.image.astype(int) - expected.image)
    if name in GLOBAL:
        # A tile's mean is not the picture's, so tones shift smoothly and by little.
        assert difference.mean() <= 4
    else:
        assert difference.max() <= 2
        assert difference.mean() <= 0.02
    assert result.attention is not None
    assert expected.attention is not None
    assert result.attention.shape == expected.attention.shape
    assert np.abs(result.attention.astype(int) - expected.attention).mean() <= 8


@pytest.mark.parametrize("name", networks.available())
def test_tiles_leave_no_seam(name: str) -> None:
    """What tiling changes, it changes smoothly: no edge of a tile is visible."""
    engine = engine_of(name)
    image = rainy(256, 453)
    (expected,) = engine.step([image], [None])
    (result,) = TiledEngine(engine, side=256).step([image], [None])
    change = result.image.astype(float) - expected.image
    # The mean of a column has little noise, so a vertical seam would stand out.
    assert np.abs(np.diff(change.mean(axis=(0, 2)))).max() <= 1


def test_a_small_picture_is_one_tile() -> None:
    engine = engine_of("prenet")
    tiled = TiledEngine(engine, side=256)
    for shape in ((256, 256), (64, 1024), (1, 1)):
        image = rainy(*shape)
        (expected,) = engine.step([image], [None])
        (result,) = tiled.step([image], [None])
        assert np.array_equal(result.image, expected.image)


def test_each_tile_carries_its_state() -> None:
    """Compared over three frames with a stream that is not tiled."""
    engine = engine_of("prenet", stages=1, gain=3.0)
    whole, tiled = Stream(engine), Stream(TiledEngine(engine, side=256))
    afresh = Stream(TiledEngine(engine, side=256, carry_state=False))
    for index in range(3):
        # The same scene, so that there is no scene cut.
        frame = Frame(rainy(200, 400) // 2 + np.uint8(9 * index), stamp_ns=index)
        expected, result, other = (
            stream.step(frame).frame.image.astype(int) for stream in (whole, tiled, afresh)
        )
        assert np.abs(result - expected).max() <= 1
    assert not np.array_equal(other, result)
    assert afresh.state is None


def test_the_result_is_written_into_the_given_array() -> None:
    tiled = TiledEngine(engine_of("prenet"), side=256)
    image = rainy(200, 400)
    target = np.zeros_like(image)
    (result,) = tiled.step([image], [None], attention=False, into=[target])
    assert result.image is target
    assert target.any(axis=2).all()
    assert result.attention is None


def test_cameras_of_a_batch_are_independent() -> None:
    tiled = TiledEngine(engine_of("prenet"), side=256)
    images = [rainy(200, 400, seed=seed) for seed in (1, 2)]
    together = tiled.step(images, [None, None])
    for image, result in zip(images, together, strict=True):
        assert np.array_equal(result.image, tiled.step([image], [None])[0].image)


def test_the_rain_level_of_a_picture_is_the_mean_of_its_tiles() -> None:
    engine = engine_of("rainstream")
    tiled = TiledEngine(engine, side=256)
    image = rainy(200, 400)
    parts = [
        engine.step([image[slice(*rows), slice(*columns)]], [None])[0].rain_level
        for rows, columns in tiled.tiles(200, 400)
    ]
    (result,) = tiled.step([image], [None])
    assert len(parts) > 1
    assert result.rain_level == pytest.approx(np.mean([part for part in parts if part]))


def test_the_stages_are_passed_to_the_engine() -> None:
    engine, image = engine_of("prenet"), rainy(40, 300)
    tiled = TiledEngine(engine, side=256)
    (result,) = tiled.step([image[:, :64]], [None], stages=1)
    (expected,) = engine.step([image[:, :64]], [None], stages=1)
    assert np.array_equal(result.image, expected.image)
    assert tiled.info == engine.info


class ThreeTensors(_base.Network):
    """A network that holds at most three tensors of pictures at once."""

    facts = Facts(paper="", recurrent=True)

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        double = frame * 2
        sum_ = double + frame
        del double
        return Output(sum_, sum_[:, :1], (sum_.mean(1, keepdim=True),))


def test_peak_memory_counts_all_tensors_held_at_once() -> None:
    plane = 4 * 20 * 10
    # ThreeTensors pictures at once; later only two and the state.
    assert peak_bytes(ThreeTensors(None), width=20, height=10) == (9 * plane, plane)


def test_tiles_grow_with_memory_and_too_little_memory_is_refused() -> None:
    needs = Needs(working=1000.0, state=0.0)
    assert needs.side(1000.0 * 1000**2) == 960
    assert needs.side(4000.0 * 1000**2) == 1984
    with pytest.raises(EngineError, match=r"0\.01 GiB of memory are left .* needs 0\.06 GiB"):
        needs.side(0.01 * 2**30)


def test_the_memory_left_is_what_is_free_or_left_of_a_limit() -> None:
    assert 0 < memory_left("cpu") < 2**50
    held = 100 * 2**30 - memory_left("cpu", 100 * 2**30)
    assert 2**20 < held < 50 * 2**30


PEAK = """
import sys
from rain_removal_ros.cli import main
assert main(sys.argv[1:]) == 0
line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", int(line.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.available())
def test_every_network_derains_a_4k_picture_within_4_gib(name: str, tmp_path: Path) -> None:
    """With one stage: more stages take more time, but no more memory."""
    network = networks.create(name)
    network.stages = 1
    checkpoints.save(tmp_path / "weights.safetensors", network, {})
    cv2.imwrite(str(tmp_path / "rainy.png"), rainy(2160, 3840))
    arguments = ["rainy.png", "-o", "clean.png", "--model", "weights.safetensors", "--stages", "1"]
    process = subprocess.run(
        [sys.executable, "-c", PEAK, "image", *arguments, "--memory-gb", "4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(process.stdout.split("peak")[1]) <= 4 * 2**30
    derained = cv2.imread(str(tmp_path / "clean.png"))
    assert derained.shape == (2160 * network.scale, 3840 * network.scale, 3)
