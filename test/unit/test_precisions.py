"""``scripts/precisions`` computes losses of engines correctly, and its int8 still derains."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from rain_removal_ros import engines, networks
from rain_removal_ros.engines import Derained
from rain_removal_ros.engines.export import export
from rain_removal_ros.metrics import psnr
from rain_removal_ros.settings import EngineSettings


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    loader = SourceFileLoader("precisions", str(repository / "scripts/precisions"))
    spec = importlib.util.spec_from_loader("precisions", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Brighter:
    """An engine that adds some grey levels, and as many more with each frame."""

    def __init__(self, levels: int) -> None:
        self._levels = levels

    def step(self, images: list[Any], states: list[Any], *, attention: bool) -> list[Derained]:
        off = (states[0] or 0) + self._levels
        return [Derained(images[0] + np.uint8(off), None, None, off)]


def test_losses_are_relative_to_the_first_engine_on_stills_and_clips(
    script: ModuleType,
) -> None:
    grey = np.full((16, 16, 3), 100, np.uint8)
    black = np.zeros_like(grey)
    # On stills the first is off by 101 levels and the second by 102; in a clip of two frames the
    # first is off by 101 and 102, the second by 102 and 104.
    made = {"first": Brighter(1), "second": Brighter(2)}
    stills = [([grey], [black]), ([grey], [black])]
    first, second = script.rows(
        made, {"first": 7.4, "second": 3.6}, stills, ([grey] * 2, [black] * 2)
    )
    assert first == ["first", "7", "0.00", "0.00", ""]
    still = 20 * np.log10(102 / 101)
    clip = 10 * np.log10(102 * 104 / 101 / 102)
    assert second == ["second", "4", f"{still:.2f}", f"{clip:.2f}", "48"]


def test_int8_stays_close_to_float32_over_a_clip(script: ModuleType) -> None:
    network = networks.create("rainstream", channels=8, blocks=1, alignment="none")
    graph, facts = export(network)
    nodes = onnx.load_from_string(graph).graph.node
    convolutions = [node.name for node in nodes if node.op_type == "Conv"]
    frames = list(np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8))
    reduced = script.in_int8(graph, facts, convolutions, [frames[:1], frames])
    whole = engines.create(network, EngineSettings(device="cpu", precision="float32", threads=1))
    pair = (script.cleaned(engine, frames)[-1] for engine in (reduced, whole))
    assert 30 < psnr(*pair) < 99
