"""``rain-removal train``: recipes, overrides, output and errors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rain_removal_ros import checkpoints
from rain_removal_ros.cli import main


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Four pairs, and a recipe that trains on them for four steps."""
    rng = np.random.default_rng(0)
    for number in range(4):
        reference = cv2.resize(rng.integers(0, 200, (4, 4, 3), dtype=np.uint8), (48, 40))
        for folder, picture in (("target", reference), ("input", reference + 20)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "data" / folder / f"{number}.png"), picture)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "network: {name: prenet, channels: 4, blocks: 1}\n"
        "steps: 4\n"
        "data: {crop: 16, batch: 2, workers: 0, sources: [{path: .}]}\n"
        "validation: [{name: all, path: ., limit: 2}]\n"
    )
    return path


def train(recipe: Path, *flags: str) -> int:
    folder = recipe.parent
    return main(
        ["train", "--config", str(recipe), "--data-root", str(folder / "data"),
         "--run", str(folder / "run"), "--device", "cpu", *flags]
    )  # fmt: skip


def test_train_stops_at_its_time_limit_and_resumes(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recipe.parent / "run"
    assert train(recipe, "--max-minutes", "1e-9", "--set", "network.stages=2") == 0
    assert capsys.readouterr().out == (
        f"step 1 of 4, stopped; the same command continues; all is in {run}\n"
    )
    assert train(recipe, "--set", "network.stages=2") == 0
    out, err = capsys.readouterr()
    assert out == f"step 4 of 4, done; all is in {run}\n"
    assert "step 4  all: " in err
    best = checkpoints.load(run / "best.safetensors")
    assert (best.name, best.network.stages) == ("prenet", 2)
    assert best.facts["steps"] == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "optimiser.raet=1"], "unknown setting 'optimiser.raet'; near: optimiser.rate"),
        (["--set", "steps=few"], "steps is integer, not 'few'"),
        (["--set", "seed"], "an override is NAME=VALUE, not 'seed'"),
        (["--set", "network.channels=1000000000"], "channels of prenet is from 0 to 10000"),
        (["--set", "network.channels=1e9"], "prenet: channels is integer, not '1e9'"),
        (["--set", "network.channels=2026-01-01"], "prenet: channels is integer, not '2026-01-01'"),
        (["--set", "network.channels=0"], "prenet cannot be built"),
        (["--set", "steps=" + "[" * 5000], "the value of steps is not YAML"),
        (["--set", "network.chanels=8"], "prenet has no setting 'chanels'; it has channels"),
        (["--set", "data.crop=64"], "48x40, smaller than the crop of 64x64"),
        (["--set", "data.textures=nowhere"], "no folder of streak textures"),
        (["--data-root", "/nowhere"], "/nowhere does not exist"),
        (["--set", "precision=float16"], "float16 trains on CUDA only"),
        (["--set", "init_from=gone.safetensors"], "there is no weight file gone.safetensors"),
    ],
)
def test_a_wrong_argument_gives_a_one_line_error_and_exit_code_2(
    recipe: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert train(recipe, *flags) == 2
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("left out: ")
    ]
    assert line.startswith("rain-removal train: ")
    assert message in line


def test_a_missing_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_shipped_recipe_is_found_by_its_name(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(recipe.parent / "nowhere")
    assert main(["train", "rainstream_s", "--data-root", nowhere, "--run", nowhere + "_run"]) == 2
    assert f"{nowhere}/rain800/train does not exist" in capsys.readouterr().err
    flags = ["--data-root", str(recipe.parent / "data"), "--run", str(recipe.parent / "run")]
    assert main(["train", str(recipe), *flags, "--device", "cpu", "--steps", "1"]) == 0
    assert "step 1 of 1, done" in capsys.readouterr().out
