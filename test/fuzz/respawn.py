"""A node that is killed under launch, again and again: how soon there are images after it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fuzz.effort import Effort, Figures, slowness
from ros.desk import Desk, Inbox, message, picture, until

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 1, 12
"""Kills."""
RATE_HZ = 10.0
CLEAN_AGAIN_S = 5.0
"""After which derained images are there again, on a machine with time for it."""


def attack(effort: Effort) -> Figures:
    """Kill the node of ``derain.launch.py`` ``count`` times while it derains 640x480."""
    try:
        from launching import Launcher
    except ModuleNotFoundError:
        return {"not tried": "launch is not installed"}
    with (
        closing(Desk(effort.domain)) as desk,
        closing(Launcher(desk, effort.folder)) as launcher,
    ):
        launcher.start("derain.launch.py", "fallback:=true", "device:=cpu")
        topics = {
            "any image, with the fallback": desk.inbox("image_always"),
            "an image": desk.inbox(),
            "a derained image": desk.inbox("attention"),
        }
        waits_s: dict[str, list[float]] = {name: [] for name in topics}
        with _camera(desk):
            topics["a derained image"].wait()
            for _ in range(effort.count):
                _end(launcher.node())
                for name, wait_s in _waits_s(topics).items():
                    waits_s[name].append(wait_s)
    longest_s = max(waits_s["a derained image"])
    assert longest_s < CLEAN_AGAIN_S * slowness(), f"no derained image for {longest_s:.1f} s"
    return {
        "kills": effort.count,
        **{
            f"{name}, {which} [s]": round(choose(sorted(waits)), 1)
            for name, waits in waits_s.items()
            for which, choose in (("median", _middle), ("longest", max))
        },
    }


@contextmanager
def _camera(desk: Desk) -> Iterator[None]:
    """Frames of 640x480, all the while."""
    camera = desk.publisher()
    frames = [picture(seed, height=480, width=640) for seed in range(4)]
    done = threading.Event()

    def send() -> None:
        number = 0
        while not done.wait(1 / RATE_HZ):
            camera.publish(message(frames[number % len(frames)]))
            number += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _end(node: int) -> None:
    os.kill(node, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{node}").exists(), "the node's end")


def _waits_s(topics: dict[str, Inbox]) -> dict[str, float]:
    """How long each topic takes from now to its next message."""
    began = time.monotonic()
    for inbox in topics.values():
        inbox.clear()
    found: dict[str, float] = {}

    def look(name: str, inbox: Inbox) -> None:
        inbox.wait()
        found[name] = time.monotonic() - began

    threads = [threading.Thread(target=look, args=each) for each in topics.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: found[name] for name in topics}


def _middle(values: list[Any]) -> Any:
    return values[len(values) // 2]
