"""``scripts/papers`` shows only figures that were measured with the current weights."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rain_removal_ros import checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("papers", str(REPOSITORY / "scripts/papers"))
    spec = importlib.util.spec_from_loader("papers", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "papers", module)  # dataclasses look up types there
    loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def write(script: ModuleType, *, images: int = 100, sha256: str | None = None) -> None:
    path = checkpoints.find("rranet")
    assert path is not None
    row: dict[str, Any] = {"images": images, "psnr_y": 25.24, "ssim_y": 0.8645, "gain_psnr_y": 2.65}
    untouched = {"model": "input", "images": images, "psnr_y": 22.59, "ssim_y": 0.69}
    models = [{"sha256": sha256 or checkpoints.load(path).checksum}]
    results = {
        "manifest": {"models": models},
        "results": [untouched, {"model": "rranet", **row}],
    }
    script.kept("rranet", "Rain800").write_text(json.dumps(results))


def shown(script: ModuleType, name: str = "Rain800") -> list[str]:
    return next(row[2:] for row in script.table().rows if row[:2] == ["rranet", name])


def test_without_results_every_row_says_why_it_is_empty(script: ModuleType) -> None:
    for row in script.table().rows:
        assert row[3] in ("not measured", "set not available")
        assert row[4:] == ["", "", ""]
    assert shown(script, "SPA-Data")[1] == "set not available"


def test_measured_figures_stand_beside_those_of_the_paper(script: ModuleType) -> None:
    write(script)
    assert shown(script) == ["29.46 / 0.908", "25.24 / 0.865", "+2.65", "22.59 / 0.690", "100"]


def test_figures_of_other_weights_or_of_fewer_pictures_are_not_shown(script: ModuleType) -> None:
    write(script, sha256="0" * 64)
    assert shown(script)[1:] == ["not measured with these weights", "", "", ""]
    write(script, images=12)
    assert shown(script)[1:] == ["measured on 12 of 100 pictures only", "", "", ""]


def test_the_page_has_the_current_table(repository: Path) -> None:
    loader = SourceFileLoader("papers_as_they_are", str(repository / "scripts/papers"))
    spec = importlib.util.spec_from_loader("papers_as_they_are", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["papers_as_they_are"] = module
    loader.exec_module(module)
    assert module.table().markdown() in (repository / "docs/papers.md").read_text()
