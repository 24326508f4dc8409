"""``scripts/ablations``: its recipes are valid, and its figures are right."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rain_removal_ros import networks
from rain_removal_ros.training import load_recipe

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("ablations", str(REPOSITORY / "scripts/ablations"))
    spec = importlib.util.spec_from_loader("ablations", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module  # dataclasses look types up there
    loader.exec_module(module)
    return module


def test_every_variant_of_a_study_is_a_different_valid_recipe(script: ModuleType) -> None:
    for study in script.STUDIES.values():
        path = REPOSITORY / "config/train" / f"{study.recipe}.yaml"
        recipes = [load_recipe(path, variant) for variant in study.variants.values()]
        assert all(first != other for first, other in itertools.combinations(recipes, 2))
        for recipe in recipes:
            networks.create(**recipe.network)


def test_no_study_trains_on_its_held_out_data(script: ModuleType) -> None:
    held_out = {settings.path: settings.only_every for settings in script.HELD_OUT.values()}
    for study in script.STUDIES.values():
        recipe = load_recipe(REPOSITORY / "config/train" / f"{study.recipe}.yaml")
        for source in recipe.data.sources:
            assert source.path not in held_out or source.skip_every == held_out[source.path] > 0
            assert source.path != "video"  # the held-out video is in that folder


def test_a_constant_error_lowers_psnr_and_adds_no_flicker(script: ModuleType) -> None:
    reference = np.random.default_rng(0).integers(0, 200, (3, 16, 16, 3), dtype=np.uint8)
    even = script.scores([reference + np.uint8(20)], [reference])
    # 20 levels of RGB are 20 * 219 / 255 of Y.
    assert even["PSNR-Y"] == pytest.approx(20 * np.log10(255 / (20 * 219 / 255)))
    assert even["flicker"] == pytest.approx(0)
    flashing = reference + np.array([0, 20, 0], np.uint8)[:, None, None, None]
    assert script.scores([flashing], [reference])["flicker"] == pytest.approx(20 * 219 / 255)


def test_the_spread_is_the_largest_distance_of_a_seed_from_the_mean(script: ModuleType) -> None:
    assert script.shown([30.0, 31.0, 29.9]) == "30.30 ± 0.70"
