"""Every engine gives the frames and states of torch, keeps its cache safe, and can be replaced."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_raises

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.engines import Engine, _cache, _graph
from rain_removal_ros.engines import torch as torch_engine
from rain_removal_ros.engines._graph import GraphDescription
from rain_removal_ros.engines.export import export
from rain_removal_ros.errors import CheckpointError, EngineError
from rain_removal_ros.frames import Frame, Image
from rain_removal_ros.networks._base import Network
from rain_removal_ros.settings import EngineSettings, NetworkSettings, StreamSettings
from rain_removal_ros.stream import Stream

GREY_LEVELS = 1  # rounding may differ
STATE = 1e-3

NETWORKS: dict[str, dict[str, Any]] = {
    "rainstream": {"channels": 8, "blocks": 1},
    "prenet": {"channels": 8, "blocks": 1, "stages": 2},
    "rranet": {"channels": 4, "stages": 1, "begin_with": "previous"},
    "semi_multiscale": {"channels": 8, "units": 1},
    "deform_resnet": {"channels": 8, "bottleneck": 8, "blocks": 1},
    "frequency_gan": {"channels": 8, "blocks": 1, "stages": 1},
    "joint_derain_sr": {"channels": 8, "blocks": 1, "growth": 4},
}
EXPORTED = [each for each in NETWORKS if each != "joint_derain_sr"]


def network(name: str) -> Network:
    """A small network that changes its input; without noise some would nearly be the identity."""
    torch.manual_seed(0)
    made = networks.create(name, **NETWORKS.get(name, {}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made.eval()


def settings(name: str, cache: Path, **more: Any) -> EngineSettings:
    return EngineSettings(
        **{"name": name, "device": "cpu", "precision": "float32", "cache": str(cache), **more}
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(params=["onnxruntime", "openvino"])
def name(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


def installed(engine: str) -> str:
    for package in (engine, "onnx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return engine


def clip(width: int, height: int, *, seed: int = 0, frames: int = 3) -> list[Image]:
    """A scene with some detail, seen by a turning camera."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (height // 8 + 2, (width + 4 * frames) // 8 + 2, 3), np.uint8)
    scene = cells.repeat(8, 0).repeat(8, 1)
    return [
        np.ascontiguousarray(scene[:height, 4 * step : 4 * step + width]) for step in range(frames)
    ]


def arrays(state: Any) -> list[Any]:
    return [np.asarray(part.numpy() if hasattr(part, "numpy") else part) for part in state or ()]


def assert_alike(ours: Any, by_torch: Any) -> None:
    for image, wanted in ((ours.image, by_torch.image), (ours.attention, by_torch.attention)):
        assert image.shape == wanted.shape
        assert np.abs(image.astype(int) - wanted.astype(int)).max() <= GREY_LEVELS
    assert ours.rain_level == pytest.approx(by_torch.rain_level, abs=STATE)
    assert len(arrays(ours.state)) == len(arrays(by_torch.state))
    for part, wanted in zip(arrays(ours.state), arrays(by_torch.state), strict=True):
        np.testing.assert_allclose(part, wanted, atol=STATE)


@pytest.mark.parametrize("network_name", EXPORTED)
def test_frames_and_states_equal_those_of_torch_over_a_clip_with_a_reset(
    name: str, network_name: str, cache: Path
) -> None:
    ours = engines.create(network(network_name), settings(name, cache))
    by_torch = engines.create(network(network_name), settings("torch", cache))
    about = replace(by_torch.info, engine=name, any_stages=False)
    assert ours.info == about
    for frames in (clip(45, 39), clip(64, 32, seed=1)):  # another size starts afresh
        state: Any = None
        wanted_state: Any = None
        for frame in frames:
            (got,) = ours.step([frame], [state])
            (wanted,) = by_torch.step([frame], [wanted_state])
            assert_alike(got, wanted)
            state, wanted_state = got.state, wanted.state
    assert np.abs(wanted.image.astype(int) - frame).max() > 4  # the network changed the frame


def test_a_batch_of_two_equals_two_single_frames(name: str, cache: Path) -> None:
    engine = engines.create(network("rainstream"), settings(name, cache))
    left, right = clip(45, 39), clip(45, 39, seed=1)
    before = [engine.step([camera[0]], [None])[0].state for camera in (left, right)]
    together = engine.step([left[1], right[1]], before)
    for camera, state, result in zip((left, right), before, together, strict=True):
        (alone,) = engine.step([camera[1]], [state])
        assert np.array_equal(alone.image, result.image)


