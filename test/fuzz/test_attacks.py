"""The attacks of ``make soak``, for seconds each."""

from __future__ import annotations

import importlib
import itertools
import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from fuzz.effort import Effort

SEED = 1
_domains = itertools.count(1 + os.getpid() % 90)


@pytest.mark.parametrize(
    "name",
    [
        *("messages", "storm", "signals", "kills", "disk", "files"),
        pytest.param("steady", marks=pytest.mark.slow),
    ],
)
def test_an_attack_does_no_harm(name: str, tmp_path: Path) -> None:
    attack = importlib.import_module(f"fuzz.{name}")
    figures = attack.attack(Effort(SEED, attack.SHORT, tmp_path, domain=next(_domains)))
    assert figures
