"""How many threads compute a frame.

In torch every Python thread has its own number: setting it affects that thread and those started
later, not others at work. Without torch the number is this process's, for the passes over pixels in
C; ONNX Runtime gets its own.
"""

from __future__ import annotations

import functools
import importlib.util
import os

_without_torch = 0


def compute_with(count: int) -> None:
    """Let this thread, and those started later, compute with this many; 0 for the usual number."""
    global _without_torch
    if importlib.util.find_spec("torch") is None:
        _without_torch = count
        return
    import torch

    usual = usual_threads()  # asked first: it cannot be found out any more once another is set
    torch.set_num_threads(count or usual)


def without_torch() -> int:
    """The number that was set, else the number of cores."""
    return _without_torch or os.cpu_count() or 1


@functools.cache
def usual_threads() -> int:
    """torch's own default, from the cores or the environment."""
    import torch

    return torch.get_num_threads()
