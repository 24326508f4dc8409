"""How many threads compute a frame.

In torch each thread of Python has a number of its own: what one sets holds for itself and for those
that begin later, not for others that are at work.
"""

from __future__ import annotations

import functools


def compute_with(count: int) -> None:
    """Let this thread, and those begun later, compute with so many; 0 for the usual number."""
    import torch

    usual = usual_threads()  # asked first: it cannot be told any more once another is set
    torch.set_num_threads(count or usual)


@functools.cache
def usual_threads() -> int:
    """As many as torch takes by itself, for the cores there are or as the environment says."""
    import torch

    return torch.get_num_threads()
