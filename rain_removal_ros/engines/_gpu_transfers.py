"""Copies frames to and from a GPU while it computes others.

Copies run on streams of their own, between the GPU and pinned memory. That memory is torch's, which
does not reuse it before the copies are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Transfers:
    """Copies between this machine's memory and one GPU's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._upwards = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downwards = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def memory(self, shape: Sequence[int], kind: torch.dtype = torch.uint8) -> Tensor:
        """Pinned host memory, which copies can use asynchronously."""
        return torch.empty(*shape, dtype=kind, pin_memory=True)

    def up(self, values: Tensor) -> Tensor:
        """The same on the GPU, available to everything computed from now on."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._upwards):
            there = values.to(self._device, non_blocking=True)
        computing.wait_stream(self._upwards)
        there.record_stream(computing)  # its memory is in use until then
        return there

    def down(self, values: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[], object]]:
        """The same in host memory, valid once the returned function, which waits, has returned."""
        self._downwards.wait_stream(torch.cuda.current_stream(self._device))
        here = []
        with torch.cuda.stream(self._downwards):
            for each in values:
                each.record_stream(self._downwards)
                target = self.memory(each.shape, each.dtype)
                here.append(target.copy_(each, non_blocking=True))
            # Waiting leaves the core to other threads.
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record(self._downwards)
        return here, arrived.synchronize
