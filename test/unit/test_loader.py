"""The loader loads networks one after another, and of several requests only the newest."""

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


class FakeNode:
    """Stands in for the node and for ``engines``: loads on ``go_on``, and keeps the reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engines, "load_somehow", self._load)
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun: list[str] = []
        self.reports: list[str] = []
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
        self.reports.append(engine)

    def failed(self, job: Any, error: Exception, retry_in_s: float) -> None:
        self.reports.append(str(error))

    def sizes(self) -> list[tuple[int, int]]:
        return []


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    return FakeNode(monkeypatch)


@pytest.fixture
def loader(node: FakeNode) -> Iterator[Loader]:
    tested = Loader(node)
    yield tested
    tested.cancel()
    node.go_on.set()
    wait_until(lambda: not tested.running)


def settings_for(name: str, **others: Any) -> Settings:
    return build(Settings, {"network.name": name, **others})


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_thread_loads_the_newest_of_many_requests(node: FakeNode, loader: Loader) -> None:
    node.go_on.clear()
    for number in range(500):
        loader.request(settings_for(f"network{number}"))
    wait_until(lambda: node.begun)
    loader.request(settings_for("last"))
    threads = [thread for thread in threading.enumerate() if thread.name == "load"]
    node.go_on.set()
    wait_until(lambda: node.reports)
    assert node.reports == ["last"]
    assert len(threads) == node.most_at_once == 1
    assert len(node.begun) <= 3


def test_a_delayed_request_is_loaded_after_the_burst(node: FakeNode, loader: Loader) -> None:
    for number in range(20):
        loader.request(settings_for(f"network{number}"), delay_s=0.1)
        time.sleep(0.01)
    wait_until(lambda: node.reports)
    assert node.begun == node.reports == ["network19"]


def test_a_cancelled_load_ends_without_a_report(node: FakeNode, loader: Loader) -> None:
    node.go_on.clear()
    loader.request(settings_for("old"))
    wait_until(lambda: node.begun)
    loader.cancel()
    node.go_on.set()
    wait_until(lambda: not loader.running)
    assert not node.reports


def test_a_failed_load_is_repeated(node: FakeNode, loader: Loader) -> None:
    node.failing = 2
    loader.request(settings_for("broken", **{"safety.retry_s": 0.01}))
    wait_until(lambda: len(node.reports) == 3)
    assert node.reports == ["a broken disk", "a broken disk", "broken"]
    loader.finished()
    wait_until(lambda: not loader.running)


def test_a_hanging_load_is_abandoned_once_another_is_requested(
    node: FakeNode, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_PATIENCE_S", 0.05)
    node.go_on.clear()
    loader.request(settings_for("hangs"))
    wait_until(lambda: node.begun)
    loader.watch_over()
    assert node.begun == ["hangs"]
    hung, node.go_on = node.go_on, threading.Event()
    node.go_on.set()
    loader.request(settings_for("next"))
    wait_until(lambda: loader.watch_over() or node.reports)
    assert node.reports == ["next"]
    loader.finished()
    hung.set()
    wait_until(lambda: not loader.running)
    assert node.reports == ["next"]


def test_memory_per_pixel_is_measured_after_freed_memory_is_given_back(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    class Hungry:
        def step(self, images: Any, states: Any) -> None:
            taken.append(images[0].shape[0] * images[0].shape[1])

    monkeypatch.setattr(under_test, "give_back_freed_memory", lambda: taken.clear())
    monkeypatch.setattr(under_test, "resident_bytes", lambda: 100 + 7 * max(taken))
    assert under_test._pixel_bytes(Hungry(), 480, 640) == pytest.approx(7)