def test_a_step_does_not_change_its_state_and_frame(name: str, cache: Path) -> None:
    engine = engines.create(network("rainstream"), settings(name, cache))
    first, second, third = clip(64, 32)
    (start,) = engine.step([first], [None])
    kept = [part.copy() for part in arrays(start.state)]
    (once,) = engine.step([second], [start.state])
    engine.step([third], [once.state])
    (again,) = engine.step([second], [start.state])
    assert np.array_equal(once.image, again.image)
    for part, before in zip(arrays(start.state), kept, strict=True):
        assert np.array_equal(part, before)
    assert np.array_equal(second, clip(64, 32)[1])


def test_derained_frames_are_written_into_a_given_array_even_with_padded_rows(
    name: str, cache: Path
) -> None:
    engine = engines.create(network("rainstream"), settings(name, cache))
    (frame, *_) = clip(45, 39)
    (plain,) = engine.step([frame], [None])
    wide = np.zeros((39, 60, 3), np.uint8)
    for target in (np.zeros_like(frame), wide[:, :45]):
        (result,) = engine.step([frame], [None], attention=False, into=[target])
        assert result.image is target
        assert np.array_equal(target, plain.image)
        assert result.attention is None
    assert not wide[:, 45:].any()


def test_a_stream_can_change_the_frame_size(name: str, cache: Path) -> None:
    engine = engines.create(network("rainstream"), settings(name, cache))
    stream = Stream(engine, StreamSettings(scene_cut=0.0))
    steps = [
        stream.step(Frame(image, stamp))
        for stamp, image in enumerate([*clip(45, 39), *clip(33, 70)])
    ]
    assert [step.reset for step in steps] == ["start", None, None, "another size", None, None]
    assert steps[-1].frame.image.shape == (70, 33, 3)


@pytest.mark.parametrize("engine_name", engines.NAMES)
@pytest.mark.parametrize("network_name", ["prenet", "rainstream"])
def test_a_state_of_another_size_raises_and_the_engine_goes_on(
    engine_name: str, network_name: str, cache: Path
) -> None:
    engine = engines.create(network(network_name), settings(installed(engine_name), cache))
    for before, after in (((32, 32), (64, 64)), ((64, 64), (32, 32)), ((64, 32), (32, 64))):
        (other,) = engine.step([clip(*before)[0]], [None])
        with pytest.raises(EngineError, match=f"^{network_name} failed: [^\n]*$"):
            engine.step([clip(*after)[0]], [other.state])
        for size in (before, after):
            (alive,) = engine.step([clip(*size)[0]], [None])
            assert alive.image.shape == (size[1], size[0], 3)


def test_a_state_of_another_network_raises(name: str, cache: Path) -> None:
    frame = clip(32, 32)[:1]
    (other,) = engines.create(network("prenet"), settings(name, cache)).step(frame, [None])
    with pytest.raises(EngineError, match="rainstream failed: the state is of another"):
        engines.create(network("rainstream"), settings(name, cache)).step(frame, [other.state])


def test_non_finite_output_raises(name: str, cache: Path) -> None:
    engine = engines.create(network("prenet"), settings(name, cache))
    frame = clip(32, 32)[:1]
    (start,) = engine.step(frame, [None])
    spoilt = [np.full_like(part, np.nan) for part in arrays(start.state)]
    with pytest.raises(EngineError, match="prenet gave values that are not finite"):
        engine.step(frame, [spoilt])
    engine.step(frame, [start.state])


def test_weights_that_are_not_finite_are_not_exported() -> None:
    broken = network("prenet")
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    with pytest.raises(EngineError, match="prenet cannot be exported: it gives values that are"):
        export(broken)


def test_networks_can_be_exported_in_parallel() -> None:
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: export(network("prenet"))[1].stages, range(3)))
    assert done == [2, 2, 2]


def test_stages_can_be_changed(name: str, cache: Path) -> None:
    ours = engines.create(network("prenet"), settings(name, cache))
    by_torch = engines.create(network("prenet"), settings("torch", cache))
    frames = clip(32, 32)[:1]
    one, all_of_them = (ours.step(frames, [None], stages=stages)[0] for stages in (1, 0))
    assert_alike(one, by_torch.step(frames, [None], stages=1)[0])
    assert_alike(all_of_them, by_torch.step(frames, [None])[0])


