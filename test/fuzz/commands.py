"""Runs commands in processes of their own, which can be killed or limited.

The processes are forked from one that has imported what all of them need and has done nothing
else: a command then takes a tenth of a second to start, not three.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "run_command", "run_function"]

_PRELOADED = [
    "torch",
    "torch._dynamo",
    "cv2",
    "yaml",
    "rain_removal_ros.cli.image",
    "rain_removal_ros.cli.replay",
    "rain_removal_ros.cli.train",
    "rain_removal_ros.bags.replaying",
    "rain_removal_ros.training.run",
    "rain_removal_ros.media.deraining",
    "rain_removal_ros.networks.prenet",
    "rain_removal_ros.networks.rainstream",
]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """The exit code; minus the signal if the process was killed."""
    said: str
    seconds: float


def run_command(
    *arguments: object, log: Path, kill_after_s: float | None = None, file_bytes: int | None = None
) -> Ended:
    """Run ``rain-removal`` with arguments. Its files may grow to ``file_bytes``."""
    return run_function(
        _command, list(map(str, arguments)), file_bytes, log=log, kill_after_s=kill_after_s
    )


def run_function(
    function: Callable[..., int],
    *arguments: Any,
    log: Path,
    kill_after_s: float | None = None,
    timeout_s: float = 300.0,
) -> Ended:
    """Call a function in a process of its own; its result is the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    began = time.monotonic()
    process = context.Process(target=_call, args=(function, arguments, str(log)), daemon=True)
    process.start()
    process.join(timeout_s if kill_after_s is None else kill_after_s)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert kill_after_s is not None, f"not done in {timeout_s:g} s"
    assert process.exitcode is not None
    said = log.read_text(errors="replace") if log.is_file() else ""
    return Ended(process.exitcode, said, time.monotonic() - began)


def _call(function: Callable[..., int], arguments: Sequence[Any], log: str) -> None:
    import torch

    torch.set_num_threads(1)  # with so little work, threads would only wait for each other
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.exit(function(*arguments))


def _command(arguments: list[str], file_bytes: int | None) -> int:
    from rain_removal_ros import cli

    if file_bytes is not None:
        # The limit holds for the log too. Without the signal, writing beyond it is an error.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    return cli.main(arguments)
