"""Child processes end with the block that started them, and with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rain_removal_ros.runtime.processes import running

STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "print('ready', flush=True); time.sleep(600)"
)


def until(holds: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def is_gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return True


def test_all_processes_are_interrupted_together() -> None:
    wait = ["-c", "print('ready', flush=True); import time; time.sleep(600)"]
    with running(wait, wait, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as processes:
        for process in processes:
            process.stdout.readline()
        assert [process.poll() for process in processes] == [None, None]
    assert [process.returncode for process in processes] == [-signal.SIGINT, -signal.SIGINT]


def test_a_process_that_ignores_the_interrupt_is_killed() -> None:
    with running(["-c", STUBBORN], grace_s=0.2, stdout=subprocess.PIPE) as (process,):
        process.stdout.readline()
    assert process.returncode == -signal.SIGKILL


def test_children_do_not_outlive_a_parent_that_is_killed() -> None:
    code = (
        "import time; from rain_removal_ros.runtime.processes import running\n"
        "with running(['-c', 'import time; time.sleep(600)']) as (child,):\n"
        "    print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert until(lambda: is_gone(child))
