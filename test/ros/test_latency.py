"""Late frames are dropped by rule and counted; no frame is ever restamped."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from rclpy.duration import Duration
from ros.desk import JAZZY, PATIENCE_S, Desk, Faulty, message, picture, until
from rosgraph_msgs.msg import Clock

from rain_removal_ros.codec import set_stamp, stamp_ns

EXACT = {"engine.precision": "float32", "engine.threads": 1, "stream.scene_cut": 0.0}
FRAME_NS = 33_000_000


def test_a_slow_network_drops_old_frames_and_counts_them(desk: Desk, faulty: Faulty) -> None:
    # Every frame reaches the node, even if this machine is too busy to fetch it in time.
    every = {
        "qos_overrides./image.subscription.reliability": "reliable",
        "qos_overrides./image.subscription.depth": 50,
    }
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT, **every})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    faulty.order("slow 0.3")
    for index in range(30):
        camera.publish(message(picture(), stamp_ns=index * FRAME_NS))
        time.sleep(0.01)  # a camera of 100 Hz
    last = derained.wait(lambda one: stamp_ns(one.header) == 29 * FRAME_NS)
    assert last is derained.messages[-1]
    stamps = [stamp_ns(one.header) for one in derained.messages]
    assert stamps == sorted(set(stamps))
    until(lambda: node.statistics[0].summary().published == len(stamps), "the count of the last")
    summary = node.statistics[0].summary()
    assert summary.received == 30 == summary.published + summary.dropped["newer one came"]
    assert summary.published < 20


@pytest.mark.skipif(JAZZY, reason="its rclpy does not say whose message it is")
def test_frames_replaced_before_a_busy_node_fetched_them_are_counted(desk: Desk) -> None:
    node = desk.derainer({"bypass.mode": "always"})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    camera.publish(message(picture()))
    derained.wait()
    fetched = node.statistics[0].summary().received
    busy, free = threading.Event(), threading.Event()
    node.executor.create_task(lambda: busy.set() or free.wait(PATIENCE_S))
    assert busy.wait(PATIENCE_S)
    for index in range(5):  # the subscription keeps only the last
        camera.publish(message(picture(), stamp_ns=index))
    assert camera.wait_for_all_acked(Duration(seconds=60))
    free.set()
    derained.wait(lambda one: stamp_ns(one.header) == 4)
    until(lambda: node.statistics[0].summary().published == 2, "the count of the last")
    summary = node.statistics[0].summary()
    assert summary.received == fetched + 5 == 6
    assert summary.dropped == {"newer one came": 4}
    assert not summary.lost


def test_the_clock_of_the_node_decides_which_frames_are_too_old(desk: Desk) -> None:
    node = desk.derainer({"bypass.mode": "always", "input.max_age_ms": 500.0})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    camera.publish(message(picture(1), stamp_ns=time.time_ns() - 10**9))
    until(lambda: node.statistics[0].summary().dropped["too old"], "the old frame's end")
    fresh = message(picture(2))
    camera.publish(fresh)
    derained.wait()
    assert [one.header for one in derained.messages] == [fresh.header]


class Simulation:
    """The simulated clock of a recording that is played."""

    def __init__(self, desk: Desk) -> None:
        self._clock = desk.publisher("/clock", Clock)
        desk.listened(self._clock)

    def at(self, now_ns: int) -> None:
        tick = Clock()
        holder: Any = type("Header", (), {"stamp": tick.clock})
        set_stamp(holder, now_ns)
        self._clock.publish(tick)


def test_simulated_time_decides_the_age_and_a_looped_bag_resets_the_state(
    desk: Desk, faulty: Faulty
) -> None:
    node = desk.derainer(
        {
            "network.weights": str(faulty.weights),
            "use_sim_time": True,
            "input.max_age_ms": 100.0,
            **EXACT,
        }
    )
    simulation = Simulation(desk)
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    for now_ns in (10**9, 10**9 + FRAME_NS, 2 * 10**9, 10**9):
        simulation.at(now_ns)
        until(lambda now_ns=now_ns: node.now_ns() == now_ns, "simulated time")
        derained.clear()
        camera.publish(message(picture(), stamp_ns=now_ns - 50_000_000))
        derained.wait()
    resets = node.statistics[0].summary().resets
    assert (resets["gap"], resets["time ran backwards"]) == (1, 1)
    camera.publish(message(picture(), stamp_ns=10**9 - 200_000_000))
    until(lambda: node.statistics[0].summary().dropped["too old"], "the old frame's end")


def test_no_frame_is_too_old_before_simulated_time_begins(desk: Desk) -> None:
    desk.derainer({"bypass.mode": "always", "use_sim_time": True, "input.max_age_ms": 100.0})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    camera.publish(message(picture(), stamp_ns=5))
    derained.wait()


def test_stamps_may_repeat_run_backwards_or_jump_a_day(desk: Desk, faulty: Faulty) -> None:
    node = desk.derainer({"network.weights": str(faulty.weights), **EXACT})
    camera, derained = desk.publisher(), desk.inbox()
    desk.listened(camera)
    until(lambda: node.engine, "a loaded network")
    day_ns = 86_400 * 10**9
    stamps = [day_ns, day_ns, day_ns - FRAME_NS, 2 * day_ns, 0, FRAME_NS]
    for number, one_ns in enumerate(stamps, 1):
        camera.publish(message(picture(), stamp_ns=one_ns))
        derained.count(number)
    assert [stamp_ns(one.header) for one in derained.messages] == stamps
    resets = node.statistics[0].summary().resets
    assert resets == {"start": 1, "time ran backwards": 2, "gap": 1}
