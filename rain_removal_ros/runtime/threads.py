"""How many threads compute a frame.

In torch each thread of Python has a number of its own: what one sets holds for itself and for those
that begin later, not for others that are at work. Without torch the number is this process's, for
the passes over pixels in C; ONNX Runtime is given its own.
"""

from __future__ import annotations

import functools
import importlib.util
import os

_without_torch = 0


def compute_with(count: int) -> None:
    """Let this thread, and those begun later, compute with so many; 0 for the usual number."""
    global _without_torch
    if importlib.util.find_spec("torch") is None:
        _without_torch = count
        return
    import torch

    usual = usual_threads()  # asked first: it cannot be told any more once another is set
    torch.set_num_threads(count or usual)


def without_torch() -> int:
    """As many as were asked for, else as many as there are cores."""
    return _without_torch or os.cpu_count() or 1


@functools.cache
def usual_threads() -> int:
    """As many as torch takes by itself, for the cores there are or as the environment says."""
    import torch

    return torch.get_num_threads()
