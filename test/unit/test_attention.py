"""Attention maps learn where rain changed the picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros import networks
from rain_removal_ros.metrics import correlation
from rain_removal_ros.networks._base import Batch, Objective, attention_loss, change_map

SMALL: dict[str, dict[str, Any]] = {
    "rranet": {"channels": 8, "stages": 1},
    "frequency_gan": {"channels": 8, "stages": 1, "blocks": 1, "adversarial_weight": 0.0},
    "joint_derain_sr": {"channels": 8, "blocks": 1, "scale": 1, "regions": "none"},
}


def streaked(seed: int, count: int = 4, side: int = 32) -> tuple[Tensor, Tensor]:
    """Rainy pictures and their references: smooth scenes with a few upright streaks."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 0.6
    reference = F.interpolate(coarse, side, mode="bilinear")
    columns = torch.rand(count, 1, 1, side, generator=generator) > 0.85
    rows = torch.rand(count, 1, side // 8, 1, generator=generator) > 0.4
    streaks = 0.2 * columns * F.interpolate(rows.float(), (side, 1))
    return (reference + streaks).clamp(0, 1), reference


def correlation_after(name: str, steps: int, **config: Any) -> float:
    """The correlation of attention with the true change, on pictures not trained on."""
    torch.manual_seed(0)
    network = networks.create(name, **SMALL[name], **config)
    objective: Objective = networks.module(name).Objective(network).train()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(steps):
        rainy, reference = streaked(step)
        losses = objective(Batch(rainy[:, None], reference[:, None]))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    rainy, reference = streaked(10_000, count=8)
    with torch.no_grad():
        attention = network.eval()(rainy).attention
    change = (rainy - reference).abs().mean(1, keepdim=True)
    pairs = zip(attention.numpy(), change.numpy(), strict=True)
    return sum(correlation(*pair) for pair in pairs) / len(rainy)


@pytest.mark.parametrize(("name", "steps"), [("rranet", 60), ("frequency_gan", 300)])
def test_the_attention_loss_makes_attention_follow_the_change_by_rain(
    name: str, steps: int
) -> None:
    assert correlation_after(name, steps, attention_weight=1.0) > 0.5
    assert correlation_after(name, steps, attention_weight=0.0) < 0.5


@pytest.mark.parametrize("name", list(SMALL))
def test_a_weight_of_zero_removes_the_attention_loss(name: str) -> None:
    network = networks.create(name, **SMALL[name], attention_weight=0.0)
    rainy, reference = streaked(0)
    losses = networks.module(name).Objective(network)(Batch(rainy[:, None], reference[:, None]))
    assert "attention" not in losses


def test_the_true_change_has_the_smallest_loss() -> None:
    rainy, reference = streaked(0)
    truth = change_map(reference, rainy).clone().requires_grad_()
    least = attention_loss(truth, reference, rainy)
    (slope,) = torch.autograd.grad(least, truth)
    assert slope[(truth > 0.01) & (truth < 0.99)].abs().max() < 1e-6
    for wrong in (torch.zeros_like(truth), truth.flip(-1), truth * 0.5 + 0.2):
        assert attention_loss(wrong, reference, rainy) > least + 0.01


def test_the_loss_of_an_inverted_map_is_finite_in_half_precision() -> None:
    rainy, reference = streaked(0)
    wrong = (1 - change_map(reference, rainy)).round().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = attention_loss(wrong.bfloat16(), reference, rainy)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
