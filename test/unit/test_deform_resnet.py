"""Deformable convolution is correct, and its network trains as in the paper."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.networks import create, deform_resnet
from rain_removal_ros.networks._base import Batch
from rain_removal_ros.networks.deform_resnet import (
    Config,
    DeformableConv,
    deformable_convolution,
    mixed_rain,
    robust_loss,
)
from rain_removal_ros.runtime import native
from rain_removal_ros.training.optimisation import create_optimiser
from rain_removal_ros.training.recipe import OptimiserSettings


@pytest.fixture(params=["in C", "in torch"])
def sampling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The implementation that takes the samples."""
    if request.param == "in torch":
        monkeypatch.setattr(native, "library", None)
    elif native.library is None:
        pytest.skip("the library was not built")
    return str(request.param)


def interpolated(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """A C x H x W image at one position, interpolated bilinearly, with zeros around it."""
    total = torch.zeros(len(image))
    for row, column in itertools.product((0, 1), repeat=2):
        down, right = int(y.floor()) + row, int(x.floor()) + column
        if 0 <= down < image.shape[1] and 0 <= right < image.shape[2]:
            share = (1 - (y - down).abs()) * (1 - (x - right).abs())
            total = total + share * image[:, down, right]
    return total


def convolution_by_loops(
    image: Tensor, offsets: Tensor, weight: Tensor, modulation: Tensor | None
) -> Tensor:
    batch, _, height, width = offsets.shape
    rows, columns = weight.shape[2:]
    result = []
    for sample, y, x in itertools.product(range(batch), range(height), range(width)):
        total = torch.zeros(len(weight))
        for tap, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
            down, right = offsets[sample, 2 * tap : 2 * tap + 2, y, x]
            values = interpolated(image[sample], y + row + down, x + column + right)
            if modulation is not None:
                values = values * modulation[sample, tap, y, x]
            total = total + weight[:, :, row, column] @ values
        result.append(total)
    return torch.stack(result).view(batch, height, width, -1).permute(0, 3, 1, 2)


def example(*, modulated: bool, size: tuple[int, int] = (6, 8)) -> list[Tensor | None]:
    """Image, offsets that sometimes leave the image, weight, modulation."""
    generator = torch.Generator().manual_seed(1)
    height, width = size
    shapes: list[tuple[int, ...]] = [
        (2, 3, height, width),
        (2, 18, height - 2, width - 2),
        (4, 3, 3, 3),
        (2, 9, height - 2, width - 2),
    ]
    tensors: list[Tensor | None] = [
        torch.randn(shape, generator=generator).requires_grad_() for shape in shapes
    ]
    offsets = tensors[1]
    assert offsets is not None
    offsets.data.mul_(2)
    return tensors if modulated else [*tensors[:3], None]


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.usefixtures("sampling")
def test_deformable_convolution_and_its_gradients_equal_those_of_loops(modulated: bool) -> None:
    inputs: list[Any] = example(modulated=modulated)
    fast, slow = deformable_convolution(*inputs), convolution_by_loops(*inputs)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)

    tensors = [tensor for tensor in inputs if tensor is not None]
    error = torch.randn(fast.shape, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(
        torch.autograd.grad(fast, tensors, error),
        torch.autograd.grad(slow, tensors, error),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_convolution_equals_that_of_torchvision(modulated: bool) -> None:
    ops = pytest.importorskip("torchvision.ops")
    inputs: list[Any] = example(modulated=modulated, size=(31, 45))
    image, offsets, weight, modulation = inputs
    expected = ops.deform_conv2d(image, offsets, weight, mask=modulation)
    torch.testing.assert_close(deformable_convolution(*inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("sampling")
def test_zero_offsets_give_an_ordinary_convolution() -> None:
    image, weight = torch.randn(2, 3, 9, 12), torch.randn(4, 3, 3, 3)
    result = deformable_convolution(image, torch.zeros(2, 18, 7, 10), weight)
    torch.testing.assert_close(result, F.conv2d(image, weight), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("sampling")
def test_sampling_in_bands_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs: list[Any] = example(modulated=True, size=(13, 8))
    whole = deformable_convolution(*inputs)
    monkeypatch.setattr(deform_resnet, "_COLUMNS_AT_ONCE", 1000)
    torch.testing.assert_close(deformable_convolution(*inputs), whole)


@pytest.mark.usefixtures("sampling")
def test_positions_stay_exact_under_bfloat16() -> None:
    # bfloat16 has no odd numbers beyond 256: the samples would miss their stripes.
    stripes = (torch.arange(600) % 2).float().expand(1, 1, 3, 600)
    middle = torch.zeros(1, 1, 3, 3)
    middle[..., 1, 1] = 1
    with torch.autocast("cpu", torch.bfloat16):
        result = deformable_convolution(
            stripes, torch.zeros(1, 18, 1, 598, dtype=torch.bfloat16), middle
        )
    torch.testing.assert_close(result.float(), stripes[:, :, 1:2, 1:-1], rtol=0, atol=1e-2)


@pytest.mark.parametrize("modulated", [True, False])
def test_a_deformable_layer_starts_as_an_ordinary_convolution(modulated: bool) -> None:
    layer = DeformableConv(4, Config(modulated=modulated, padding="zeros"))
    features = torch.randn(1, 4, 6, 7)
    expected = F.conv2d(features, layer.weight, padding=1)
    torch.testing.assert_close(layer(features), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "bottleneck", "middle"), [(32, 64, 48), (64, 256, 128)])
def test_the_projection_has_1024_features_at_both_widths(
    channels: int, bottleneck: int, middle: int
) -> None:
    network: Any = create("deform_resnet", channels=channels, bottleneck=bottleneck, blocks=1)
    with torch.no_grad():
        scales = network.eval().encode(torch.rand(2, 3, 32, 40))
    assert [scale.shape[1] for scale in scales] == [channels, middle, bottleneck]
    assert network.project(scales[-1]).shape == (2, 1024)


@pytest.mark.parametrize(
    "change",
    [
        {"scales": 1},
        {"activation": "leaky_relu"},
        {"initialisation": "normal"},
        {"padding": "replicate"},
        {"padding": "zeros"},
        {"output": "residual"},
    ],
)
def test_a_network_with_any_option_runs(change: dict[str, Any]) -> None:
    network = create("deform_resnet", channels=8, bottleneck=16, blocks=1, **change).eval()
    frame = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        first = network(frame)
        second = network(frame, first.state)
    assert second.derained.shape == frame.shape
    assert 0 <= second.derained.min() <= second.derained.max() <= 1


def test_the_error_for_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="mish, leaky_relu"):
        create("deform_resnet", activation="relu")


def test_the_robust_loss_equals_the_formula_of_the_paper() -> None:
    rainy, reference = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    features = torch.cat([rainy, reference])
    expected = 0.0
    for anchor, partner in [(0, 3), (1, 4), (2, 5), (3, 0), (4, 1), (5, 2)]:
        alike = {
            other: math.exp(F.cosine_similarity(features[anchor], features[other], 0) / 0.25)
            for other in range(6)
            if other != anchor
        }
        expected -= math.log(alike[partner] / sum(alike.values())) / 6
    assert float(robust_loss(rainy, reference, temperature=0.25)) == pytest.approx(
        expected, rel=1e-4
    )


def test_the_robust_loss_of_a_single_picture_is_zero() -> None:
    rainy = torch.randn(1, 8, requires_grad=True)
    loss = robust_loss(rainy, torch.randn(1, 8), temperature=0.25)
    loss.backward()
    assert loss.item() == 0
    assert rainy.grad is not None
    assert rainy.grad.isfinite().all()


def clips(*, size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(5)
    reference = torch.rand(2, 1, 3, 4, 4, generator=generator) * 0.4 + 0.2
    reference = reference.repeat_interleave(size // 4, -1).repeat_interleave(size // 4, -2)
    reference = reference.repeat(1, 2, 1, 1, 1)
    streaks = (torch.rand(2, 2, 1, 1, size, generator=generator) > 0.8) * 0.3
    return Batch(rainy=reference + streaks, reference=reference)


def test_mixed_rain_depends_on_the_seed_and_mixes_the_rain_of_the_batch() -> None:
    batch = clips()
    torch.manual_seed(3)
    mixed = mixed_rain(batch, share=1.0)
    torch.manual_seed(3)
    assert torch.equal(mixed, mixed_rain(batch, share=1.0))
    assert torch.equal(mixed_rain(batch, share=0.0), batch.rainy)
    rain, own = mixed - batch.reference, batch.rainy - batch.reference
    assert (rain - own).abs().mean() > 0.01
    assert rain.min() >= -1e-6
    assert rain.max() <= own.max() + 1e-6
    assert 0.3 < rain.mean() / own.mean() < 3


def test_all_frames_of_a_clip_get_the_same_mix_of_rain() -> None:
    batch = clips()
    rainy = batch.rainy[:, :1].expand_as(batch.rainy)  # the same rain in all frames
    rain = mixed_rain(Batch(rainy, batch.reference), share=1.0) - batch.reference
    torch.testing.assert_close(rain[:, 0], rain[:, 1])


def test_offset_layers_learn_at_a_tenth_of_the_rate() -> None:
    network = create("deform_resnet", channels=8, bottleneck=16, blocks=1)
    objective = deform_resnet.Objective(network)
    settings = OptimiserSettings(rate=1e-3)
    parameters = objective.players()["network"]
    optimiser = create_optimiser("network", parameters, settings, objective.rates())
    fields = {name for name, _ in network.named_parameters() if ".field." in name}
    rate_of = {
        id(parameter): group["initial_lr"]
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    assert len(rate_of) == len(parameters)
    for name, parameter in network.named_parameters():
        assert rate_of[id(parameter)] == pytest.approx(1e-4 if name in fields else 1e-3), name


def test_rain_is_not_mixed_in_evaluation() -> None:
    network = create("deform_resnet", channels=8, bottleneck=16, blocks=1)
    objective = deform_resnet.Objective(network).eval()
    losses = [objective(clips()) for _ in range(2)]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_thirty_steps_on_two_clips_lower_the_loss() -> None:
    torch.manual_seed(0)
    network = create("deform_resnet", channels=8, bottleneck=16, blocks=2)
    objective = deform_resnet.Objective(network).train()
    optimiser = torch.optim.Adam(objective.players()["network"], 3e-3)
    batch, history = clips(), []
    for _ in range(30):
        losses = objective(batch)
        total = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(total.item())
    assert set(losses) == {"ms_ssim", "l1", "robust"}
    assert sum(history[-5:]) < 0.7 * sum(history[:5])
    moved = [layer.field.weight for layer in network.modules() if isinstance(layer, DeformableConv)]
    assert all(weight.abs().max() > 0 for weight in moved)
