"""``rain-removal bench`` measures every requested case in limited time."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rain_removal_ros import benchmark, checkpoints, engines, networks
from rain_removal_ros.benchmark import Case, Effort
from rain_removal_ros.cli import main
from rain_removal_ros.engines import Derained, EngineInfo
from rain_removal_ros.errors import EngineError
from rain_removal_ros.networks._base import Network
from rain_removal_ros.networks._cost import macs, parameters
from rain_removal_ros.settings import Settings, entries


def case(**changes: Any) -> Case:
    usual = {
        "network": "prenet",
        "weights": "",
        "model": "prenet",
        "engine": "torch",
        "device": "cpu",
        "precision": "float32",
        "stages": 1,
        "width": 32,
        "height": 24,
        "cameras": 1,
    }
    return Case(**{**usual, **changes})


def test_bench_writes_its_measurements_and_reports_what_failed(tmp_path: Path, capsys: Any) -> None:
    arguments = ["--model", "prenet", "--size", "32x24", "--stages", "2", "--cameras", "3"]
    how = ["--precision", "bfloat16", "--repeat", "3", "--untrained", "--threads", "1"]
    where = ["--device", "quantum", "cpu"]
    out = tmp_path / "out.json"
    assert main(["bench", *arguments, *how, *where, "--json", str(out)]) == 1
    written = json.loads(out.read_text())
    assert written["manifest"]["package"] == "rain_removal_ros"
    (row,) = written["results"]
    assert (row["network"], row["engine"], row["device"]) == ("prenet", "torch", "cpu")
    assert (row["width"], row["height"], row["precision"]) == (32, 24, "bfloat16")
    assert (row["stages"], row["cameras"], row["repetitions"]) == (2, 3, 3)
    assert (row["threads"], written["manifest"]["threads"]) == (1, 1)
    assert 0 < row["ms_median"] <= row["ms_p95"]
    network = networks.create("prenet", stages=2)
    assert row["gmacs"] == pytest.approx(macs(network, width=32, height=24) / 1e9, abs=1e-3)
    assert row["parameters"] == parameters(network) == 168963
    assert row["weights"] is None
    assert 2**20 < row["peak_bytes"] < 2**30
    assert [failure["device"] for failure in written["failures"]] == ["quantum"]
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["network", "prenet"]
    assert "no device is called 'quantum'" in printed.err


def test_every_combination_is_measured() -> None:
    found = benchmark.cases(
        ["prenet"], sizes=[(32, 24), (64, 48)], precisions=["float32", "bfloat16"]
    )
    assert [(case.width, case.height, case.precision) for case in found] == [
        (32, 24, "float32"),
        (32, 24, "bfloat16"),
        (64, 48, "float32"),
        (64, 48, "bfloat16"),
    ]


def with_published_names(prenet: Network) -> dict[str, Tensor]:
    """The weights under the names that PReNet's authors use."""
    ours = prenet.state_dict()
    names = {"head": "conv0.0", "tail": "conv.0"}
    for block in range(prenet.config.blocks):
        names[f"blocks.{block}.first"] = f"res_conv{block + 1}.0"
        names[f"blocks.{block}.second"] = f"res_conv{block + 1}.2"
    theirs: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        theirs |= {f"{named}.{kind}": ours[f"{name}.{kind}"] for name, named in names.items()}
        for gate, part in zip("ifog", ours[f"lstm.gates.{kind}"].chunk(4), strict=True):
            theirs[f"conv_{gate}.0.{kind}"] = part
    return theirs


def test_table_and_plot_compare_engines_and_imported_weights(tmp_path: Path, capsys: Any) -> None:
    network = networks.create("prenet", channels=4, stages=1)
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    checkpoints.save(ours, network, {})
    torch.save(with_published_names(network), theirs)
    out, plot = tmp_path / "out.json", tmp_path / "plot.svg"
    arguments = ["--model", f"{ours},prenet:{theirs}", "--size", "32x24,48x32"]
    how = ["--engine", "torch,onnxruntime", "--stages", "1", "--repeat", "1"]
    assert main(["bench", *arguments, *how, "--json", str(out), "--plot", str(plot)]) == 0
    capsys.readouterr()
    rows = json.loads(out.read_text())["results"]
    assert [(row["model"], row["engine"], row["width"]) for row in rows] == [
        (model, engine, width)
        for width in (32, 48)
        for model in ("ours", "theirs")
        for engine in ("torch", "onnxruntime")
    ]
    drawn = ElementTree.fromstring(plot.read_text()).itertext()
    assert {"ours", "theirs"} == {text.partition(", ")[0] for text in drawn if ", torch, " in text}


