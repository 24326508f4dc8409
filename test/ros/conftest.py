"""The ROS tests run with the shipped middleware profile, and with a network that can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from ros.desk import NETWORKS, Faulty

from rain_removal_ros import networks


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(NETWORKS)])
    return Faulty(tmp_path)
