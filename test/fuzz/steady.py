"""A camera of 1080p and the network that ships, for long: nothing grows, and no frame is lost."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray
from fuzz.effort import Effort, Figures, Process
from ros.desk import Desk, message, picture, until

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 20, 3600
"""Seconds."""
RATE_HZ = 10.0
_SETTLES = 0.1
"""The share of the time after which what the node holds is taken for what it needs."""


def attack(effort: Effort) -> Figures:
    """Send frames for ``count`` seconds."""
    desk = Desk(effort.domain)
    try:
        return _attack(desk, effort)
    finally:
        desk.close()


def _attack(desk: Desk, effort: Effort) -> Figures:
    flags = ("-p", "engine.device:=cpu", "-p", "safety.watchdog_s:=60.0")
    node = desk.process(*flags, log=effort.folder / "node.log")
    camera, derained, attention = desk.publisher(), desk.inbox(), desk.inbox("attention")
    reports = desk.inbox("/diagnostics", DiagnosticArray)
    frames = [message(picture(seed, height=1080, width=1920)) for seed in range(4)]
    desk.listened(camera)
    until(lambda: camera.publish(frames[0]) or time.sleep(1) or attention.messages, "a frame")
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
    counts = _settled(reports)
    held.check(memory_mb=100, threads=40, files=3)
    assert held.most["threads"] <= held.first["threads"] + 2, held.figures()
    return {"seconds": effort.count, "sent": sent, **counts, **held.figures()}


def _settled(reports: object) -> dict[str, int]:
    """Where frames went, once every one that was received is accounted for."""

    def counted() -> dict[str, int]:
        reports.clear()  # type: ignore[attr-defined]
        report = reports.wait()  # type: ignore[attr-defined]
        values = {pair.key: pair.value for pair in report.status[1].values}
        dropped = {
            name: int(value) for name, value in values.items() if name.startswith("dropped: ")
        }
        received, published = int(values["received"]), int(values["published"])
        done = published + sum(dropped.values())
        lost = int(values["lost in transport"])
        counts = {"received": received, "published": published, "lost in transport": lost}
        return {**counts, **dropped} if received == done else {}

    found: dict[str, int] = until(counted, "an account of every frame", 60.0)
    return found
