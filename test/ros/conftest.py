"""Each test has a domain of the ROS graph to itself, and the middleware is set up as shipped."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from ros.desk import NETWORKS, Desk, Faulty

from rain_removal_ros import checkpoints, networks

_domains = itertools.cycle(range(1, 101))
for _ in range(os.getpid() % 100):  # beside another run of the tests
    next(_domains)


@pytest.fixture
def domain_id() -> int:
    return next(_domains)


@pytest.fixture
def desk(domain_id: int) -> Iterator[Desk]:
    opened = Desk(domain_id)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network: it hands frames on, give or take a little."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, networks.create("rainstream", channels=8, blocks=1), {})
    return path


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(NETWORKS)])
    return Faulty(tmp_path)
