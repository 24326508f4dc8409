"""Bypass, backoff, degradation, mailbox and watchdog, with times given by the tests."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from rain_removal_ros.degradation import Backoff, Budget, Bypass, ladder
from rain_removal_ros.ros.node.mailbox import Mailbox
from rain_removal_ros.ros.node.watchdog import Abandoned, Watchdog
from rain_removal_ros.settings import BypassSettings

LIMITS = BypassSettings(mode="auto", on_above=0.2, off_below=0.1, hold_s=2.0)


def test_bypass_ends_at_once_in_rain_and_begins_after_a_hold() -> None:
    bypass = Bypass()
    levels = [0.05, 0.15, 0.25, 0.15, 0.05, 0.05, 0.15, 0.05, 0.05, 0.05, 0.15]
    seen = [bypass.update(level, float(now), LIMITS) for now, level in enumerate(levels)]
    assert seen == [False, False, True, True, True, True, True, True, True, False, False]


def test_backoff_doubles_up_to_a_limit_and_restarts_after_a_reset() -> None:
    backoff = Backoff(longest=5.0)
    assert [backoff.wait(1.0) for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    backoff.reset()
    assert backoff.wait(1.0) == 1.0


def test_the_ladder_goes_from_fewer_stages_to_smaller_input_to_passthrough() -> None:
    assert [rung.name for rung in ladder(6)] == [
        "full",
        "3 stages",
        "2 stages",
        "1 stage",
        "half size",
        "quarter size",
        "passthrough",
    ]
    assert [rung.name for rung in ladder(1)] == [
        "full",
        "half size",
        "quarter size",
        "passthrough",
    ]


class SimulatedNetwork:
    """A network whose time depends on the rung, and a clock that runs with it."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.now = budget, 0.0

    def run(self, seconds: float, times: dict[str, float], *, limit_s: float = 0.1) -> list[str]:
        """The sequence of rungs during ``seconds``."""
        rungs = [self.budget.rung.name]
        end = self.now + seconds
        while self.now < end:
            self.now += 1 / 30
            took = times[self.budget.rung.name]
            rung = self.budget.update(took, self.now, limit_s).name
            if rung != rungs[-1]:
                rungs.append(rung)
        return rungs


def test_quality_falls_no_further_than_needed() -> None:
    network = SimulatedNetwork(Budget(ladder(1)))
    times = {"full": 0.3, "half size": 0.09, "quarter size": 0.02, "passthrough": 0.0}
    assert network.run(20, times) == ["full", "half size"]


def test_quality_returns_when_the_network_becomes_fast() -> None:
    network = SimulatedNetwork(Budget(ladder(1)))
    network.run(5, {"full": 1.0, "half size": 1.0, "quarter size": 1.0, "passthrough": 0.0})
    fast = dict.fromkeys(("full", "half size", "quarter size", "passthrough"), 0.01)
    assert network.run(30, fast)[-1] == "full"


def test_failed_steps_up_become_rare() -> None:
    network = SimulatedNetwork(Budget(ladder(1)))
    times = {"full": 0.3, "half size": 0.05, "quarter size": 0.02, "passthrough": 0.0}
    first, later = (network.run(120, times) for _ in range(2))
    assert len(later) < len(first) < 20


def test_one_slow_frame_changes_nothing() -> None:
    budget = Budget(ladder(1))
    for index in range(30):
        budget.update(1.0 if index == 20 else 0.01, index / 30, 0.1)
    assert budget.rung.name == "full"


def test_the_figure_to_report_is_the_one_that_decided() -> None:
    budget = Budget(ladder(1))
    rungs = [budget.update(took, 0.0, 0.1).name for took in (0.3, 0.01, 0.3, 0.3, 0.01)]
    assert rungs[3:] == ["full", "half size"]
    assert budget.usual_s == 0.3


def test_times_from_before_there_was_no_budget_count_no_more() -> None:
    budget = Budget(ladder(1))
    for _ in range(4):
        budget.update(0.3, 0.0, 0.1)
    budget.update(0.3, 0.0, 0.0)
    assert [budget.update(0.3, 0.0, 0.1).name for _ in range(5)] == 4 * ["full"] + ["half size"]


def test_a_new_message_replaces_one_that_was_not_taken() -> None:
    mailbox = Mailbox()
    assert [mailbox.put(0, "old"), mailbox.put(0, "new"), mailbox.put(1, "other")] == [
        False,
        True,
        False,
    ]
    assert {camera: message.message for camera, message in mailbox.take().items()} == {
        0: "new",
        1: "other",
    }


def test_wake_ends_a_wait_for_an_empty_mailbox() -> None:
    mailbox = Mailbox()
    thread = threading.Thread(target=mailbox.take)
    thread.start()
    mailbox.wake()
    thread.join(10)
    assert not thread.is_alive()


def test_abandoned_work_raises_when_it_finishes() -> None:
    watch = Watchdog()
    with watch.watching(), watch:
        assert not watch.abandon_after(60)
    with pytest.raises(Abandoned), watch.watching(), watch:
        assert watch.abandon_after(-1)


def test_the_watchdog_abandons_nothing_while_no_work_runs() -> None:
    assert not Watchdog().abandon_after(-1)
