"""The memory budget of the node: whether another frame fits into it."""

from __future__ import annotations

import mmap

import pytest

from rain_removal_ros.runtime import memory
from rain_removal_ros.runtime.memory import MemoryBudget, resident_bytes


class FakeProcess:
    """A process with ``held`` bytes in use and ``freed`` bytes not given back to the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = self.freed = 0
        self.trims = 0
        monkeypatch.setattr(memory, "resident_bytes", lambda: self.held + self.freed)
        monkeypatch.setattr(memory, "give_back_freed_memory", self._trim)

    def _trim(self) -> None:
        self.freed = 0
        self.trims += 1


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> FakeProcess:
    return FakeProcess(monkeypatch)


def test_resident_bytes_grow_with_used_memory() -> None:
    before = resident_bytes()
    # A mapping, because the heap may already have that much free memory.
    with mmap.mmap(-1, 50_000_000) as block:
        block[:] = bytes(len(block))
        assert resident_bytes() - before > 40_000_000


def test_a_frame_is_admitted_if_it_fits_into_the_budget(process: FakeProcess) -> None:
    budget = MemoryBudget(pixel_bytes=10.0)
    process.held = 500
    assert budget.admits(50, 1000)
    assert not budget.admits(101, 1000)


def test_a_frame_no_larger_than_an_admitted_one_needs_no_more_memory(process: FakeProcess) -> None:
    budget = MemoryBudget(pixel_bytes=10.0)
    process.held = 100
    assert budget.admits(50, 650)
    process.held = 600
    assert budget.admits(50, 650)
    assert not budget.admits(60, 650)


def test_freed_memory_is_given_back_before_a_frame_is_refused_but_not_at_every_frame(
    process: FakeProcess,
) -> None:
    budget = MemoryBudget()
    process.held, process.freed = 500, 600
    assert budget.admits(1, 1000)
    assert process.trims == 1
    process.held = 1100
    assert not any(budget.admits(1, 1000) for _ in range(10))
    assert process.trims == 1
