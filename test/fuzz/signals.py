"""Signals in every state of a node: one, two or many of them end it without error."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from fuzz.effort import Effort, Figures, slowness
from ros.desk import (
    PATIENCE_S,
    Desk,
    Faulty,
    flags,
    message,
    networks_of_tests,
    picture,
    until,
    until_frames_pass,
)

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 4, 200
"""Numbers of nodes."""
ENDS_WITHIN_S = 10.0
STATES = ("deraining", "hung", "starting", "loading", "idle", "changing", "inactive")


def attack(effort: Effort) -> Figures:
    """Start ``count`` nodes, and end them with signals in one state after the other."""
    ended_s: list[float] = []
    seen: Counter[str] = Counter()
    for number in range(effort.count):
        state = STATES[number % len(STATES)]
        folder = effort.folder / str(number)
        folder.mkdir()
        with networks_of_tests(), closing(Desk(effort.domain)) as desk:
            ended_s.append(_end(desk, state, Faulty(folder), effort.choice))
        seen[state] += 1
    return {
        "nodes": effort.count,
        **{f"while {state}": count for state, count in seen.items()},
        "longest end [s]": round(max(ended_s), 2),
    }


def _end(desk: Desk, state: str, faulty: Faulty, choice: random.Random) -> float:
    """Seconds that a node in this state took to end without error."""
    parameters = {"network.weights": str(faulty.weights), "engine.threads": "1"}
    if state == "inactive":
        parameters["node.autostart"] = "false"
    if state == "loading":
        faulty.order("hang")
    node = desk.process(*flags(parameters))
    if state == "starting":
        _wait_until_signals_are_handled(node)
        time.sleep(choice.uniform(0, 3))
    else:
        _bring(desk, state, faulty)
    signals = [
        choice.choice([signal.SIGINT, signal.SIGTERM]) for _ in range(choice.choice([1, 2, 9]))
    ]
    began = time.monotonic()
    for each in signals:
        if node.poll() is None:
            node.send_signal(each)
        time.sleep(choice.choice([0, 0, 0.02, 0.2]))
    try:
        _, said = node.communicate(timeout=ENDS_WITHIN_S * slowness())
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"still there after {signals} while {state}") from error
    what = f"{signals} while {state}: {node.returncode}\n{said[-2000:]}"
    assert node.returncode == 0, what
    assert "Traceback" not in said, what
    return time.monotonic() - began


def _wait_until_signals_are_handled(node: subprocess.Popen[str]) -> None:
    """Before that, Python itself is starting, and a signal ends it in its own way."""
    status = Path(f"/proc/{node.pid}/status")
    blocked = 1 << (signal.SIGTERM - 1)

    def handles_signals() -> bool:
        lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        return bool(int(lines["SigBlk"], 16) & blocked)

    until(handles_signals, "its first line")


def _bring(desk: Desk, state: str, faulty: Faulty) -> None:
    """Bring a node into a state, or wait until it is in it."""
    if state in ("inactive", "loading"):
        until(lambda: desk.tools.count_publishers("/diagnostics"), "the node")
        return
    camera: Any = desk.publisher()
    attention = desk.inbox("attention")
    desk.listened(camera)
    until_frames_pass(camera, attention, PATIENCE_S)
    if state == "hung":
        faulty.order("hang")
        for _ in range(3):
            camera.publish(message(picture()))
            time.sleep(0.05)
    elif state == "deraining":
        faulty.order("slow 0.05")
        for _ in range(5):
            camera.publish(message(picture()))
            time.sleep(0.02)
    elif state == "changing":
        _change(desk)


def _change(desk: Desk) -> None:
    """Request two transitions, and do not wait for them."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    client = desk.tools.create_client(ChangeState, "/derain/change_state")
    assert client.wait_for_service(30)
    for number in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        client.call_async(ChangeState.Request(transition=Transition(id=number)))
