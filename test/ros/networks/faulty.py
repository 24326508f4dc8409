"""A network that follows orders from a file, for tests of how the node survives its faults."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Facts, Output, State


@dataclass(frozen=True)
class Config:
    orders: str = ""
    """A file with one order: none, raise, nan, memory, hang, or slow and seconds per stage."""
    scale: int = 1
    stages: int = 1


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(paper="none", recurrent=True)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.gain = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        """Halves the brightness of the frame. The state counts frames."""
        order = self._order()
        if order == "raise":
            raise RuntimeError("told to fail")
        if order == "memory":
            raise torch.OutOfMemoryError("told to run out of memory")
        while order == "hang":
            time.sleep(0.02)
            order = self._order()
        if order.startswith("slow"):
            pixels = frame.shape[-1] * frame.shape[-2]
            time.sleep(float(order.split()[1]) * self.stages * pixels / (64 * 48))
        derained = frame * self.gain * (float("nan") if order == "nan" else 1.0)
        derained = derained.repeat_interleave(self.config.scale, 2)
        derained = derained.repeat_interleave(self.config.scale, 3)
        count = state[0] + 1 if state else torch.ones(len(frame), 1)
        return Output(derained, frame[:, :1] * 0 + 0.5, (count,), count[:, 0] / 100)

    def _order(self) -> str:
        return Path(self.config.orders).read_text() if self.config.orders else ""
