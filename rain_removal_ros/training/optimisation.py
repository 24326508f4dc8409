"""Optimisers, the learning-rate schedule, and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rain_removal_ros.networks._base import Network
from rain_removal_ros.training.recipe import OptimiserSettings, ScheduleSettings


def create_optimiser(
    player: str,
    parameters: list[nn.Parameter],
    settings: OptimiserSettings,
    rates: Mapping[nn.Parameter, float] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser of one player; each group remembers its peak rate.

    ``rates`` are factors on the rate of some parameters.
    """
    rate = settings.rate
    if player != "network" and settings.helper_rate:
        rate = settings.helper_rate
    grouped: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        grouped.setdefault((rates or {}).get(parameter, 1.0), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": members, "initial_lr": rate * factor} for factor, members in grouped.items()
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, rate, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    first, second = settings.betas
    return kind(groups, rate, betas=(first, second), weight_decay=settings.weight_decay, fused=True)


def load_moments(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's moments, but none of its settings: those come from the recipe."""
    settings = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimiser.param_groups
    ]
    optimiser.load_state_dict(state)
    for group, ours in zip(optimiser.param_groups, settings, strict=True):
        group.update(ours)


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    for parameters in optimiser.param_groups:
        parameters["lr"] = parameters["initial_lr"] * factor


def schedule_factor(settings: ScheduleSettings, step: int, steps: int) -> float:
    """The learning rate at ``step`` of ``steps``, relative to its peak."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    factor = settings.gamma ** sum(step >= milestone for milestone in settings.milestones)
    if settings.name == "cosine":
        factor *= settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * done))
    elif settings.name == "poly":
        factor *= (1 - done) ** settings.power
    return float(factor)


@torch.no_grad()
def update_mean(mean: Network, network: Network, *, keep: float, step: int) -> None:
    """Update the running mean of the weights; it forgets faster at first, to lose the beginning."""
    share = 1 - min(keep, step / (step + 10))
    torch._foreach_lerp_(list(mean.parameters()), list(network.parameters()), share)
    for kept, current in zip(mean.buffers(), network.buffers(), strict=True):
        kept.copy_(current)
