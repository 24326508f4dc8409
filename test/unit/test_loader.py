"""Networks are loaded one after another, and only the newest that was asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rain_removal_ros import engines
from rain_removal_ros.ros.node import loader as under_test
from rain_removal_ros.ros.node.loader import Loader
from rain_removal_ros.settings import Settings, build

SETTINGS = Settings()


class Machine:
    """What loads networks, as slowly as it is told, and what is heard of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "load_somehow", self._load)
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun: list[str] = []
        self.heard: list[str] = []
        self.at_once = self.most_at_once = 0
        self.failing = 0
        self._lock = threading.Lock()

    def _load(self, network: Any, engine: Any, tried: Callable[[Any], object]) -> Any:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.begun.append(network.name)
            self.go_on.wait(20)
            if self.failing:
                self.failing -= 1
                raise OSError("a broken disk")
            tried(self)
        finally:
            with self._lock:
                self.at_once -= 1
        return network.name

    def step(self, images: Any, states: Any) -> None:
        pass

    def loaded(self, job: Any, engine: Any) -> None:
        self.heard.append(engine)

    def failed(self, job: Any, error: Exception, retry_in_s: float) -> None:
        self.heard.append(str(error))

    def sizes(self) -> list[tuple[int, int]]:
        return []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def loader(machine: Machine) -> Iterator[Loader]:
    under = Loader(machine)
    yield under
    under.cancel()
    machine.go_on.set()
    until(lambda: not under.running)


def named(name: str, **others: Any) -> Settings:
    return build(Settings, {"network.name": name, **others})


def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_of_a_storm_of_requests_the_newest_is_loaded_by_one_thread(
    machine: Machine, loader: Loader
) -> None:
    machine.go_on.clear()
    for number in range(500):
        loader.request(named(f"network{number}"))
    until(lambda: machine.begun)
    loader.request(named("last"))
    threads = [thread for thread in threading.enumerate() if thread.name == "load"]
    machine.go_on.set()
    until(lambda: machine.heard)
    assert machine.heard == ["last"]
    assert len(threads) == machine.most_at_once == 1
    assert len(machine.begun) <= 3


def test_a_burst_is_loaded_once_it_rests(machine: Machine, loader: Loader) -> None:
    for number in range(20):
        loader.request(named(f"network{number}"), delay_s=0.1)
        time.sleep(0.01)
    until(lambda: machine.heard)
    assert machine.begun == machine.heard == ["network19"]


def test_what_nobody_wants_any_more_ends_and_is_not_heard_of(
    machine: Machine, loader: Loader
) -> None:
    machine.go_on.clear()
    loader.request(named("old"))
    until(lambda: machine.begun)
    loader.cancel()
    machine.go_on.set()
    until(lambda: not loader.running)
    assert not machine.heard


def test_what_fails_is_tried_again(machine: Machine, loader: Loader) -> None:
    machine.failing = 2
    loader.request(named("broken", **{"safety.retry_s": 0.01}))
    until(lambda: len(machine.heard) == 3)
    assert machine.heard == ["a broken disk", "a broken disk", "broken"]
    loader.finished()
    until(lambda: not loader.running)


def test_what_hangs_is_left_behind_once_something_else_is_wanted(
    machine: Machine, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_PATIENCE_S", 0.05)
    machine.go_on.clear()
    loader.request(named("hangs"))
    until(lambda: machine.begun)
    loader.watch_over()
    assert machine.begun == ["hangs"]
    hung, machine.go_on = machine.go_on, threading.Event()
    machine.go_on.set()
    loader.request(named("next"))
    until(lambda: loader.watch_over() or machine.heard)
    assert machine.heard == ["next"]
    loader.finished()
    hung.set()
    until(lambda: not loader.running)
    assert machine.heard == ["next"]


def test_the_memory_that_a_pixel_takes_is_measured_where_it_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    class Hungry:
        def step(self, images: Any, states: Any) -> None:
            taken.append(images[0].shape[0] * images[0].shape[1])

    monkeypatch.setattr(under_test, "give_back_freed_memory", lambda: taken.clear())
    monkeypatch.setattr(under_test, "resident_bytes", lambda: 100 + 7 * max(taken))
    assert under_test._pixel_bytes(Hungry(), 480, 640) == pytest.approx(7)
