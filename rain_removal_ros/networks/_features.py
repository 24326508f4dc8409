"""Passes over feature maps between convolutions, each in one go where inference runs on a CPU.

What is given first may be overwritten.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.networks import _native as native


def raised(fine: Tensor, coarse: Tensor) -> Tensor:
    """``fine`` and, enlarged twice, ``coarse``."""
    if native.serves_features(fine, coarse):
        return native.raised(fine, coarse)
    return fine + F.interpolate(coarse, scale_factor=2.0)


def recalled(joined: Tensor, gates: Tensor) -> Tensor:
    """Inputs and hidden state ``joined``, and of the state as much as the second gates let in."""
    if native.serves_features(joined, gates):
        return native.recalled(joined, gates)
    reset = gates.chunk(2, 1)[1].sigmoid()
    inputs = joined.shape[1] - reset.shape[1]
    return torch.cat([joined[:, :inputs], reset * joined[:, inputs:]], 1)


def renewed(hidden: Tensor, gates: Tensor, candidate: Tensor) -> Tensor:
    """The hidden state on its way to the candidate, as far as the first gates let it."""
    if native.serves_features(hidden, gates, candidate):
        return native.renewed(hidden, gates, candidate)
    return torch.lerp(hidden, candidate.tanh(), gates.chunk(2, 1)[0].sigmoid())
