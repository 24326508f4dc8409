"""Launch files run by launch, as a user runs them; ``colcon test`` does so on a ROS machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Launcher, Started
    from ros.desk import Desk


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests that launch something if the plugin of launch_pytest is not loaded."""
    if any(map(config.pluginmanager.hasplugin, ("launch_pytest", "launch_pytest.plugin"))):
        return
    for item in items:
        if item.get_closest_marker("launch"):
            item.add_marker(pytest.mark.skip("launch_pytest is not loaded as a plugin"))


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("rain_removal_ros")
    except PackageNotFoundError:
        pytest.skip("the package is not installed where AMENT_PREFIX_PATH points")


@pytest.fixture
def started(desk: Desk, tmp_path: Path) -> Started:
    from launching import Started

    return Started(desk, tmp_path)


@pytest.fixture
def launcher(desk: Desk, tmp_path: Path) -> Iterator[Launcher]:
    from launching import Launcher

    running = Launcher(desk, tmp_path)
    yield running
    running.close()


@pytest.fixture
def bypassing(tmp_path: Path) -> str:
    """A parameter file with which frames pass through from the start."""
    path = tmp_path / "bypassing.yaml"
    path.write_text("/**:\n  ros__parameters:\n    bypass: {mode: always}\n")
    return str(path)
