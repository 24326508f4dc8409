"""Rain for tests that compute in torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rain_removal_ros.data import rain
from rain_removal_ros.data.rain import Rain


class Rendered(NamedTuple):
    """What ``rain.render`` returns, as tensors."""

    rainy: Tensor
    streaks: Tensor
    transmission: Tensor
    level: float


def render(reference: Tensor, drawn: Rain, *, depth: Tensor | None = None, **more: Any) -> Rendered:
    given = None if depth is None else depth.numpy()
    *planes, level = rain.render(reference.numpy(), drawn, depth=given, **more)
    rainy, streaks, transmission = map(torch.from_numpy, planes)
    return Rendered(rainy, streaks, transmission, level)
