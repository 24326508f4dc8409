"""SSIM and MS-SSIM as losses: equal to scikit-image's, differentiable, for any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import Tensor

from rain_removal_ros.losses import ms_ssim, ssim


def pair(height: int, width: int, *, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """A smooth coloured picture and the same with noise, 1 x 3 x H x W."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.linspace(0, 6, height).sin().view(1, 1, -1, 1)
    columns = torch.linspace(0, 9, width).cos().view(1, 1, 1, -1)
    tint = torch.tensor([0.25, 0.2, 0.15]).view(1, 3, 1, 1)
    reference = 0.5 + tint * (rows + columns)
    noisy = reference + noise * torch.randn(reference.shape, generator=generator)
    return reference.clamp(0, 1), noisy.clamp(0, 1)


def scikit_image_ssim(first: Tensor, second: Tensor) -> float:
    """scikit-image's SSIM with Wang's window, over the pixels whose window lies in the picture."""
    _, similarity = structural_similarity(
        *(picture[0].permute(1, 2, 0).double().numpy() for picture in (first, second)),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=2,
        full=True,
    )
    return float(np.asarray(similarity)[5:-5, 5:-5].mean())


def contrast_factor(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The contrast and structure factor of SSIM over one plane, without its borders."""

    def blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred: NDArray[np.float64] = gaussian_filter(plane, 1.5, radius=5)[5:-5, 5:-5]
        return blurred

    variances = blur(first**2) - blur(first) ** 2 + blur(second**2) - blur(second) ** 2
    covariance = blur(first * second) - blur(first) * blur(second)
    return float(((2 * covariance + 0.03**2) / (variances + 0.03**2)).mean())


@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 23), (11, 11)])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_ssim_agrees_with_scikit_image(height: int, width: int, noise: float) -> None:
    first, second = pair(height, width, noise=noise)
    assert ssim(first, second).item() == pytest.approx(scikit_image_ssim(first, second), abs=1e-5)


def test_ssim_of_a_batch_is_the_mean_of_its_pictures() -> None:
    first, second = pair(32, 32)
    _, worse = pair(32, 32, noise=0.3)
    both = ssim(torch.cat([first, first]), torch.cat([second, worse]))
    torch.testing.assert_close(both, (ssim(first, second) + ssim(first, worse)) / 2)


@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_autocast_does_not_change_the_result(
    similarity: Callable[[Tensor, Tensor], Tensor],
) -> None:
    first, second = pair(48, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarity(first, second)
    assert torch.equal(inside, similarity(first, second))


def test_ssim_works_on_a_picture_smaller_than_its_window() -> None:
    first, second = pair(7, 30)
    assert ssim(first, first).item() == pytest.approx(1)
    assert 0 < ssim(first, second).item() < 1


def test_ms_ssim_of_one_scale_is_ssim() -> None:
    first, second = pair(48, 64)
    torch.testing.assert_close(ms_ssim(first, second, weights=(1.0,)), ssim(first, second))


def test_ms_ssim_multiplies_the_contrasts_of_fine_scales_by_the_coarsest_ssim() -> None:
    first, second = (picture[:, :1] for picture in pair(64, 96))
    weights = (0.2, 0.3, 0.5)
    expected = 1.0
    for weight in weights[:-1]:
        planes = (picture[0, 0].double().numpy() for picture in (first, second))
        expected *= contrast_factor(*planes) ** weight
        first, second = (torch.nn.functional.avg_pool2d(each, 2) for each in (first, second))
    expected *= scikit_image_ssim(first, second) ** weights[-1]
    first, second = (picture[:, :1] for picture in pair(64, 96))
    assert ms_ssim(first, second, weights=weights).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [8, 16, 40, 200])
def test_ms_ssim_works_on_crops_of_any_size(size: int) -> None:
    first, second = pair(size, size)
    assert ms_ssim(first, first).item() == pytest.approx(1, abs=1e-5)
    assert 0 < ms_ssim(first, second).item() < 1


@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_following_the_gradient_makes_pictures_more_alike(
    similarity: Callable[[Tensor, Tensor], Tensor],
) -> None:
    first, second = pair(48, 48)
    second.requires_grad_()
    before = similarity(first, second)
    (gradient,) = torch.autograd.grad(before, second)
    assert gradient.isfinite().all()
    assert similarity(first, second + gradient / gradient.abs().max() * 0.01) > before
