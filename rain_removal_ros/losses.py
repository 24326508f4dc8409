"""Image losses that several networks share. All take B x C x H x W in [0, 1], in float32."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.runtime import native

_K1, _K2 = 0.01, 0.03
_WINDOW, _SIGMA = 11, 1.5


def ssim(first: Tensor, second: Tensor, *, window: int = _WINDOW, sigma: float = _SIGMA) -> Tensor:
    """Mean structural similarity (Wang et al. 2004), Gaussian window, borders left out."""
    if (window, sigma) == (_WINDOW, _SIGMA) and _in_one_pass(first, second):
        return _Similarity.apply(first, second)  # type: ignore[no-any-return, no-untyped-call]
    similarity, _ = _ssim_terms(first, second, window, sigma)
    return similarity.mean()


def _in_one_pass(first: Tensor, second: Tensor) -> bool:
    """Whether value and gradient are wanted, and the C library can compute both at once."""
    return (
        not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and native.library is not None
        and first.requires_grad
        and not second.requires_grad
        and first.device.type == "cpu"
        and min(first.shape[-2:]) >= _WINDOW
    )


class _Similarity(torch.autograd.Function):
    """SSIM with its gradient in the first picture, in a seventh of torch's time."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        pictures = [each.float().contiguous() for each in (first, second)]
        native.agree("similarity", second.shape, first.shape)
        height, width = first.shape[-2:]
        means = torch.empty(first.shape[:-2])
        gradient = torch.empty(first.shape)
        kernel = _gaussian(_WINDOW, _SIGMA, first.device)
        size = means.numel(), height, width
        native.call("similarity", *pictures, *size, kernel, _K1**2, _K2**2, means, gradient)
        ctx.save_for_backward(gradient)
        return means.mean()

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * of_mean, None


def ms_ssim(
    first: Tensor,
    second: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    weights: tuple[float, ...] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
) -> Tensor:
    """Mean multi-scale structural similarity (Wang et al. 2003).

    Scales at which the picture would be smaller than the window are left out, and the other weights
    are scaled up, so that training crops may have any size.
    """
    scales = 1
    while scales < len(weights) and min(first.shape[-2:]) >> scales >= window:
        scales += 1
    used = torch.tensor(weights[:scales], device=first.device)
    used = used / used.sum()
    product = torch.ones(first.shape[:2], device=first.device)
    for scale in range(scales):
        similarity, contrast = _ssim_terms(first, second, window, sigma)
        last = scale == scales - 1
        term = (similarity if last else contrast).mean((2, 3)).clamp_min(1e-4)
        product = product * term ** used[scale]
        if not last:
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return product.mean()


def _ssim_terms(first: Tensor, second: Tensor, window: int, sigma: float) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure factor, B x C x H' x W'."""
    with torch.autocast(first.device.type, enabled=False):
        first, second = first.float(), second.float()
        moments = torch.stack([first, second, first * first, second * second, first * second])
        mean1, mean2, square1, square2, cross = _blurred(moments, window, sigma).unbind(0)
    variance1, variance2 = square1 - mean1**2, square2 - mean2**2
    covariance = cross - mean1 * mean2
    c1, c2 = _K1**2, _K2**2
    contrast = (2 * covariance + c2) / (variance1 + variance2 + c2)
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    return luminance * contrast, contrast


def _blurred(images: Tensor, window: int, sigma: float) -> Tensor:
    """Gaussian window over the last two dimensions, only where it fits completely.

    Two products with band matrices: at the size of training crops they are several times faster,
    forward and backward, than convolving single channels.
    """
    height, width = images.shape[-2:]
    window = min(window, (min(height, width) - 1) // 2 * 2 + 1)
    kernel = _gaussian(window, sigma, images.device)
    return _band(kernel, height) @ images @ _band(kernel, width).T


def _gaussian(window: int, sigma: float, device: torch.device) -> Tensor:
    offset = torch.arange(window, device=device) - (window - 1) / 2
    kernel = torch.exp(-(offset**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _band(kernel: Tensor, size: int) -> Tensor:
    """The matrix that maps a vector of ``size`` to its valid correlation with ``kernel``."""
    count = size - len(kernel) + 1
    lag = (
        torch.arange(size, device=kernel.device)
        - torch.arange(count, device=kernel.device)[:, None]
    )
    inside = (lag >= 0) & (lag < len(kernel))
    return torch.where(inside, kernel[lag.clamp(0, len(kernel) - 1)], 0.0)
