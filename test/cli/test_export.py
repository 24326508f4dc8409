"""``rain-removal export`` writes an ONNX file that runs without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.cli import main
from rain_removal_ros.engines import onnxruntime as ort_engine
from rain_removal_ros.errors import EngineError
from rain_removal_ros.settings import EngineSettings

pytest.importorskip("onnx", reason="networks are exported with the package onnx")

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from rain_removal_ros.engines.onnxruntime import open_file
engine, state = open_file(sys.argv[1]), None
for frame in np.load(sys.argv[2]):
    (result,) = engine.step([frame], [state])
    state = result.state
np.save(sys.argv[3], result.image)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, networks.create("rainstream", channels=8, blocks=1), {})
    return path


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    path = weights.with_suffix(".onnx")
    command = [sys.executable, "-m", "rain_removal_ros", "export", str(weights), "-o", str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "rainstream, opset 17" in said
    assert "fresh state_0: frame" in said
    return path


def frames() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 37, 50, 3), np.uint8))


def test_an_exported_file_runs_without_torch_and_gives_the_same_frames(
    exported: Path, weights: Path, tmp_path: Path
) -> None:
    given, got = tmp_path / "given.npy", tmp_path / "got.npy"
    np.save(given, np.stack(frames()))
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exported), str(given), str(got)]
    subprocess.run(command, check=True)
    network = checkpoints.load(weights).network
    torchs = engines.create(network, EngineSettings(name="torch", precision="float32"))
    state = None
    for frame in frames():
        (wanted,) = torchs.step([frame], [state])
        state = wanted.state
    assert np.abs(np.load(got).astype(int) - wanted.image.astype(int)).max() <= 1


def test_onnx_runtime_alone_can_run_the_file_from_its_metadata(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["rain_removal_ros"])
    assert facts["network"] == "rainstream"
    assert (facts["scale"], facts["stride"], facts["opset"]) == (1, 16, 17)
    assert len(facts["checksum"]) == 64
    assert facts["difference"] <= facts["tolerance"]
    frame = np.random.default_rng(0).random((2, 3, 48, 64), np.float32)
    inputs = {"frame": frame}
    for part in facts["state"]:
        shape = (2, part["channels"], 48 // part["divisor"], 64 // part["divisor"])
        inputs[part["input"]] = frame if part["fresh"] == "frame" else np.zeros(shape, np.float32)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, inputs), strict=True))
    assert names == [*facts["outputs"], *(part["output"] for part in facts["state"])]
    assert outputs["clean"].shape == frame.shape
    for part in facts["state"]:
        assert outputs[part["output"]].shape == inputs[part["input"]].shape


def test_a_network_that_cannot_be_exported_gives_a_one_line_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "joint.safetensors"
    checkpoints.save(path, networks.create("joint_derain_sr", channels=8, blocks=1), {})
    assert main(["export", str(path), "-o", str(tmp_path / "a.onnx")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "joint_derain_sr cannot be exported: its patches grow" in line
    assert not (tmp_path / "a.onnx").exists()


def test_an_output_that_cannot_be_written_is_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(weights), "-o", str(tmp_path / "file" / "a.onnx")])
    assert "cannot write" in capsys.readouterr().err


def test_a_missing_or_foreign_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(EngineError, match="cannot read"):
        ort_engine.open_file(path)
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match="cannot use this graph"):
        ort_engine.open_file(path)


def test_an_exported_file_has_fixed_stages(exported: Path) -> None:
    engine = ort_engine.open_file(exported)
    with pytest.raises(EngineError, match="was exported for 1 stages"):
        engine.step([np.zeros((32, 32, 3), np.uint8)], [None], stages=2)
    assert engine.info.stages == 1


def test_export_makes_the_folders_of_its_output(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "small.onnx"
    assert main(["export", str(weights), "-o", str(out)]) == 0
    assert out.stat().st_size > 1000
