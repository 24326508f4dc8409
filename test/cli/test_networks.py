"""``rain-removal networks`` lists networks; ``rain-removal import`` reads published weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from without_torch import without_torch

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.cli import main
from rain_removal_ros.networks import _described
from rain_removal_ros.networks._cost import macs
from rain_removal_ros.runtime import native


def test_every_network_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["networks", "--json", str(tmp_path / "out.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(networks.available()) + 1]] == (
        networks.available()
    )
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["manifest"]["torch"] == str(torch.__version__)
    by_name = {row["network"]: row for row in written["results"]}
    assert sorted(by_name) == networks.available()
    # As published: 168,963 parameters.
    assert by_name["prenet"]["parameters"] == 168963
    assert by_name["prenet"]["recurrent"] is True


def test_the_list_fits_a_terminal_and_needs_no_torch(tmp_path: Path) -> None:
    """The list should appear within a second; importing torch can take longer."""
    listed = subprocess.run(
        [sys.executable, "-m", "rain_removal_ros", "networks"],
        env={**os.environ, **without_torch(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert max(map(len, listed.splitlines())) <= 100
    assert {name: name in listed for name in networks.available()} == dict.fromkeys(
        networks.available(), True
    )


def test_a_network_without_stored_facts_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_described, "FILE", tmp_path / "described.json")
    _described.FILE.write_text("{}")
    assert _described.describe("prenet")["parameters"] == 168963


def test_networks_reports_a_missing_c_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for library, said in ((object(), 0), (None, 1)):
        monkeypatch.setattr(native, "library", library)
        assert main(["networks"]) == 0
        assert capsys.readouterr().out.count("built without its C code") == said


def test_cost_is_counted_over_the_padded_frame_and_all_stages() -> None:
    one, three = (networks.create("prenet", stages=stages) for stages in (1, 3))
    # 6 to 32, then a ConvLSTM's 4 gates of 64 to 32, 10 convolutions of 32 to 32, 32 to 3; 3x3 all.
    weights = 9 * (6 * 32 + 4 * 64 * 32 + 10 * 32 * 32 + 32 * 3)
    assert macs(one, width=20, height=10) == 20 * 10 * weights
    assert macs(three, width=20, height=10) == 3 * 20 * 10 * weights


def test_counting_does_not_change_the_network() -> None:
    network = networks.create("prenet", stages=1)
    macs(network, width=8, height=8)
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    assert network.training


def test_an_unwritable_output_gives_a_one_line_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "out.json"
    with pytest.raises(SystemExit, match="2"):
        main(["networks", "--json", str(inside)])
    message = capsys.readouterr().err
    assert f"cannot write {inside}: {tmp_path / 'file'} is not a folder" in message
    assert message.count("\n") == 1


def test_imported_weights_give_the_same_output(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = shared_data / "peers" / "prenet_rain100l.pth"
    ours = tmp_path / "prenet.safetensors"
    assert main(["import", str(published), "--network", "prenet", "-o", str(ours)]) == 0
    loaded = checkpoints.load(ours)
    assert loaded.checksum in capsys.readouterr().out
    assert loaded.facts == {"imported_from": "prenet_rain100l.pth"}
    frame = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = checkpoints.import_published(published, "prenet")(frame).derained
        assert torch.equal(loaded.network(frame).derained, expected)


def test_importing_a_file_with_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "was_run"),)

    torch.save({"weight": Payload()}, tmp_path / "evil.pth")
    out = tmp_path / "out.safetensors"
    assert main(["import", str(tmp_path / "evil.pth"), "--network", "prenet", "-o", str(out)]) == 2
    assert "not a plain file of weights" in capsys.readouterr().err
    assert not out.exists()
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("file", "network", "message"),
    [
        ("missing.pth", "prenet", "missing.pth"),
        ("weights.pth", "prnet", "no network is called 'prnet'"),
        ("weights.pth", "rranet", "no published weights are known for rranet"),
        ("weights.pth", "prenet", "does not have weights of prenet"),
    ],
)
def test_a_failed_import_gives_a_one_line_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    network: str,
    message: str,
) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pth")
    out = tmp_path / "out.safetensors"
    assert main(["import", str(tmp_path / file), "--network", network, "-o", str(out)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not out.exists()
