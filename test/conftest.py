"""What all tests share: where the data sets are, and how many threads may run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Read once, when torch is first imported. Idle OpenMP threads otherwise spin and slow down the
# processes that the ROS tests start beside this one.
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets that stand beside the repository and are never part of it."""
    data = REPOSITORY.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"the data sets are not here: no folder {data}")
    return data
