"""Frames on their way to a GPU and back, while it computes others.

Copies run on streams of their own, from and to memory that the GPU reaches by itself. That memory
is torch's, which hands none of it out again before the copies that use it are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Transfers:
    """Between this machine's memory and one GPU's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._upwards = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downwards = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def memory(self, shape: Sequence[int], kind: torch.dtype = torch.uint8) -> Tensor:
        """Host memory that copies need not wait for."""
        return torch.empty(*shape, dtype=kind, pin_memory=True)

    def up(self, values: Tensor) -> Tensor:
        """The same on the GPU, for whatever is computed from now on."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._upwards):
            there = values.to(self._device, non_blocking=True)
        computing.wait_stream(self._upwards)
        there.record_stream(computing)  # its memory is in use until that is done
        return there

    def down(self, values: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[], object]]:
        """The same in host memory, once the function beside it, which waits, has returned."""
        self._downwards.wait_stream(torch.cuda.current_stream(self._device))
        here = []
        with torch.cuda.stream(self._downwards):
            for each in values:
                each.record_stream(self._downwards)
                target = self.memory(each.shape, each.dtype)
                here.append(target.copy_(each, non_blocking=True))
            # Whoever waits leaves the core to others.
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record(self._downwards)
        return here, arrived.synchronize
