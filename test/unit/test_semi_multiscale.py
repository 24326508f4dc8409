"""Real rain without a reference trains the features, and only them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.networks import create, semi_multiscale
from rain_removal_ros.networks._base import Batch, Network
from rain_removal_ros.networks.semi_multiscale import matching_losses


def small(**config: Any) -> Network:
    torch.manual_seed(0)
    return create("semi_multiscale", channels=8, units=2, **config)


def pairs(*, size: int = 32) -> Batch:
    """Two synthetic pairs, and darker, denser real rain."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.rand(2, 3, 4, 4, generator=generator) * 0.4 + 0.2
    reference = F.interpolate(blocks, size=size)[:, None]
    streaks = (torch.rand(2, 1, 1, 1, size, generator=generator) > 0.8) * 0.3
    real = torch.rand(3, 1, 3, size, size, generator=generator) * 0.3
    return Batch(rainy=reference + streaks, reference=reference, unlabelled=real)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_matching_losses_follow_the_papers_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    synthetic = torch.randn(2, 5, 6, 7, generator=generator)
    real = torch.randn(3, 5, 4, 9, generator=generator) * 2 + 1
    vectors = [side.permute(1, 0, 2, 3).reshape(5, -1).numpy() for side in (synthetic, real)]
    means = [side.mean(1) for side in vectors]
    covariances = [np.cov(side, bias=True) for side in vectors]

    mean, covariance = matching_losses(synthetic, real)
    assert float(mean) == pytest.approx(np.linalg.norm(means[0] - means[1]), rel=1e-4)
    expected = np.linalg.norm(covariances[0] - covariances[1]) / 5
    assert float(covariance) == pytest.approx(expected, rel=1e-4)


def test_equal_features_have_no_loss_and_a_finite_gradient() -> None:
    features = torch.randn(2, 4, 6, 6, requires_grad=True)
    mean, covariance = matching_losses(features, features.detach().clone())
    assert (mean + covariance).item() == pytest.approx(0, abs=1e-5)
    (mean + covariance).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_matching_does_not_depend_on_the_amount_of_data() -> None:
    synthetic, real = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
    expected = matching_losses(synthetic, real)
    torch.testing.assert_close(matching_losses(synthetic.repeat(2, 1, 2, 3), real), expected)


def test_matching_is_exact_under_bfloat16() -> None:
    synthetic, real = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
    expected = matching_losses(synthetic, real)
    with torch.autocast("cpu", torch.bfloat16):
        assert matching_losses(synthetic, real) == expected


def test_matching_is_left_out_without_real_rain() -> None:
    objective = semi_multiscale.Objective(small())
    batch = pairs()
    assert set(objective(batch)) == {"ssim", "mean", "covariance"}
    batch.unlabelled = None
    assert set(objective(batch)) == {"ssim"}


def test_matching_can_be_switched_off_and_weighted() -> None:
    batch = pairs()
    assert set(semi_multiscale.Objective(small(matching=False))(batch)) == {"ssim"}
    once = semi_multiscale.Objective(small())(batch)
    twice = semi_multiscale.Objective(small(matching_weight=2.0))(batch)
    for name, factor in (("mean", 2), ("covariance", 2), ("ssim", 1)):
        torch.testing.assert_close(twice[name], factor * once[name])


def test_matching_trains_the_features_and_nothing_after_them() -> None:
    network = small()
    losses = semi_multiscale.Objective(network)(pairs())
    (losses["mean"] + losses["covariance"]).backward()
    trained = {
        name.split(".")[0] for name, value in network.named_parameters() if value.grad is not None
    }
    assert trained == {"transform", "matching"}


def test_a_unit_sees_further_with_every_scale() -> None:
    """Pooling by 2 ** (i - 1) is there to spread the effect of one pixel further."""
    reaches = []
    for scales in (1, 2, 3):
        network = small(scales=scales, cascade=1).eval()
        unit: Any = network.units[0]  # type: ignore[index]
        features = torch.zeros(1, 8, 32, 32)
        changed = features.clone()
        changed[..., 16, 16] = 10
        with torch.no_grad():
            difference = (unit(changed) - unit(features)).abs().sum((0, 1, 2))
        reaches.append(int((difference > 0).sum()))
    assert reaches == [3, 6, 12]


@pytest.mark.parametrize(
    "change",
    [{"scales": 1}, {"scales": 4}, {"upsampling": "bilinear"}, {"output": "background"}],
)
def test_the_network_runs_with_every_option(change: dict[str, Any]) -> None:
    frame = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        output = small(**change).eval()(frame)
    assert output.derained.shape == frame.shape
    assert 0 <= output.derained.min() <= output.derained.max() <= 1


def test_more_scales_than_the_padding_allows_are_refused() -> None:
    with pytest.raises(SettingsError, match="1, 2, 3, 4"):
        small(scales=5)


def test_thirty_steps_on_two_pairs_lower_the_loss() -> None:
    network = small()
    objective = semi_multiscale.Objective(network).train()
    optimiser = torch.optim.Adam(objective.players()["network"], 2e-3)
    batch, history = pairs(), []
    for _ in range(30):
        losses = objective(batch)
        optimiser.zero_grad()
        total(losses).backward()
        optimiser.step()
        history.append({name: value.item() for name, value in losses.items()})
    assert history[-1]["ssim"] < 0.7 * history[0]["ssim"]
    assert history[-1]["mean"] < 0.7 * history[0]["mean"]
