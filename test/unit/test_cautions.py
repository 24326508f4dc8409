"""Cautions are stored in weight files; they warn users and decide whether state is carried."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.cli import main
from rain_removal_ros.engines._graph import GraphDescription
from rain_removal_ros.engines.downscaled import DownscaledEngine
from rain_removal_ros.evaluation.cautions import cautions
from rain_removal_ros.frames import Frame
from rain_removal_ros.media.tiling import TiledEngine
from rain_removal_ros.networks._cautions import Cautions
from rain_removal_ros.settings import EngineSettings, NetworkSettings, StreamSettings
from rain_removal_ros.stream import Stream

COSTLY = Cautions(state="28.0 dB instead of 28.9 on drives")
CPU = EngineSettings(device="cpu", precision="float32")


def row(model: str, kind: str, name: str, **values: Any) -> dict[str, Any]:
    return {"model": model, "kind": kind, "set": name, **values}


def clips(model: str, name: str, *, none: float, carried: float) -> list[dict[str, Any]]:
    found = {"none": none, "carried": carried}
    return [row(model, "clips", name, state=s, psnr_y=value) for s, value in found.items()]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "prenet.safetensors"
    checkpoints.save(path, networks.create("prenet", channels=4, stages=1), {"steps": 7})
    return path


def test_adding_cautions_to_a_weight_file_keeps_its_weights_and_facts(weights: Path) -> None:
    before = checkpoints.load(weights)
    checkpoints.add_cautions(weights, COSTLY)
    after = checkpoints.load(weights)
    assert after.network.cautions == checkpoints.cautions_of(weights) == COSTLY
    assert after.checksum == before.checksum
    assert after.facts["steps"] == 7
    checkpoints.add_cautions(weights, Cautions())
    assert checkpoints.load(weights).facts == before.facts


@pytest.mark.parametrize("facts", [{}, {"cautions": 3}, {"cautions": {"state": ["a"], "harm": 1}}])
def test_malformed_cautions_are_ignored(facts: dict[str, Any]) -> None:
    assert Cautions.from_facts(facts) == Cautions()


def frames(stream: Stream, count: int = 3) -> list[np.ndarray]:
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    steps = [stream.step(Frame(picture, stamp_ns=n * 10**7)) for n in range(count)]
    return [step.frame.image for step in steps]


def test_state_with_a_caution_is_carried_only_if_the_settings_insist(weights: Path) -> None:
    checkpoints.add_cautions(weights, COSTLY)
    engine = engines.load(NetworkSettings(weights=str(weights)), CPU)
    afresh, insisting = Stream(engine), Stream(engine, StreamSettings(carry_state_always=True))
    assert not afresh.carries
    assert insisting.carries
    first, *others = frames(afresh)
    assert all(np.array_equal(first, other) for other in others)
    assert afresh.state is None
    frames(insisting)
    assert insisting.state is not None
    never = StreamSettings(carry_state=False, carry_state_always=True)
    assert not Stream(engine, never).carries


def test_state_is_carried_if_the_weights_have_no_cautions(weights: Path) -> None:
    assert Stream(engines.load(NetworkSettings(weights=str(weights)), CPU)).carries


def test_tiled_and_downscaled_engines_keep_the_cautions(weights: Path) -> None:
    checkpoints.add_cautions(weights, COSTLY)
    engine = engines.load(NetworkSettings(weights=str(weights)), CPU)
    assert TiledEngine(engine, side=256).info.cautions == COSTLY
    assert DownscaledEngine(engine, 2).info.cautions == COSTLY


def test_the_description_of_an_exported_graph_keeps_the_cautions() -> None:
    described = GraphDescription(
        "prenet", "0" * 64, 1, 1, 1, True, ("clean", "attention"), (), 17, 0.1, 0.0, cautions=COSTLY
    )
    assert GraphDescription.from_json(described.to_json()) == described
    older = json.loads(described.to_json())
    del older["cautions"]
    assert GraphDescription.from_json(json.dumps(older)).cautions == Cautions()


def test_the_image_command_prints_the_cautions_of_its_weights(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.add_cautions(weights, Cautions(harm="-0.24 dB on roadscene"))
    source = tmp_path / "rain.png"
    cv2.imwrite(str(source), np.zeros((16, 16, 3), np.uint8))
    main(["image", str(source), "--model", str(weights), "--output", str(tmp_path / "out.png")])
    said = capsys.readouterr().err
    assert f"{weights} makes some pictures worse: -0.24 dB on roadscene" in said


def test_cautions_follow_from_the_figures_of_an_evaluation() -> None:
    rows = [
        *clips("input", "highway", none=22.0, carried=22.0),
        *clips("worse", "highway", none=28.9, carried=28.0),
        *clips("worse", "drive", none=27.5, carried=27.6),
        *clips("better", "highway", none=28.0, carried=29.0),
        *clips("better", "drive", none=28.0, carried=27.5),
        row("worse", "pairs", "roadscene", gain_psnr_y=-0.24),
        row("worse", "pairs", "rain800", gain_psnr_y=2.0),
        row("better", "pairs", "roadscene", gain_psnr_y=0.0),
    ]
    found = cautions(rows)
    assert found["worse"] == Cautions(
        "28.0 dB instead of 28.9 on highway, 27.6 dB instead of 27.5 on drive",
        "-0.24 dB on roadscene",
    )
    assert found["better"] == Cautions()
    assert list(found) == ["worse", "better"]


def test_a_later_evaluation_of_a_set_replaces_an_earlier_one() -> None:
    rows = [
        row("model", "pairs", "roadscene", gain_psnr_y=-0.2),
        row("model", "pairs", "roadscene", gain_psnr_y=0.2),
    ]
    assert cautions(rows)["model"] == Cautions()


def test_a_card_repeats_the_cautions_of_its_weight_file(repository: Path, weights: Path) -> None:
    on_card = runpy.run_path(str(repository / "scripts" / "cautions"))["on_card"]
    card = "# prenet\n\n| | |\n|---|---|\n| SHA-256 of the file | `old` |\n\n## Measured\n"
    warned = on_card(card, COSTLY, weights)
    assert warned.count("| caution | prenet is worse with its state carried: 28.0 dB") == 1
    assert "`old`" not in warned
    assert on_card(warned, COSTLY, weights) == warned
    assert "caution" not in on_card(warned, Cautions(), weights)


def test_every_shipped_card_repeats_the_cautions_of_its_weights(repository: Path) -> None:
    for path in checkpoints.shipped():
        if path.parent == repository / "models":
            said = [
                f"| caution | {line} |" for line in checkpoints.cautions_of(path).lines(path.stem)
            ]
            card = path.with_suffix(".md").read_text()
            assert [line for line in card.splitlines() if line.startswith("| caution |")] == said
