"""The shipped parameter files: one with all defaults, and valid presets."""

from __future__ import annotations

from pathlib import Path

import pytest

from rain_removal_ros import settings
from rain_removal_ros.settings import Settings

PRESETS = ["light_rain.yaml", "heavy_rain_sr.yaml", "cpu.yaml"]


def test_the_full_parameter_file_matches_the_settings(repository: Path) -> None:
    path = repository / "config" / "derain.yaml"
    title = path.read_text().splitlines()[0].removeprefix("# ")
    assert path.read_text() == settings.parameter_file(Settings, title), "run scripts/reference"
    assert settings.load(Settings, path) == Settings()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_and_changes_something(repository: Path, name: str) -> None:
    assert settings.load(Settings, repository / "config" / name) != Settings()
