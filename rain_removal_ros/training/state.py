"""What lets a run survive: files that appear whole, generators that continue, orderly ends at
signals.
"""

from __future__ import annotations

import io
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from rain_removal_ros.errors import CheckpointError
from rain_removal_ros.runtime.files import write_whole


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state, which appears whole; if the disk is full, the previous one remains."""
    # Into memory first, because torch raises errors of its own for files.
    content = io.BytesIO()
    torch.save(state, content)
    try:
        write_whole(path, content.getbuffer(), raises=CheckpointError, durable=True)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; the previous one remains") from error


def read_state(path: Path) -> dict[str, Any]:
    """What ``write_state`` wrote; nothing in it can run code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of error for a foreign file
        raise CheckpointError(f"{path} is damaged; remove it to begin the run anew") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is not the state of a training run")
    return state


def rng_states(processes: int) -> list[dict[str, Any]]:
    """Every generator a run may draw from, of each of its processes."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": (name, [int(key) for key in keys], *rest),
    }
    if processes == 1:
        return [state]
    states: list[Any] = [None] * processes
    dist.all_gather_object(states, state)
    return states


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one acts as usual."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(number, self._before[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
