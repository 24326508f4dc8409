"""Hands frames on as they are: what remains is what the node costs around a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Facts, Output, State


@dataclass(frozen=True)
class Config:
    pass


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(paper="none", recurrent=False)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        return Output(frame, frame[:, :1], ())
