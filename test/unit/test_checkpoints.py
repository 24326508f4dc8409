"""A weight file names its network and settings; a damaged or foreign file gives one clear error."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.errors import CheckpointError, SettingsError
from rain_removal_ros.networks._base import Network
from rain_removal_ros.runtime.files import model_folders
from rain_removal_ros.settings import NetworkSettings


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return networks.create("prenet", channels=4, stages=3)


@pytest.fixture
def path(network: Network, tmp_path: Path) -> Path:
    path = tmp_path / "prenet.safetensors"
    checkpoints.save(path, network, {"steps": 7, "data": ["a", "b"]})
    return path


def header_of(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata())


def rewrite(path: Path, **changes: str | None) -> None:
    """Replaces entries of the header and keeps the weights; None removes an entry."""
    with safe_open(str(path), framework="pt") as file:
        header = {key: value for key, value in {**file.metadata(), **changes}.items() if value}
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(weights, str(path), header)


def test_loading_restores_what_was_saved(path: Path, network: Network) -> None:
    loaded = checkpoints.load(path)
    assert loaded.name == "prenet"
    assert loaded.facts == {"steps": 7, "data": ["a", "b"]}
    assert loaded.network.config == network.config
    assert loaded.network.stages == 3
    assert not loaded.network.training
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value)
    assert checkpoints.name_of(path) == "prenet"


def test_the_checksum_depends_on_the_weights_alone(network: Network, tmp_path: Path) -> None:
    first = checkpoints.save(tmp_path / "a.safetensors", network, {"steps": 1})
    assert checkpoints.save(tmp_path / "b.safetensors", network, {"steps": 2}) == first
    assert checkpoints.load(tmp_path / "b.safetensors").checksum == first
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-6
    assert checkpoints.save(tmp_path / "c.safetensors", network, {"steps": 1}) != first


def test_a_renamed_file_keeps_its_network(path: Path) -> None:
    renamed = path.rename(path.with_name("rranet.safetensors"))
    assert checkpoints.load(renamed).name == "prenet"


def test_a_flipped_bit_is_detected(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged: its weights do not match"):
        checkpoints.load(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_file_gives_a_one_line_error(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for read in (checkpoints.load, checkpoints.name_of):
        with pytest.raises(CheckpointError, match="is not a whole safetensors file") as raised:
            read(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "data", [b"hello", os.urandom(512), struct.pack("<Q", 2**60) + b"{}"], ids=range(3)
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        checkpoints.load(path)


def test_a_safetensors_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, str(path))
    with pytest.raises(CheckpointError, match="is not a weight file of this package; published"):
        checkpoints.load(path)
    with pytest.raises(CheckpointError, match="is not a weight file of this package"):
        checkpoints.name_of(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "nonesuch"}, "does not fit this version's nonesuch: no network is called"),
        ({"network": "rranet"}, "does not fit this version's rranet"),
        ({"config": json.dumps({"channels": 8})}, "does not fit this version's prenet"),
        ({"config": json.dumps({"chanels": 4})}, "prenet has no setting 'chanels'"),
        ({"network": None}, "does not say its network"),
        ({"config": None}, "does not say its config"),
        ({"facts": None}, "does not say its facts"),
        ({"config": "[" * 10_000}, "its config cannot be read: it is nested too deeply"),
        ({"config": "[1]"}, "its config is not a table"),
        ({"facts": "1" * 5000}, "its facts cannot be read"),
        ({"config": json.dumps({"channels": "4"})}, "channels is integer, not '4'"),
        ({"config": json.dumps({"blocks": 1_000_000})}, "blocks of prenet is from 0 to 10000"),
        ({"config": json.dumps({"stages": 1000})}, "stages of prenet is from 0 to 32"),
        ({"config": json.dumps({"channels": 9_999})}, "does not fit this version's prenet"),
        ({"config": json.dumps({"channels": 3_000})}, "more than 250 million parameters"),
    ],
)
def test_a_header_that_does_not_match_its_weights_gives_a_one_line_error(
    path: Path, changes: dict[str, str | None], message: str
) -> None:
    rewrite(path, **changes)
    with pytest.raises(CheckpointError) as raised:
        checkpoints.load(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no weight file"):
        checkpoints.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot read|is not a whole"):
        checkpoints.load(tmp_path)


def test_a_failed_save_leaves_no_file_behind(network: Network, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in_the_way").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        checkpoints.save(tmp_path / "folder", network, {})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(CheckpointError, match="cannot write"):
        checkpoints.save(tmp_path / "folder" / "in_the_way" / "x.safetensors", network, {})


def test_saving_again_replaces_the_file(path: Path, network: Network) -> None:
    checkpoints.save(path, network, {"steps": 8})
    assert checkpoints.load(path).facts == {"steps": 8}
    assert [each.name for each in path.parent.iterdir()] == [path.name]


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("wrapped", [False, True])
def test_code_in_a_published_file_is_refused_and_not_run(tmp_path: Path, *, wrapped: bool) -> None:
    evil, trace = tmp_path / "evil.pth", tmp_path / "was_run"
    content: Any = {"conv0.0.weight": Payload(trace)}
    torch.save({"state_dict": content} if wrapped else content, evil)
    with pytest.raises(CheckpointError, match="not a plain file of weights; nothing in it was run"):
        checkpoints.import_published(evil, "prenet")
    assert not trace.exists()
    # The threat is real: the usual way to read such a file runs the code.
    torch.load(evil, weights_only=False)
    assert trace.exists()


def test_a_weight_file_is_never_unpickled(tmp_path: Path) -> None:
    evil, trace = tmp_path / "evil.safetensors", tmp_path / "was_run"
    torch.save({"weight": Payload(trace)}, evil)
    with pytest.raises(CheckpointError):
        checkpoints.load(evil)
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"state_dict": {"a": "b"}}], ids=str)
def test_a_published_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="has no table of weights"):
        checkpoints.import_published(tmp_path / "odd.pth", "prenet")


def test_shipped_weights_are_found_by_name_and_by_path(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "share" / "rain_removal_ros" / "models"
    checkpoints.save(models / "prenet.safetensors", network, {})
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert models in model_folders()
    found = checkpoints.resolve("prenet")
    assert found.name == "prenet.safetensors"
    assert checkpoints.resolve(str(models / "prenet.safetensors")) == models / "prenet.safetensors"
    assert checkpoints.resolve("auto").suffix == ".safetensors"


def test_a_wrong_name_and_a_missing_file_give_different_errors() -> None:
    with pytest.raises(SettingsError, match="no network is called 'prnet'; there are prenet"):
        checkpoints.resolve("prnet")
    with pytest.raises(CheckpointError, match=r"there is no weight file prnet\.safetensors"):
        checkpoints.resolve("prnet.safetensors")


def test_each_size_of_a_network_ships_under_its_own_name() -> None:
    names = [path.stem for path in checkpoints.shipped()]
    assert {"rainstream", "rainstream_s", "rainstream_l", *networks.available()} <= set(names)
    channels = [
        checkpoints.choose(NetworkSettings(name=name))[1].network.config.channels
        for name in ("rainstream_s", "rainstream", "rainstream_l")
    ]
    assert channels == sorted(set(channels))


def test_a_name_too_long_for_the_file_system_counts_as_missing() -> None:
    with pytest.raises(SettingsError, match="no network is called 'aaa"):
        checkpoints.resolve("a" * 300)
    with pytest.raises(CheckpointError, match="there is no weight file aaa"):
        checkpoints.resolve("a" * 300 + ".safetensors")


def test_published_weights_with_huge_shapes_are_refused(tmp_path: Path) -> None:
    """An expanded tensor stores a single number, so a small file can claim a huge shape."""
    weights = networks.create("prenet").state_dict()
    weights["conv0.0.weight"] = torch.zeros(1).expand(5000, 6, 3, 3)
    weights["head.bias"] = torch.zeros(1).expand(5000)
    torch.save(weights, tmp_path / "giant.pth")
    with pytest.raises(CheckpointError, match="does not have weights of prenet"):
        checkpoints.import_published(tmp_path / "giant.pth", "prenet")


def test_weights_stored_as_float16_are_float32_again(tmp_path: Path) -> None:
    network = networks.create("prenet", channels=4, blocks=1, stages=1)
    path = tmp_path / "half.safetensors"
    checkpoints.save(path, network.half(), {})
    loaded, stored = checkpoints.load(path).network.state_dict(), checkpoints.read(path).arrays
    for name, weight in network.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert loaded[name].equal(weight.float())
        assert stored[name].dtype == np.float32
        assert np.array_equal(stored[name], weight.float().numpy())
