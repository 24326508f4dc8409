"""Fixtures of all tests; skips files of tests whose imports a ROS installation lacks."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ros.desk import Desk

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
    """The data sets, which lie beside the repository and are never part of it."""
    data = REPOSITORY.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"the data sets are not here: no folder {data}")
    return data


ABSENT_ON_ROBOTS = {
    *("hypothesis", "mcap", "onnx", "openvino", "PIL"),
    *("pycocotools", "ray", "skimage", "tensorboard", "torch"),
}
"""Modules that only tests and training need. `make test` installs them."""


class _Module(pytest.Module):
    """A file of tests, skipped with the reason if it imports one of these modules in vain."""

    def _getobj(self) -> ModuleType:
        try:
            return super()._getobj()
        except self.CollectError as error:
            cause = error.__cause__
            name = cause.name.partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
            if name not in ABSENT_ON_ROBOTS:
                raise
            pytest.skip(f"{name} is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    module: pytest.Module = _Module.from_parent(parent, path=module_path)
    return module


_domains = itertools.cycle(range(1, 101))
for _ in range(os.getpid() % 100):  # so that two runs of the tests at once use different domains
    next(_domains)


@pytest.fixture
def domain_id() -> int:
    """A ROS domain that no other test uses."""
    return next(_domains)


@pytest.fixture
def desk(domain_id: int) -> Iterator[Desk]:
    from ros.desk import Desk

    opened = Desk(domain_id)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small untrained network, which hardly changes frames."""
    from rain_removal_ros import checkpoints, networks

    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, networks.create("rainstream", channels=8, blocks=1), {})
    return path
