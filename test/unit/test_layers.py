"""The shared layers equal definitions computed pixel by pixel."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rain_removal_ros.networks import _layers
from rain_removal_ros.networks._layers import (
    ConvLSTM,
    ResidualBlock,
    box_mean,
    conv_add,
    conv_relu,
    guided_filter,
    in_range,
    rlcn,
)

Plane = NDArray[np.float64]


@pytest.fixture
def picture() -> torch.Tensor:
    """A picture with noise, an edge and a flat corner, wider than high."""
    picture = torch.rand(2, 3, 9, 13, generator=torch.Generator().manual_seed(0)) * 0.4
    picture[..., 6:] += 0.5
    picture[..., :4, :4] = 0.25
    return picture


def neighbourhood(plane: Plane, row: int, column: int, radius: int) -> Plane:
    return plane[
        max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1
    ]


def naive_mean(plane: Plane, radius: int) -> Plane:
    mean = np.empty_like(plane)
    for row, column in np.ndindex(plane.shape):
        mean[row, column] = neighbourhood(plane, row, column, radius).mean()
    return mean


def naive_rlcn(plane: Plane, radius: int, epsilon: float) -> Plane:
    contrast = np.empty_like(plane)
    for row, column in np.ndindex(plane.shape):
        around = neighbourhood(plane, row, column, radius)
        excess = max(plane[row, column] - around.mean(), 0)
        contrast[row, column] = excess / (around.std() + epsilon)
    return contrast


def naive_guided_filter(plane: Plane, radius: int, epsilon: float) -> Plane:
    slope, offset = np.empty_like(plane), np.empty_like(plane)
    for row, column in np.ndindex(plane.shape):
        around = neighbourhood(plane, row, column, radius)
        slope[row, column] = around.var() / (around.var() + epsilon)
        offset[row, column] = around.mean() * (1 - slope[row, column])
    return naive_mean(slope, radius) * plane + naive_mean(offset, radius)


def assert_each_plane_is(result: torch.Tensor, expected: list[Plane], *, atol: float) -> None:
    planes = result.double().numpy().reshape(-1, *result.shape[2:])
    np.testing.assert_allclose(planes, np.stack(expected), rtol=0, atol=atol)


def planes_of(picture: torch.Tensor) -> list[Plane]:
    return list(picture.double().numpy().reshape(-1, *picture.shape[2:]))


@pytest.mark.parametrize("radius", [1, 4, 20])
def test_box_mean_averages_the_pixels_inside_the_picture(
    picture: torch.Tensor, radius: int
) -> None:
    expected = [naive_mean(plane, radius) for plane in planes_of(picture)]
    assert_each_plane_is(box_mean(picture, radius), expected, atol=1e-6)


@pytest.mark.parametrize("radius", [1, 4])
def test_rlcn_is_the_excess_over_the_local_mean_divided_by_the_local_deviation(
    picture: torch.Tensor, radius: int
) -> None:
    expected = [naive_rlcn(plane, radius, 0.01) for plane in planes_of(picture)]
    assert_each_plane_is(rlcn(picture, radius=radius, epsilon=0.01), expected, atol=1e-3)


def test_rlcn_of_a_flat_picture_is_zero() -> None:
    assert rlcn(torch.full((1, 3, 8, 8), 0.7), radius=2, epsilon=0.01).max() < 1e-4


@pytest.mark.parametrize("radius", [1, 4])
def test_guided_filter_is_a_local_linear_model_of_the_picture(
    picture: torch.Tensor, radius: int
) -> None:
    expected = [naive_guided_filter(plane, radius, 0.04) for plane in planes_of(picture)]
    assert_each_plane_is(guided_filter(picture, radius=radius, epsilon=0.04), expected, atol=1e-5)


def test_guided_filter_smooths_noise_and_keeps_an_edge() -> None:
    picture = 0.04 * torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    picture[..., 16:] += 0.9
    smooth = guided_filter(picture, radius=4, epsilon=0.04)
    assert smooth[..., :8].std() < 0.3 * picture[..., :8].std()
    step = smooth[..., 16] - smooth[..., 15]
    assert step.min() > 0.6


@pytest.mark.parametrize("shade", [0.0, 0.5])
def test_filters_have_finite_gradients_where_the_picture_is_flat(shade: float) -> None:
    picture = torch.full((1, 3, 8, 8), shade, requires_grad=True)
    total = rlcn(picture, radius=2, epsilon=0.01) + guided_filter(picture, radius=2, epsilon=0.04)
    (gradient,) = torch.autograd.grad(total.sum(), picture)
    assert gradient.isfinite().all()


def test_filters_of_a_half_precision_picture_compute_in_float32(picture: torch.Tensor) -> None:
    half = picture.half()
    exact = rlcn(half.float(), radius=4, epsilon=0.01)
    assert rlcn(half, radius=4, epsilon=0.01).dtype == torch.float16
    torch.testing.assert_close(
        rlcn(half, radius=4, epsilon=0.01).float(), exact, rtol=2e-3, atol=2e-3
    )


def test_conv_lstm_follows_its_equations() -> None:
    cell = ConvLSTM(2)
    generator = torch.Generator().manual_seed(0)
    features, hidden, memory = torch.randn(3, 1, 2, 5, 6, generator=generator).unbind()
    with torch.no_grad():
        gates = cell.gates(torch.cat([features, hidden], 1))
        admit, keep, emit = (torch.sigmoid(gates[:, at : at + 2]) for at in (0, 2, 4))
        expected = keep * memory + admit * torch.tanh(gates[:, 6:])
        new_hidden, new_memory = cell(features, (hidden, memory))
    torch.testing.assert_close(new_memory, expected)
    torch.testing.assert_close(new_hidden, emit * torch.tanh(expected))


def test_a_fresh_conv_lstm_starts_from_zeros() -> None:
    cell, features = ConvLSTM(4), torch.rand(2, 4, 7, 5)
    zeros = torch.zeros_like(features)
    fresh, given = cell(features), cell(features, (zeros, zeros))
    assert [tensor.shape for tensor in fresh] == [features.shape, features.shape]
    assert all(map(torch.equal, fresh, given))


def test_a_conv_lstm_keeps_channels_last() -> None:
    features = torch.rand(1, 4, 7, 5).to(memory_format=torch.channels_last)
    cell = ConvLSTM(4).to(memory_format=torch.channels_last)
    memory = None
    for _ in range(2):
        memory = cell(features, memory)
        for tensor in memory:
            assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("outputs", [4, 6])
def test_a_residual_block_without_weights_is_its_shortcut(outputs: int) -> None:
    block = ResidualBlock(4, outputs)
    torch.nn.init.zeros_(block.second.weight)
    torch.nn.init.zeros_(block.second.bias)
    features = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(features), block.shortcut(features).relu())


@pytest.mark.parametrize("stride", [1, 2])
def test_fused_convolutions_equal_separate_operations(stride: int) -> None:
    if _layers._fused() is None:
        pytest.skip("this torch or this processor has no convolution that fuses")
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(24, 40, 3, stride=stride, padding=1).to(torch.bfloat16)
    x = torch.randn(2, 24, 12, 20, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain = convolution(x).float()
        other = torch.randn(plain.shape, dtype=torch.bfloat16)
        kept = other.clone()
        assert _layers._fuses(convolution, x)
        rectified = conv_relu(convolution, x).float()
        summed = conv_add(convolution, x, other).float()
    torch.testing.assert_close(rectified, plain.relu(), atol=0.01, rtol=2**-7)
    torch.testing.assert_close(summed, plain + other.float(), atol=0.02, rtol=2**-7)
    assert other.equal(kept)


WITHOUT_INSTRUCTIONS = """
import torch
from rain_removal_ros.networks import _layers
convolution, x = torch.nn.Conv2d(3, 4, 3).bfloat16(), torch.rand(1, 3, 8, 8).bfloat16()
with torch.inference_mode():
    assert not _layers._fuses(convolution, x)
    assert _layers.conv_relu(convolution, x).equal(convolution(x).relu())
"""


def test_convolutions_are_not_fused_without_bfloat16_instructions() -> None:
    """There oneDNN refuses the fused convolution, and torch's own works."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", WITHOUT_INSTRUCTIONS], env=environment, check=True)


def test_in_range_clamps_values_and_keeps_gradients() -> None:
    values = torch.tensor([-0.5, 0.25, 1.5], requires_grad=True)
    clamped = in_range(values)
    assert clamped.tolist() == [0, 0.25, 1]
    (gradient,) = torch.autograd.grad(clamped.sum(), values)
    assert gradient.tolist() == [1, 1, 1]
