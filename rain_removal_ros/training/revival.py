"""Starts hidden units anew that have died.

A rectified unit whose input is never positive has no gradient and never comes back. Adam moves
weights as far for noise as for signal, so in long runs with small batches more and more units die.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rain_removal_ros.networks._base import Network, State

_RARELY = 2e-4
"""A unit is dead if it is positive in a smaller share of all places."""
_QUIETLY = 0.1
"""How strong a new unit is, relative to the others, where the layers that read it are not known."""
_WEAKEST, _STRONGEST = 0.05, 1.0
"""Limits of a new unit's standard deviation, in case hardly any unit of its layer is alive."""


class Change(NamedTuple):
    """Part of a parameter that was set anew."""

    parameter: str
    dim: int
    units: Tensor


class _Inputs(NamedTuple):
    """What the rectifiers of one layer get, for each unit."""

    mean: Tensor
    std: Tensor
    positive: Tensor
    """In what share of all places."""


@torch.no_grad()
def revive(network: Network, clips: Sequence[Tensor], seed: int = 0) -> list[Change]:
    """Give the units that are dead on all ``clips``, B x T x 3 x H x W, new random weights.

    If one layer alone reads a unit, its weights for it become zero, so the result stays the same
    at first; the unit's gradient does not.
    """
    random = torch.Generator().manual_seed(seed)
    layers = network.rectified()
    names = {module: name for name, module in network.named_modules()}
    before = _inputs(network, layers, clips)
    dead = {layer: (found.positive < _RARELY).nonzero()[:, 0] for layer, found in before.items()}
    dead = {layer: units for layer, units in dead.items() if len(units)}
    changes: list[Change] = []
    for layer, units in dead.items():
        # Not empty_like: random numbers fill memory, whose order may differ after a resume.
        fresh = torch.empty(len(units), *layer.weight.shape[1:])
        nn.init.kaiming_normal_(fresh, nonlinearity="relu", generator=random)
        layer.weight[units] = fresh.to(layer.weight)
        changes.append(Change(f"{names[layer]}.weight", 0, units))
        if layer.bias is not None:
            layer.bias[units] = 0
            changes.append(Change(f"{names[layer]}.bias", 0, units))
        if (reader := layers[layer]) is not None:
            reader.weight[:, units] = 0
            changes.append(Change(f"{names[reader]}.weight", 1, units))
    now = _inputs(network, dead, clips)
    for layer, units in dead.items():
        alive = before[layer].std[before[layer].positive >= _RARELY]
        usual = float(alive.median()) if len(alive) else _STRONGEST
        wanted = min(max(usual, _WEAKEST), _STRONGEST)
        wanted *= 1.0 if layers[layer] is not None else _QUIETLY
        factor = wanted / now[layer].std[units].clamp_min(1e-6)
        layer.weight[units] *= factor[:, None, None, None]
        if layer.bias is not None:
            layer.bias[units] = -now[layer].mean[units] * factor
    return changes


@torch.no_grad()
def copy_changes(changes: Sequence[Change], source: nn.Module, target: nn.Module) -> None:
    """Set the same parts of ``target``, such as the mean of the weights."""
    given, taken = dict(source.named_parameters()), dict(target.named_parameters())
    for name, dim, units in changes:
        taken[name].index_copy_(dim, units, given[name].index_select(dim, units))


def _inputs(
    network: Network, layers: Mapping[nn.Conv2d, object], clips: Sequence[Tensor]
) -> dict[nn.Conv2d, _Inputs]:
    sums: dict[nn.Conv2d, Tensor] = {}
    places: dict[nn.Conv2d, int] = {}

    def see(layer: nn.Conv2d, _: object, output: Tensor) -> None:
        value = output.float()
        over = (0, 2, 3)
        seen = torch.stack([value.sum(over), value.square().sum(over), (value > 0).sum(over)])
        sums[layer] = sums.get(layer, 0) + seen
        places[layer] = places.get(layer, 0) + value[:, 0].numel()

    handles = [layer.register_forward_hook(see) for layer in layers]
    try:
        for clip in clips:
            state: State = ()
            for frame in clip.unbind(1):
                state = network(frame, state).state
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for layer, total in sums.items():
        mean, square, positive = total / places[layer]
        found[layer] = _Inputs(mean, (square - mean**2).clamp_min(0).sqrt(), positive)
    return found
