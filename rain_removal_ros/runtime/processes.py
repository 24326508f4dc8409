"""Child processes that end with the block that started them, and with this process."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_PR_SET_PDEATHSIG = 1


@contextmanager
def running(
    *commands: Sequence[str], grace_s: float = 15.0, **options: Any
) -> Iterator[list[subprocess.Popen[Any]]]:
    """Start Python processes with these arguments; ``options`` are those of ``Popen``."""
    libc = ctypes.CDLL(None)

    def follow() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    processes: list[subprocess.Popen[Any]] = []
    try:
        for command in commands:
            process = subprocess.Popen([sys.executable, *command], preexec_fn=follow, **options)
            processes.append(process)
        yield processes
    finally:
        end(*processes, grace_s=grace_s)


def end(*processes: subprocess.Popen[Any], grace_s: float = 15.0) -> None:
    """Interrupt all processes at once, and kill those that have not ended after a while."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
