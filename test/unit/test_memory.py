"""What a process may hold of the machine's memory, and whether another frame fits into it."""

from __future__ import annotations

import mmap

import pytest

from rain_removal_ros.runtime import memory
from rain_removal_ros.runtime.memory import MemoryBudget, resident_bytes


class Machine:
    """A process that holds what it is told, some of it without need."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = self.freed = 0
        self.trims = 0
        monkeypatch.setattr(memory, "resident_bytes", lambda: self.held + self.freed)
        monkeypatch.setattr(memory, "give_back_freed_memory", self._trim)

    def _trim(self) -> None:
        self.freed = 0
        self.trims += 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_process_knows_what_it_holds() -> None:
    before = resident_bytes()
    # Not from the heap, which may have as much free already.
    with mmap.mmap(-1, 50_000_000) as block:
        block[:] = bytes(len(block))
        assert resident_bytes() - before > 40_000_000


def test_a_frame_is_admitted_if_what_it_takes_fits(machine: Machine) -> None:
    budget = MemoryBudget(pixel_bytes=10.0)
    machine.held = 500
    assert budget.admits(50, 1000)
    assert not budget.admits(101, 1000)


def test_frames_no_larger_than_earlier_ones_take_nothing_more(machine: Machine) -> None:
    budget = MemoryBudget(pixel_bytes=10.0)
    machine.held = 100
    assert budget.admits(50, 650)
    machine.held = 600
    assert budget.admits(50, 650)
    assert not budget.admits(60, 650)


def test_what_is_held_without_need_is_given_back_first_but_not_at_every_frame(
    machine: Machine,
) -> None:
    budget = MemoryBudget()
    machine.held, machine.freed = 500, 600
    assert budget.admits(1, 1000)
    assert machine.trims == 1
    machine.held = 1100
    assert not any(budget.admits(1, 1000) for _ in range(10))
    assert machine.trims == 1
