"""Commands killed at any moment: their output is complete or absent, and they can be repeated."""

from __future__ import annotations

from fuzz.commands import run_command
from fuzz.effort import Effort, Figures
from fuzz.work import STEPS, Work

__all__ = ["LONG", "SHORT", "attack"]

SHORT, LONG = 4, 400
"""Numbers of kills."""


def attack(effort: Effort) -> Figures:
    """Kill replays and trainings in turn, and let each of them finish afterwards."""
    work = Work(effort.folder)
    run_command("--help", log=work.log)  # starts the process that all are forked from, in seconds
    whole_s = {}
    for name in ("replay", "train"):
        ended = run_command(*getattr(work, name), log=work.log)
        assert ended.code == 0, ended.said
        whole_s[name] = ended.seconds
    left = 0
    killed = {"replay": 0, "train": 0}
    for number in range(effort.count):
        name = ("replay", "train")[number % 2]
        if number % 4 < 2:  # every second training finds the run of the last one
            work.clear()
        moment_s = effort.choice.uniform(0, whole_s[name])
        ended = run_command(*getattr(work, name), log=work.log, kill_after_s=moment_s)
        assert ended.code in (0, -9), ended.said
        killed[name] += ended.code == -9
        check = getattr(work, f"check_{name}")
        check(must_exist=ended.code == 0)
        left += sum(1 for path in work.out.iterdir() if path.name.startswith("."))
        if name == "train":
            again = run_command(*work.train, log=work.log)
            assert again.code == 0, again.said
            assert f"step {STEPS} of {STEPS}, done" in again.said
            check(must_exist=True)
        else:
            again = run_command(*work.replay, "--force", log=work.log)
            assert again.code == 0, again.said
            check(must_exist=True)
    return {
        "replays killed": killed["replay"],
        "trainings killed": killed["train"],
        "hidden drafts left behind": left,
    }