def test_a_graph_for_each_number_of_stages_is_built_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines.create(network("prenet"), settings(name, tmp_path))
    frames = clip(32, 32)[:1]
    wanted = {}
    for stages in (2, 1):
        wanted[stages] = engine.step(frames, [None], stages=stages)[0].image
    assert not np.array_equal(wanted[1], wanted[2])
    monkeypatch.setattr(_cache, "_read", None)  # nothing is loaded from now on
    for stages in (2, 1, 2):
        again = engine.step(frames, [None], stages=stages)[0].image
        assert np.array_equal(again, wanted[stages])


def modification_times(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_a_graph_is_rebuilt_only_for_other_weights(name: str, tmp_path: Path) -> None:
    chosen = settings(name, tmp_path)
    engines.create(network("prenet"), chosen)
    built = modification_times(tmp_path)
    assert len(built) == 2
    engines.create(network("prenet"), chosen)
    assert modification_times(tmp_path) == built
    other = network("prenet")
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    engines.create(other, chosen)
    assert len(modification_times(tmp_path)) == 4


def test_a_graph_is_rebuilt_for_another_driver(tmp_path: Path) -> None:
    chosen = settings("onnxruntime", tmp_path)
    for driver in ("550", "550", "551"):
        described("prenet", chosen, device=f"cuda, {driver}")
    assert len(modification_times(tmp_path)) == 4


@pytest.mark.parametrize(
    "which", ["graph", "description", "channels", "missing", "nonsense", "sealed nonsense"]
)
def test_a_damaged_cache_is_rebuilt(
    name: str, which: str, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = clip(32, 32)[:1]
    (wanted,) = engines.create(network("prenet"), settings(name, cache)).step(frames, [None])
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    for graph in tmp_path.rglob(f"prenet-{name}-*.onnx"):
        damage(graph, which)
    chosen = settings(name, tmp_path)
    with caplog.at_level(logging.INFO):
        (got,) = engines.create(network("prenet"), chosen).step(frames, [None])
    assert "building" in caplog.text
    assert np.array_equal(got.image, wanted.image)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        engines.create(network("prenet"), chosen)
    assert "building" not in caplog.text


def damage(graph: Path, which: str) -> None:
    description = graph.with_suffix(".json")
    sealed = json.loads(description.read_text())
    if which == "channels":
        wrong = {**sealed, "graph": sealed["graph"].replace('"channels": 8', '"channels": 9')}
        assert wrong != sealed
        description.write_text(json.dumps(wrong))
    elif which == "sealed nonsense":  # a valid checksum of an invalid graph
        graph.write_bytes(b"no graph")
        checksum = _cache._checksum(b"no graph", sealed["graph"])
        description.write_text(json.dumps({**sealed, "sha256": checksum}))
    elif which == "graph":
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 0xFF
        graph.write_bytes(content)
    elif which == "missing":
        description.unlink()
    else:
        text = {"description": '{"sha256": "', "nonsense": "[1]"}[which]
        description.write_text(text)


def user_folder(cache: Path) -> Path:
    (folder,) = cache.iterdir()
    return folder


def test_only_the_user_can_access_the_cache(name: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        engines.create(network("prenet"), settings(name, tmp_path))
    finally:
        os.umask(before)
    assert user_folder(tmp_path).stat().st_mode & 0o777 == 0o700


def make_folder_writable(cache: Path) -> None:
    user_folder(cache).chmod(0o777)


def make_files_writable(cache: Path) -> None:
    for path in user_folder(cache).iterdir():
        path.chmod(0o666)


def change_owner(cache: Path) -> None:
    for path in user_folder(cache).iterdir():
        os.chown(path, 12345, 12345)


def replace_by_links(cache: Path) -> None:
    for path in user_folder(cache).iterdir():
        path.rename(cache / path.name)
        path.symlink_to(cache / path.name)


def replace_by_pipes(cache: Path) -> None:
    for path in user_folder(cache).iterdir():
        path.unlink()
        os.mkfifo(path)


@pytest.mark.parametrize(
    "tamper",
    [make_folder_writable, make_files_writable, change_owner, replace_by_links, replace_by_pipes],
)
def test_files_that_another_user_could_have_written_are_not_loaded(
    tamper: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if tamper is change_owner and os.geteuid():
        pytest.skip("only root gives files away")
    chosen = settings("onnxruntime", tmp_path)
    described("prenet", chosen)
    tamper(tmp_path)
    with caplog.at_level(logging.WARNING):
        described("prenet", chosen)
    assert "again: " in caplog.text
    if tamper is make_folder_writable:
        assert "the next start will build again" in caplog.text
        return
    caplog.clear()
    with caplog.at_level(logging.INFO):
        described("prenet", chosen)
    assert "building" not in caplog.text


@pytest.mark.parametrize("inside", ["", "below", "below/../deeper"])
def test_a_cache_in_the_folder_of_shipped_models_is_refused(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "share" / "rain_removal_ros" / "models"
    (models / "below").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    (tmp_path / "link").symlink_to(models)
    for folder in (models / inside, tmp_path / "link" / inside):
        with pytest.raises(EngineError, match="the folder of models that ship; choose another"):
            engines.create(network("prenet"), settings("onnxruntime", folder))
    assert modification_times(tmp_path) == {}


def test_an_engine_works_with_an_unwritable_cache(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    engine = engines.create(network("prenet"), settings(name, in_the_way))
    assert "the next start will build again" in caplog.text
    engine.step(clip(32, 32)[:1], [None])


def test_an_engine_that_is_not_installed_gives_a_one_line_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=f"^{name} is not installed: pip install {name}[^\n]*$"):
        engines.create(network("prenet"), settings(name, tmp_path))


def test_auto_builds_nothing(tmp_path: Path) -> None:
    engine = engines.create(network("rainstream"), settings("auto", tmp_path))
    assert engine.info.engine == "torch"
    assert not modification_times(tmp_path)


def weight_file(folder: Path) -> NetworkSettings:
    path = folder / "weights.safetensors"
    checkpoints.save(path, network("prenet"), {})
    return NetworkSettings(weights=str(path))


def try_engine(engine: Engine) -> None:
    engine.step(clip(32, 32)[:1], [None])


def test_an_engine_that_is_not_installed_is_replaced_by_torch_with_a_note(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, chosen = weight_file(tmp_path), settings(name, tmp_path)
    wanted = engines.load_somehow(weights, chosen, try_engine)
    assert (wanted.info.engine, wanted.note) == (name, "")
    monkeypatch.setitem(sys.modules, name, None)
    engine = engines.load_somehow(weights, chosen, try_engine)
    assert engine.info.engine == "torch"
    assert engine.note.startswith(f"running in torch on cpu instead: {name} is not installed")


def test_an_engine_that_fails_at_its_first_frame_is_replaced_by_torch(
    tmp_path: Path,
) -> None:
    def fails_but_in_torch(engine: Engine) -> None:
        if engine.info.engine != "torch":
            raise EngineError("no room for this frame")

    weights, chosen = weight_file(tmp_path), settings("onnxruntime", tmp_path)
    engine = engines.load_somehow(weights, chosen, fails_but_in_torch)
    assert engine.note == "running in torch on cpu instead: no room for this frame"


def test_an_engine_that_raises_any_error_is_replaced_by_torch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails_but_in_torch(engine: Engine) -> None:
        if engine.info.engine != "torch":
            raise onnxruntime_raises.NotImplemented("not implemented: Foo(17)")

    weights, chosen = weight_file(tmp_path), settings("onnxruntime", tmp_path)
    engine = engines.load_somehow(weights, chosen, fails_but_in_torch)
    assert engine.note == "running in torch on cpu instead: not implemented: Foo(17)"
    assert "Traceback" in caplog.text


def test_a_missing_weight_file_is_not_hidden_by_a_replacement(tmp_path: Path) -> None:
    wrong = NetworkSettings(weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        engines.load_somehow(wrong, settings("onnxruntime", tmp_path), try_engine)


def test_the_note_without_a_home_folder_says_what_to_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    chosen = EngineSettings(name=name, device="cpu")
    engine = engines.load_somehow(weight_file(tmp_path), chosen, try_engine)
    assert engine.info.engine == "torch"
    assert engine.note.endswith("set engine.cache")


def test_a_broken_gpu_is_replaced_by_the_cpu_unless_it_was_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime for GPUs silently drops a provider that it cannot start."""
    start = onnxruntime.InferenceSession
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda graph, options, **_: start(graph, options, providers=providers[1:]),
    )
    unusable = "onnxruntime could not start CUDAExecutionProvider and fell back to CPU"
    engine = engines.create(network("prenet"), settings("onnxruntime", tmp_path, device="auto"))
    assert engine.info.device == "cpu"
    assert engine.note.startswith(f"running on cpu instead: {unusable}")
    try_engine(engine)
    with pytest.raises(EngineError, match=unusable):
        engines.create(network("prenet"), settings("onnxruntime", tmp_path, device="cuda"))


@pytest.mark.parametrize(
    ("precision", "on_cpu"), [("float32", "float32"), ("float16", "auto"), ("bfloat16", "auto")]
)
def test_a_full_gpu_is_replaced_by_the_cpu_unless_it_was_requested(
    precision: str, on_cpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates a CUDA device that is available but has no memory left."""
    seen: list[tuple[str, str]] = []

    def create_without_gpu_memory(network: Network, settings: EngineSettings) -> Engine:
        seen.append((settings.device, settings.precision))
        if settings.device != "cpu":
            raise EngineError("out of memory on cuda at 64x48")
        return torch_engine.TorchEngine(network, settings)

    monkeypatch.setattr(engines, "create", create_without_gpu_memory)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    weights = weight_file(tmp_path)
    chosen = settings("torch", tmp_path, device="auto", precision=precision)
    engine = engines.load_somehow(weights, chosen, try_engine)
    assert seen == [("auto", precision), ("cpu", on_cpu)]
    assert engine.note == "running in torch on cpu instead: out of memory on cuda at 64x48"
    with pytest.raises(EngineError, match=r"^out of memory on cuda at 64x48$"):
        engines.load_somehow(weights, settings("torch", tmp_path, device="cuda"), try_engine)


def test_settings_that_an_engine_does_not_support_are_refused(cache: Path) -> None:
    for wrong in ({"precision": "bfloat16"}, {"device": "cuda:7"}, {"device": "tpu"}):
        with pytest.raises(EngineError):
            engines.create(network("prenet"), settings("onnxruntime", cache, **wrong))


@pytest.mark.parametrize("network_name", networks.available())
def test_every_network_can_be_exported_or_says_why_not(network_name: str, cache: Path) -> None:
    pytest.importorskip("onnx")
    if network(network_name).not_exportable:
        with pytest.raises(EngineError, match=f"^{network_name} cannot be exported: [^\n]+$"):
            export(network(network_name))
    else:
        facts = described(network_name, settings("onnxruntime", cache))
        assert facts.network == network_name
        assert facts.difference <= facts.tolerance


def test_the_error_for_a_network_that_cannot_be_exported_names_an_alternative() -> None:
    pytest.importorskip("onnx")
    with pytest.raises(EngineError, match=r"its patches grow .*; regions=none can be$"):
        export(network("joint_derain_sr"))
    _, facts = export(networks.create("joint_derain_sr", regions="none", channels=8, blocks=1))
    assert facts.scale == 2


def test_a_graph_that_cannot_be_checked_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")

    def refuse(*_: object, **__: object) -> None:
        raise onnxruntime_raises.NotImplemented("no such operator")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(EngineError, match="no such operator"):
        export(network("prenet"))


def test_export_finds_the_fresh_value_of_each_state(cache: Path) -> None:
    pytest.importorskip("onnx")
    chosen = settings("onnxruntime", cache)
    kinds = {
        network_name: [part.fresh for part in described(network_name, chosen).state]
        for network_name in EXPORTED
    }
    assert kinds == {
        "rainstream": ["frame", "zeros", "zeros", "zeros"],
        "prenet": ["zeros", "zeros"],
        "rranet": ["zeros"] * 8 + ["frame"],
        "semi_multiscale": [],
        "deform_resnet": ["zeros"],
        "frequency_gan": ["zeros", "zeros"],
    }


def described(network_name: str, chosen: EngineSettings, device: str = "cpu") -> GraphDescription:
    return _cache.started(
        lambda _, facts: facts,
        network(network_name),
        chosen,
        stages=0,
        engine=f"onnxruntime {onnxruntime.__version__}",
        device=device,
    )


def test_the_cache_lies_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = tmp_path / "rain_removal_ros" / "engines" / f"user-{os.geteuid()}"
    assert _graph.graph_folder(EngineSettings()) == own
