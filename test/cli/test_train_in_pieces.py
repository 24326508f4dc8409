"""``scripts/train-in-pieces``: every call goes on where the last one stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/train-in-pieces"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """The script in a folder of its own, pairs to train on and to measure with, and two recipes."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    for folder in ("train", "rain800/test"):
        for kind, brightness in (("target", 100), ("input", 140)):
            path = tmp_path / "data" / folder / kind / "0.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), np.full((40, 48, 3), brightness, np.uint8))
    recipe = (
        "network: {name: prenet, channels: 4, blocks: 1, stages: 1}\n"
        "steps: 2\n"
        "device: cpu\n"
        "data: {crop: 16, batch: 2, workers: 0, sources: [{path: train}]}\n"
    )
    (tmp_path / "first.yaml").write_text(recipe)
    (tmp_path / "second.yaml").write_text(
        recipe + "init_from: runs/first/last.safetensors\nvalidation: [{path: train}]\n"
    )
    return tmp_path


def one_call(workplace: Path, *more: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["scripts/train-in-pieces", "data", "first.yaml", "second.yaml", *more],
        cwd=workplace, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
def test_recipes_are_trained_one_after_the_other_piece_by_piece(workplace: Path) -> None:
    one_step = ("--", "--max-minutes", "1e-9")
    said = one_call(workplace, *one_step)
    assert "runs/first: step 1 of 2, stopped" in said
    assert "second" not in said

    said = one_call(workplace, *one_step)
    assert "runs/first: step 2 of 2, done" in said
    assert "runs/second: step 1 of 2, stopped" in said
    assert "| rain800/test | " in said

    assert "runs/second: step 2 of 2, done" in one_call(workplace)
    said = one_call(workplace)
    assert "step" not in said
    assert "| first " in said
    assert "| second " in said


def test_without_a_recipe_it_says_how_it_is_used(workplace: Path) -> None:
    done = subprocess.run(
        [workplace / "scripts/train-in-pieces", "data"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "scripts/train-in-pieces [-m MINUTES] DATA RECIPE..." in done.stderr
