"""The node's small decisions, with the time given by the test."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from rain_removal_ros.degradation import Backoff, Budget, Bypass, ladder
from rain_removal_ros.ros.node.mailbox import Mailbox
from rain_removal_ros.ros.node.watchdog import Abandoned, Watchdog
from rain_removal_ros.settings import BypassSettings

LIMITS = BypassSettings(mode="auto", on_above=0.2, off_below=0.1, hold_s=2.0)


def test_rain_is_believed_at_once_and_its_end_only_after_a_while() -> None:
    bypass = Bypass()
    levels = [0.05, 0.15, 0.25, 0.15, 0.05, 0.05, 0.15, 0.05, 0.05, 0.05, 0.15]
    seen = [bypass.update(level, float(now), LIMITS) for now, level in enumerate(levels)]
    assert seen == [False, False, True, True, True, True, True, True, True, False, False]


def test_waits_double_up_to_a_limit_and_begin_anew_after_success() -> None:
    backoff = Backoff(longest=5.0)
    assert [backoff.wait(1.0) for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    backoff.reset()
    assert backoff.wait(1.0) == 1.0


def test_the_ladder_leads_over_fewer_stages_and_smaller_input_to_passthrough() -> None:
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


class Network:
    """Takes a time that depends on the level, and a clock that runs by it."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.now = budget, 0.0

    def run(self, seconds: float, times: dict[str, float], *, limit_s: float = 0.1) -> list[str]:
        """The levels gone through in a while, each once."""
        levels = [self.budget.rung.name]
        end = self.now + seconds
        while self.now < end:
            self.now += 1 / 30
            took = times[self.budget.rung.name]
            level = self.budget.update(took, self.now, limit_s).name
            if level != levels[-1]:
                levels.append(level)
        return levels


def test_quality_sinks_no_further_than_needed() -> None:
    network = Network(Budget(ladder(1)))
    times = {"full": 0.3, "half size": 0.09, "quarter size": 0.02, "passthrough": 0.0}
    assert network.run(20, times) == ["full", "half size"]


def test_quality_comes_back_step_by_step() -> None:
    network = Network(Budget(ladder(1)))
    network.run(5, {"full": 1.0, "half size": 1.0, "quarter size": 1.0, "passthrough": 0.0})
    fast = dict.fromkeys(("full", "half size", "quarter size", "passthrough"), 0.01)
    assert network.run(30, fast)[-1] == "full"


def test_steps_up_that_fail_become_rare() -> None:
    network = Network(Budget(ladder(1)))
    times = {"full": 0.3, "half size": 0.05, "quarter size": 0.02, "passthrough": 0.0}
    first, later = (network.run(120, times) for _ in range(2))
    assert len(later) < len(first) < 20


def test_one_slow_frame_changes_nothing() -> None:
    budget = Budget(ladder(1))
    for index in range(30):
        budget.update(1.0 if index == 20 else 0.01, index / 30, 0.1)
    assert budget.rung.name == "full"


def test_the_newest_message_takes_the_place_of_one_nobody_took() -> None:
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


def test_who_waits_for_mail_can_be_woken_without_any() -> None:
    mailbox = Mailbox()
    thread = threading.Thread(target=mailbox.take)
    thread.start()
    mailbox.wake()
    thread.join(10)
    assert not thread.is_alive()


def test_abandoned_work_is_told_so_when_it_comes_back() -> None:
    watch = Watchdog()
    with watch.watching(), watch:
        assert not watch.abandon_after(60)
    with pytest.raises(Abandoned), watch.watching(), watch:
        assert watch.abandon_after(-1)


def test_work_that_is_not_going_on_cannot_be_late() -> None:
    assert not Watchdog().abandon_after(-1)
