"""A 1080p camera and the shipped network, for long: nothing grows, and no frame is lost."""

from __future__ import annotations

import time
from contextlib import closing

from diagnostic_msgs.msg import DiagnosticArray
from fuzz.accounts import account, accounted
from fuzz.effort import Effort, Figures, Process
from ros.desk import Desk, Inbox, flags, message, picture, until

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 20, 3600
"""Numbers of seconds."""
RATE_HZ = 10.0
_SETTLES = 0.1
"""The share of the time after which the node is expected to hold all that it needs."""


def attack(effort: Effort) -> Figures:
    """Send frames for ``count`` seconds."""
    with closing(Desk(effort.domain)) as desk:
        return _attack(desk, effort)


def _attack(desk: Desk, effort: Effort) -> Figures:
    parameters = {"engine.device": "cpu", "safety.watchdog_s": 60.0}
    node = desk.process(*flags(parameters), log=effort.folder / "node.log")
    camera, derained, attention = desk.publisher(), desk.inbox(), desk.inbox("attention")
    reports = desk.inbox("/diagnostics", DiagnosticArray)
    frames = [message(picture(seed, height=1080, width=1920)) for seed in range(4)]
    desk.listened(camera)
    first = 0
    while not attention.any_within(1):
        assert node.poll() is None, (effort.folder / "node.log").read_text()[-2000:]
        camera.publish(frames[0])
        first += 1
    held = Process(node.pid)
    began = time.monotonic()
    sent = 0
    while (passed_s := time.monotonic() - began) < effort.count:
        time.sleep(max(0.0, sent / RATE_HZ - passed_s))
        camera.publish(frames[sent % len(frames)])
        sent += 1
        if passed_s > _SETTLES * effort.count and sent % int(RATE_HZ) == 0:
            held.look()
        if sent % 20 == 0:
            for inbox in (derained, attention, reports):
                inbox.clear()
    assert node.poll() is None, (effort.folder / "node.log").read_text()[-2000:]
    counts = _settled(reports, first + sent)
    held.check(memory_mb=100, threads=40, files=3)
    assert held.most["threads"] <= held.first["threads"] + 2, held.figures()
    return {"seconds": effort.count, "sent": first + sent, **counts, **held.figures()}


def _settled(reports: Inbox, sent: int) -> dict[str, int]:
    """What became of the frames, once every sent one is accounted for."""

    def counted() -> dict[str, int]:
        counts = account(reports)
        last.update(counts)
        whole = counts["received"] + counts["lost in transport"] == sent
        return counts if whole and counts["received"] == accounted(counts) else {}

    last: dict[str, int] = {}
    try:
        found: dict[str, int] = until(counted, "an account", 60.0)
    except AssertionError as error:
        raise AssertionError(f"{sent} frames were sent, but the node counts {last}") from error
    return found
