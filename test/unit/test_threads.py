"""The number of threads, in a process of its own because it depends on earlier settings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

LIVE = """
import threading, torch
from rain_removal_ros import engines, networks
from rain_removal_ros.settings import EngineSettings

def create(threads):
    network = networks.create("rainstream", channels=8, blocks=1)
    engines.create(network, EngineSettings(threads=threads))
    return torch.get_num_threads()

def beside(threads):
    thread = threading.Thread(target=create, args=(threads,))
    thread.start()
    thread.join()
    return torch.get_num_threads()

print(create(5), beside(4), create(0))
"""


def test_an_engine_sets_the_threads_of_its_creator_only_and_0_restores_the_first_number() -> None:
    process = subprocess.run(
        [sys.executable, "-c", LIVE],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.split() == ["5", "5", "1"]
