"""Parts that several networks share: a ConvLSTM, a residual block, and box filters.

The filters use average pooling, so they are differentiable, run on every device and can be exported
to ONNX. Near the border they average over the pixels that exist.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rain_removal_ros.networks import _native as native

Memory: TypeAlias = tuple[Tensor, Tensor]
"""Hidden and cell state of a ConvLSTM, each of the shape of its input."""


class ConvLSTM(nn.Module):
    """A ConvLSTM cell (Shi et al. 2015, without peepholes) that keeps the number of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # One convolution for all gates: input, forget and output, then the candidate.
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, features: Tensor, memory: Memory | None = None) -> Memory:
        """The next hidden and cell state; the hidden state is also the cell's output."""
        # zeros_like keeps the memory format; otherwise cat would fall back to channels-first.
        hidden, cell = memory or (torch.zeros_like(features), torch.zeros_like(features))
        channels = features.shape[1]
        gates = self.gates(torch.cat([features, hidden], 1))
        admit, keep, emit = gates[:, : 3 * channels].sigmoid().chunk(3, 1)
        cell = keep * cell + admit * gates[:, 3 * channels :].tanh()
        return emit * cell.tanh(), cell


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015), which projects if widths differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.first(features))
        return F.relu(self.second(inner) + self.shortcut(features))


def conv_relu(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(convolution(x))``."""
    if _fuses(convolution, x):
        return _fused()(x, *_parts(convolution), "relu", [], "")  # type: ignore[no-any-return]
    return F.relu(convolution(x), inplace=True)


def conv_add(convolution: nn.Conv2d, x: Tensor, other: Tensor) -> Tensor:
    """``convolution(x) + other``."""
    if _fuses(convolution, x):
        parts = _parts(convolution)
        return _fused().binary(x, other, *parts, "add", None, None, [], None)  # type: ignore[no-any-return]
    result: Tensor = convolution(x)
    return result.add_(other)


@cache
def _fused() -> Any:
    """oneDNN's fused convolutions, which torch reserves for its own compiler. None if they are not
    as known here, or if this processor has no instructions for them.
    """
    wanted = {
        "default": "X W B padding stride dilation groups attr scalars algorithm",
        "binary": "X other W B padding stride dilation groups binary_attr alpha unary_attr "
        "unary_scalars unary_algorithm",
    }
    try:
        operator = torch.ops.mkldnn._convolution_pointwise
        for name, arguments in wanted.items():
            schema = getattr(operator, name)._schema
            if [argument.name for argument in schema.arguments] != arguments.split():
                return None
        one = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16)
        operator(one, one, None, (0, 0), (1, 1), (1, 1), 1, "relu", [], "")
    except (AttributeError, RuntimeError):
        return None
    return operator


def _fuses(convolution: nn.Conv2d, x: Tensor) -> bool:
    """Whether the operation after a convolution is fused with it, which saves a pass over its
    output.

    In bfloat16 on a CPU, this saves a twentieth to a tenth of the time of rainstream M and L.
    """
    return (
        native.infers(x)
        and x.dtype == convolution.weight.dtype == torch.bfloat16
        and _fused() is not None
    )


def _parts(convolution: nn.Conv2d) -> tuple[object, ...]:
    how = convolution.padding, convolution.stride, convolution.dilation, convolution.groups
    return convolution.weight, convolution.bias, *how


def in_range(image: Tensor) -> Tensor:
    """``image`` clamped to [0, 1], with the gradient of the identity.

    In training, a pixel out of range can therefore come back; a plain clamp would give it no
    gradient.
    """
    clamped = image.clamp(0, 1)
    return clamped.detach() + (image - image.detach()) if torch.is_grad_enabled() else clamped


def box_mean(image: Tensor, radius: int) -> Tensor:
    """The mean over a square of ``2 * radius + 1`` pixels, of those inside the picture."""
    size = 2 * radius + 1
    rows = F.avg_pool2d(image, (1, size), 1, (0, radius), count_include_pad=False)
    return F.avg_pool2d(rows, (size, 1), 1, (radius, 0), count_include_pad=False)


def rlcn(image: Tensor, *, radius: int, epsilon: float) -> Tensor:
    """Rectified local contrast normalisation: how far a pixel is above its surroundings.

    The excess over the local mean, in local standard deviations; 0 for pixels below the mean.
    """
    # The variance as a difference of moments cancels; in half precision nothing would be left of
    # it.
    exact = image.float()
    mean, square = box_mean(torch.cat([exact, exact * exact], 1), radius).chunk(2, 1)
    # The floor keeps the gradient of the square root finite where the picture is flat.
    deviation = (square - mean * mean).clamp_min(1e-8).sqrt()
    return ((exact - mean).relu() / (deviation + epsilon)).to(image.dtype)


def guided_filter(image: Tensor, *, radius: int, epsilon: float) -> Tensor:
    """The image smoothed where its variance is below ``epsilon``, edges kept (He et al. 2010).

    Each channel is its own guide.
    """
    exact = image.float()
    mean, square = box_mean(torch.cat([exact, exact * exact], 1), radius).chunk(2, 1)
    variance = (square - mean * mean).clamp_min(0)
    slope = variance / (variance + epsilon)
    offset = mean - slope * mean
    slope, offset = box_mean(torch.cat([slope, offset], 1), radius).chunk(2, 1)
    return (slope * exact + offset).to(image.dtype)