def test_a_case_that_does_not_fit_into_memory_is_not_run() -> None:
    """Otherwise the system would kill some process, not necessarily this one."""
    huge = case(width=100_000, height=100_000)
    measured, ((failed, reason),) = benchmark.measure([huge], Effort(repeat=1))
    assert (measured, failed) == ([], huge)
    assert "GiB may be used" in reason


class FakeEngine:
    """An engine that fails at its step number ``fails_at``."""

    def __init__(self, *, name: str = "torch", device: str = "cpu", fails_at: int = 99) -> None:
        self.info = EngineInfo("prenet", name, device, "float32")
        self._fails_at = fails_at

    def step(self, images: list[Any], states: list[Any]) -> list[Any]:
        self._fails_at -= 1
        if not self._fails_at:
            raise RuntimeError("out of memory")  # not an EngineError
        return [Derained(image, None, None, None) for image in images]


@pytest.mark.parametrize("fails_at", [0, 1, 5], ids=["loading", "first frame", "third round"])
def test_a_failing_case_does_not_affect_the_others(
    monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Cases are first measured alone, where this one fits; it fails later, in turns with others."""

    def load(wanted: Case) -> tuple[Any, float, int, None]:
        if wanted.engine != "openvino":
            return FakeEngine(), 1.0, 1, None
        if not fails_at:
            raise EngineError("out of memory")
        return FakeEngine(fails_at=fails_at), 1.0, 1, None

    monkeypatch.setattr(benchmark, "_in_a_new_process", lambda wanted: 5)
    monkeypatch.setattr(benchmark, "_load", load)
    before, failing, after, larger = wanted = [
        case(),
        case(engine="openvino"),
        case(engine="onnxruntime"),
        case(width=64),
    ]
    measured, failures = benchmark.measure(wanted, Effort(repeat=4))
    assert failures == [(failing, "out of memory")]
    assert [row.width for row in measured] == [before.width, after.width, larger.width]
    assert {(row.repetitions, row.peak_bytes) for row in measured} == {(4, 5)}


@pytest.mark.parametrize(("engine", "peak"), [("torch", 7 * 2**20), ("onnxruntime", None)])
def test_gpu_memory_is_reported_for_torch_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, engine: str, peak: int | None
) -> None:
    """Torch does not know what other engines allocate, so its figure would be far too small."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 * 2**20)
    fake = FakeEngine(name=engine, device="cuda")
    monkeypatch.setattr(benchmark, "_load", lambda wanted: (fake, 1.0, 1, None))
    monkeypatch.setattr(benchmark, "_in_a_new_process", benchmark._peak)
    out = tmp_path / "out.json"
    assert main(["bench", "--model", "prenet", "--untrained", "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["results"]
    assert (row["engine"], row["peak_bytes"]) == (engine, peak)
    assert capsys.readouterr().out.split()[-1] == ("7" if peak else "-")


def test_the_choices_of_engine_name_are_all_engines() -> None:
    (choices,) = (
        entry.described.choices for entry in entries(Settings) if entry.name == "engine.name"
    )
    assert set(choices) == {"auto", *engines.NAMES}


@pytest.mark.parametrize(
    "arguments",
    [["--size", "large"], ["--size", "0x5"], ["--repeat", "0"], ["--cameras", "none"]],
    ids=" ".join,
)
def test_a_wrong_flag_gives_a_one_line_error(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *arguments])
    assert capsys.readouterr().err.count("\n") == 1


def test_the_error_for_an_unknown_network_names_similar_ones(capsys: Any) -> None:
    assert main(["bench", "--model", "prnet"]) == 2
    assert "no network is called 'prnet'; there are prenet" in capsys.readouterr().err


def test_a_network_without_stages_is_measured_once() -> None:
    found = benchmark.cases(["prenet", "semi_multiscale"], stages=[1, 6])
    assert [(case.network, case.stages) for case in found] == [
        ("prenet", 1),
        ("prenet", 6),
        ("semi_multiscale", 0),
    ]


def test_a_larger_case_is_measured_less_often_and_takes_more_memory() -> None:
    """The cases take turns, and the large one uses up its time first."""
    small, large = case(), case(width=320, height=240, stages=6)
    (few, many), failures = benchmark.measure([large, small], Effort(repeat=30, seconds=0.2))
    assert not failures
    assert few.repetitions < many.repetitions <= 30
    assert few.ms_median > many.ms_median
    assert few.peak_bytes is not None
    assert many.peak_bytes is not None
    # They differ at least by the tensors of the larger pass; libraries take the same in both.
    held = 1000 * 320 * 240
    assert held < few.peak_bytes - many.peak_bytes < 5 * held
