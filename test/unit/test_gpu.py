"""``scripts/gpu``: every piece runs (here on the CPU), and a failure affects only its own piece."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import re
import shutil
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    loader = SourceFileLoader("gpu", str(repository / "scripts/gpu"))
    spec = importlib.util.spec_from_loader("gpu", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module  # dataclasses look types up there
    loader.exec_module(module)
    return module


class Rehearsal:
    """The script on the CPU, with a page and results in a folder of the test."""

    def __init__(self, script: ModuleType, folder: Path) -> None:
        self._script = script
        self.results, self.page = folder / "gpu.json", folder / "gpu.md"
        self._work = folder / "work"
        self.page.write_text("# Title\n\n<!-- tables -->\n<!-- end of tables -->\n\nThe end.\n")

    def run(self, *arguments: str) -> int:
        files = ("--results", str(self.results), "--page", str(self.page))
        files += ("--work", str(self._work))
        code: int = self._script.main([*arguments, "--device", "cpu", "--small", *files])
        return code

    @property
    def found(self) -> dict[str, Any]:
        (found,) = json.loads(self.results.read_text()).values()
        return dict(found)


@pytest.fixture
def rehearsal(script: ModuleType, tmp_path: Path) -> Rehearsal:
    return Rehearsal(script, tmp_path)


def figures(rehearsal: Rehearsal, piece: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    # Calls of torch.compile run, but do not compile, which takes minutes on a CPU.
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    rehearsal.run(piece)
    record = rehearsal.found[piece]
    assert "figures" in record, record
    return record["figures"]


def test_the_tests_piece_runs_all_gpu_tests_and_reports_failures(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    found = figures(rehearsal, "tests", monkeypatch)
    marks = sum(
        path.read_text().count("\n@pytest.mark.gpu\n") for path in repository.glob("test/*/*.py")
    )
    assert found["tests"] >= marks > 0
    if not torch.cuda.is_available():
        assert len(found["not passed"]) == found["tests"]
        assert rehearsal.page.read_text().count("torch sees 0 CUDA devices") > 0


def test_the_agreement_piece_compares_precisions_with_float32(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = figures(rehearsal, "agreement", monkeypatch)
    rows = {row["way"]: row for row in found["rows"]}
    assert len(rows) == 7
    assert all(row["agrees"] for row in rows.values() if "error" not in row)
    assert rows["torch, float32"]["most"] == rows["torch, float32, on the CPU"]["most"] == 0
    assert 0 < rows["torch, bfloat16"]["mean"] < 1
    assert "| rainstream_s | torch, bfloat16 " in rehearsal.page.read_text()


@pytest.mark.parametrize(
    ("piece", "engine", "rows"),
    [("bench-48x32-1", "torch", 2), ("compiled-48x32", "torch, compiled", 1)],
)
def test_the_bench_pieces_time_networks(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, piece: str, engine: str, rows: int
) -> None:
    found = figures(rehearsal, piece, monkeypatch)
    assert len(found["rows"]) == rows
    assert not found["failures"]
    assert len(re.findall(rf"\| rainstream_s \| {engine} +\|", rehearsal.page.read_text())) == rows


def test_the_live_piece_runs_the_node(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy", reason="ROS is not installed")
    found = figures(rehearsal, "live-64x48", monkeypatch)
    assert found["run on"][0].startswith("cpu")
    assert "| 64x48, 15 Hz | rainstream_s " in rehearsal.page.read_text()


def test_the_train_piece_measures_speed_and_quality(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = figures(rehearsal, "train-1", monkeypatch)
    assert found["steps"] == 5
    assert found["steps a second"] > 0
    assert "held_out/psnr [dB]" in rehearsal.page.read_text()


def test_the_small_pieces_cover_every_kind_of_piece(script: ModuleType) -> None:
    small = script.pieces(script.SMALL, "cpu", Path("work"))
    assert {piece.name for piece in small} == {
        "tests", "agreement", "bench-48x32-1", "compiled-48x32", "live-64x48", "train-1",
    }  # fmt: skip
    full = script.pieces(script.Extent(), "cuda", Path("work"))
    kinds = {piece.name.partition("-")[0] for piece in full}
    assert kinds == {piece.name.partition("-")[0] for piece in small}
    assert len(full) == 2 + 4 * 3 + 2 + 2 + 4
    assert script.LIMIT_S < 9 * 60


WRITES = 'import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(\'{"results": {"n": 1}}\')'


def fake_piece(script: ModuleType, name: str, code: str) -> Any:
    return script.Piece(name, ("-c", code.replace("{", "{{").replace("}", "}}"), "{out}"),
                        script.read_results)  # fmt: skip


def test_a_failed_piece_stops_no_other_and_is_repeated_last(
    script: ModuleType, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    broken = fake_piece(script, "broken", "print('about to fail'); raise SystemExit('out of luck')")
    good, late = fake_piece(script, "good", WRITES), fake_piece(script, "late", WRITES)
    monkeypatch.setattr(script, "pieces", lambda *_: [broken, good])
    assert rehearsal.run() == 1
    assert rehearsal.found["broken"]["error"] == "out of luck"
    assert rehearsal.found["good"]["figures"] == {"n": 1}
    assert "- broken: out of luck" in rehearsal.page.read_text()
    assert rehearsal.page.read_text().endswith("<!-- end of tables -->\n\nThe end.\n")
    capsys.readouterr()
    monkeypatch.setattr(script, "pieces", lambda *_: [broken, good, late])
    assert rehearsal.run() == 1
    begun = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert begun == ["late", "broken"]
    monkeypatch.setattr(script, "pieces", lambda *_: [fake_piece(script, "broken", WRITES), good])
    assert rehearsal.run() == 0
    assert "out of luck" not in rehearsal.page.read_text()


def test_a_finished_piece_is_repeated_only_with_again(
    script: ModuleType, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(script, "pieces", lambda *_: [fake_piece(script, "good", WRITES)])
    for arguments, runs in (((), True), ((), False), (("--again",), True)):
        rehearsal.run(*arguments)
        assert ("good" in capsys.readouterr().out) == runs


def test_a_piece_that_takes_too_long_is_killed_with_its_children(
    script: ModuleType, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    child = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); time.sleep(600)"
    )
    code = (
        "import fcntl, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, {str(held)!r}]).wait()"
    )
    hanging, good = fake_piece(script, "hanging", code), fake_piece(script, "good", WRITES)
    monkeypatch.setattr(script, "pieces", lambda *_: [hanging, good])
    monkeypatch.setattr(script, "LIMIT_S", 3.0)
    assert rehearsal.run() == 1
    assert rehearsal.found["hanging"]["error"] == "not done in 3 s"
    assert "figures" in rehearsal.found["good"]
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the child that held it is gone


def test_a_piece_does_not_start_if_too_little_time_is_left(
    script: ModuleType, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(script, "pieces", lambda *_: [fake_piece(script, "good", WRITES)])
    assert rehearsal.run("--minutes", "0.5") == 0
    assert capsys.readouterr().out == "good: no time is left\n"
    assert not rehearsal.results.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_error_without_a_gpu_tells_how_to_rehearse(script: ModuleType, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.main(["--device", "cuda"])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "cuda cannot be used" in said[0]
    assert "--device cpu --small" in said[1]


def test_a_disagreement_is_reported_as_trouble(script: ModuleType) -> None:
    rows = [
        {"model": "m", "way": "float16", "agrees": False},
        {"model": "m", "way": "x", "error": "no"},
    ]
    found = {"agreement": {"figures": {"rows": rows}}}
    assert script.troubles(found) == ["m in float16 is not what it is in float32"]
    assert script.not_had(found) == ["x: no"]


def test_the_shipped_page_matches_the_shipped_results(
    script: ModuleType, repository: Path, tmp_path: Path
) -> None:
    page = Path(shutil.copy(repository / "docs/gpu.md", tmp_path))
    script.write_page(page, script.recorded(repository / "benchmarks/results/gpu.json"))
    assert page.read_text() == (repository / "docs/gpu.md").read_text()
