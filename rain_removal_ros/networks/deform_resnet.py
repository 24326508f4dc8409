"""A ResNet of deformable convolutions that learns features which do not depend on rain.

Where the paper is silent, this follows its predecessor GT-RAIN (Ba et al. 2022): skip connections
into the decoder, reflected borders, bilinear upsampling, modulated deformable convolutions, a
direct output instead of a correction, pooled features for the rain-robust loss, that loss's
temperature and weights, widths (64, and 256 at the bottleneck), and a tenth of the learning rate
for the layers that find offsets. The paper names a recurrent connection without describing it; here
it is a convolutional GRU after the last residual block, carried from frame to frame. Rain masks are
augmented by RainMix (Guo et al. 2021), but with the rain of the batch's own pictures instead of
rendered streaks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.losses import ms_ssim
from rain_removal_ros.networks import _base
from rain_removal_ros.networks import _gradients as gradients
from rain_removal_ros.networks._base import Batch, Facts, Output, State, change_map
from rain_removal_ros.networks._layers import in_range

_COLUMNS_AT_ONCE = 2**24
"""Sampled values that a deformable convolution holds at a time: 64 MiB of float32."""


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's network: 16 million weights, too many to ship and train quickly."""

    channels: int = 64
    """Width at full resolution."""
    bottleneck: int = 256
    """Width of the residual blocks; scales between have the geometric mean, in multiples of
    eight."""
    scales: int = 2
    """Ablation: down- and upsampling blocks, 1 or 2."""
    blocks: int = 9
    """Ablation: deformable residual blocks."""
    modulated: bool = True
    """Whether samples are also weighted (deformable convolution v2) or only moved (v1)."""
    activation: str = "mish"
    """Ablation: ``mish``, or the ancestor's ``leaky_relu``."""
    initialisation: str = "kaiming"
    """Ablation: ``kaiming``, or the ancestor's ``normal``."""
    attention: bool = False
    """Ablation: squeeze-and-excitation in the residual blocks, which the authors dropped."""
    recurrent: bool = True
    """Whether a GRU at the bottleneck carries features from frame to frame."""
    padding: str = "reflect"
    """What convolutions see beyond the border: ``reflect``, ``replicate`` or ``zeros``."""
    output: str = "direct"
    """Whether Tanh gives the picture (``direct``) or what is added to it (``residual``)."""
    projection: int = 1024
    """Number of values that the rain-robust loss compares: features are pooled to the largest
    square grid with no more."""
    temperature: float = 0.25
    ms_ssim_weight: float = 1.0
    l1_weight: float = 0.1
    robust_weight: float = 0.1
    rain_mix: float = 0.5
    """Share of the training pictures whose rain is mixed with that of others (RainMix)."""
    offset_rate: float = 0.1
    """Learning rate of the layers that find offsets, relative to all others."""

    def __post_init__(self) -> None:
        for field, known in (
            ("scales", (1, 2)),
            ("activation", ("mish", "leaky_relu")),
            ("initialisation", ("kaiming", "normal")),
            ("padding", ("reflect", "replicate", "zeros")),
            ("output", ("direct", "residual")),
        ):
            if getattr(self, field) not in known:
                raise SettingsError(
                    f"{field} is one of {', '.join(map(str, known))}, "
                    f"not {getattr(self, field)!r} (deform_resnet)"
                )


def deformable_convolution(
    image: Tensor, offsets: Tensor, weight: Tensor, modulation: Tensor | None = None
) -> Tensor:
    """A convolution that samples at ``offsets`` (Dai et al. 2017, Zhu et al. 2019).

    ``image`` includes its border: the result is smaller, as after a convolution without padding.
    ``offsets`` are y and x in pixels for each tap of ``weight``, ``modulation`` a factor for each.
    Beyond the image everything is zero.
    """
    height, width = offsets.shape[-2:]
    band = height
    if not torch.compiler.is_compiling():  # an exported graph needs the sum, not a loop
        row = image.shape[0] * weight[0].numel() * width
        band = min(max(_COLUMNS_AT_ONCE // row, 1), height)
    bands = [
        _band(image, offsets, weight, modulation, slice(top, min(top + band, height)))
        for top in range(0, height, band)
    ]
    return torch.cat(bands, 2) if len(bands) > 1 else bands[0]


def _band(
    image: Tensor, offsets: Tensor, weight: Tensor, modulation: Tensor | None, rows: slice
) -> Tensor:
    """Some rows of a deformable convolution: samples as columns, then one matrix product."""
    if gradients.samples(image) and weight.shape[2:] == (3, 3):
        cast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if cast else weight.dtype
        factors = None if modulation is None else modulation[:, :, rows]
        given = image, offsets[:, :, rows], factors, rows.start, dtype
        columns = gradients.DeformColumns.apply(*given)  # type: ignore[no-untyped-call]
        return F.linear(columns, weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)
    batch, channels, image_height, image_width = image.shape
    tap_rows, tap_columns = weight.shape[2:]
    taps, height, width = tap_rows * tap_columns, rows.stop - rows.start, offsets.shape[-1]
    device = image.device
    # Positions are always float32: bfloat16 has no fractions beyond 128.
    shift = offsets[:, :, rows].float().view(batch, taps, 2, height, width)
    y = torch.arange(rows.start, rows.stop, device=device, dtype=torch.float32)
    x = torch.arange(width, device=device, dtype=torch.float32)
    tap = torch.arange(taps, device=device).view(taps, 1, 1)
    y = shift[:, :, 0] + y.view(-1, 1) + tap // tap_columns
    x = shift[:, :, 1] + x + tap % tap_columns
    grid = torch.stack([x * (2 / (image_width - 1)) - 1, y * (2 / (image_height - 1)) - 1], -1)
    samples = F.grid_sample(
        image.float(), grid.flatten(1, 2), padding_mode="zeros", align_corners=True
    ).view(batch, channels, taps, height, width)
    if modulation is not None:
        samples = samples * modulation[:, None, :, rows]
    columns = samples.view(batch, channels * taps, height * width).to(weight.dtype)
    return torch.matmul(weight.flatten(1), columns).view(batch, -1, height, width)


class DeformableConv(nn.Module):
    """A 3x3 deformable convolution that finds its own offsets and starts as an ordinary one."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.modulated, self.padding = config.modulated, config.padding
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.field = nn.Conv2d(channels, 9 * (3 if config.modulated else 2), 3)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.stand_still()

    def stand_still(self) -> None:
        """Set all offsets to 0 and all modulation to 1."""
        for parameter in self.field.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        mode = "constant" if self.padding == "zeros" else self.padding
        padded = F.pad(features, (1, 1, 1, 1), mode)
        field = self.field(padded)
        modulation = 2 * field[:, 18:].sigmoid() if self.modulated else None
        return deformable_convolution(padded, field[:, :18], self.weight, modulation)


def _activation(config: Config) -> nn.Module:
    return nn.Mish() if config.activation == "mish" else nn.LeakyReLU(0.1)


def _conv(
    inputs: int, outputs: int, config: Config, *, size: int = 3, stride: int = 1, bias: bool = True
) -> nn.Conv2d:
    """A convolution that keeps the size, or halves it."""
    mode: Any = config.padding
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias, padding_mode=mode)


class _Conv(nn.Sequential):
    """Convolution, batch normalisation, activation."""

    def __init__(
        self, inputs: int, outputs: int, config: Config, *, size: int = 3, stride: int = 1
    ) -> None:
        super().__init__(
            _conv(inputs, outputs, config, size=size, stride=stride, bias=False),
            nn.BatchNorm2d(outputs),
            _activation(config),
        )


class _SqueezeExcite(nn.Module):
    """Weighs channels by the content of the whole picture (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, max(channels // 16, 4), 1)
        self.excite = nn.Conv2d(max(channels // 16, 4), channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        mean = features.mean((2, 3), keepdim=True)
        weights: Tensor = self.excite(F.relu(self.squeeze(mean))).sigmoid()
        return features * weights


class _Block(nn.Module):
    """A deformable residual block, without activation after the sum."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.first = DeformableConv(channels, config)
        self.first_norm = nn.BatchNorm2d(channels)
        self.activation = _activation(config)
        self.second = DeformableConv(channels, config)
        self.second_norm = nn.BatchNorm2d(channels)
        self.attention = _SqueezeExcite(channels) if config.attention else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        inner = self.activation(self.first_norm(self.first(features)))
        changed: Tensor = self.attention(self.second_norm(self.second(inner)))
        return features + changed


class _ConvGRU(nn.Module):
    """A convolutional GRU cell (Ballas et al. 2016)."""

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.gates = _conv(2 * channels, 2 * channels, config)
        self.candidate = _conv(2 * channels, channels, config)

    def forward(self, features: Tensor, hidden: Tensor | None) -> Tensor:
        """The next hidden state, within (-1, 1)."""
        if hidden is None:
            hidden = torch.zeros_like(features)
        gates: Tensor = self.gates(torch.cat([features, hidden], 1)).sigmoid()
        admit, recall = gates.chunk(2, 1)
        candidate: Tensor = self.candidate(torch.cat([features, recall * hidden], 1)).tanh()
        return hidden + admit * (candidate - hidden)


class _Decoder(nn.Module):
    """One step up: twice the size, then the encoder's features at this scale."""

    def __init__(self, below: int, channels: int, config: Config) -> None:
        super().__init__()
        self.up = _Conv(below, channels, config)
        self.merge = _Conv(2 * channels, channels, config)

    def forward(self, below: Tensor, encoded: Tensor) -> Tensor:
        larger = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        merged: Tensor = self.merge(torch.cat([self.up(larger), encoded], 1))
        return merged


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="Dang Tran, Jacob and Ghayal, Modified ResNet Architecture for Single Image "
        "Deraining, GT-RAIN Challenge (CVPR UG2+) 2023",
        recurrent=True,
        # Two downsamplings need 4; with 8 the bottleneck has the two pixels reflection needs.
        stride=8,
    )
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        widths = _widths(config)
        self.head = nn.Sequential(
            _Conv(3, widths[0], config, size=7), _Conv(widths[0], widths[0], config)
        )
        self.down = nn.ModuleList(
            _Conv(above, below, config, stride=2) for above, below in itertools.pairwise(widths)
        )
        self.blocks = nn.Sequential(*(_Block(widths[-1], config) for _ in range(config.blocks)))
        self.gru = _ConvGRU(widths[-1], config) if config.recurrent else None
        self.up = nn.ModuleList(
            _Decoder(below, above, config)
            for below, above in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.tail = _conv(widths[0], 3, config)
        self._initialise()

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        return self.decode(frame, self.encode(frame), state)

    def encode(self, frame: Tensor) -> list[Tensor]:
        """Features of every scale, finest first; the last have passed the residual blocks."""
        scales = [self.head(2 * frame - 1)]
        for down in self.down:
            scales.append(down(scales[-1]))
        scales[-1] = self.blocks(scales[-1])
        return scales

    def decode(self, frame: Tensor, scales: list[Tensor], state: State = ()) -> Output:
        """The derained frame from its features."""
        *skips, features = scales
        kept: State = ()
        if self.gru is not None:
            hidden = self.gru(features, state[0] if state else None)
            features, kept = features + hidden, (hidden,)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            features = up(features, skip)
        painted = self.tail(features).tanh()
        if self.config.output == "direct":
            derained = (painted + 1) / 2
        else:
            derained = in_range(frame + painted)
        return Output(derained, change_map(derained, frame), kept)

    def project(self, features: Tensor) -> Tensor:
        """What the rain-robust loss compares: one vector per picture."""
        side = max(math.isqrt(self.config.projection // features.shape[1]), 1)
        return F.adaptive_avg_pool2d(features.float(), side).flatten(1)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | DeformableConv):
                if self.config.initialisation == "kaiming":
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                else:
                    nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DeformableConv):
                module.stand_still()
            if isinstance(module, _Block):
                # The sum over all blocks then has a variance of one, including the untrained
                # running statistics.
                nn.init.constant_(module.second_norm.weight, self.config.blocks**-0.5)


def _widths(config: Config) -> list[int]:
    """Channels of every scale, finest first."""
    growth = (config.bottleneck / config.channels) ** (1 / config.scales)
    between = [
        max(round(config.channels * growth**scale / 8), 1) * 8 for scale in range(1, config.scales)
    ]
    return [config.channels, *between, config.bottleneck]


def robust_loss(rainy: Tensor, reference: Tensor, *, temperature: float) -> Tensor:
    """How poorly a picture's rainy features can be matched with its reference features.

    Of all other features in the batch, rainy and reference, only those of the same picture count as
    alike.
    """
    features = torch.cat([rainy, reference]).float()
    count = len(features)
    similarity = F.cosine_similarity(features[:, None], features[None], dim=2) / temperature
    itself = torch.eye(count, dtype=torch.bool, device=features.device)
    partner = torch.arange(count, device=features.device).roll(count // 2)
    return F.cross_entropy(similarity.masked_fill(itself, -math.inf), partner)


class Objective(_base.Objective):
    """MS-SSIM, L1 and the rain-robust loss, on pictures whose rain is mixed."""

    network: Network

    def rates(self) -> dict[nn.Parameter, float]:
        return {
            parameter: self.network.config.offset_rate
            for layer in self.network.modules()
            if isinstance(layer, DeformableConv)
            for parameter in layer.field.parameters()
        }

    def forward(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        config = self.network.config
        worn = mixed_rain(batch, share=config.rain_mix) if self.training else batch.rainy
        state: State = ()
        frames: list[dict[str, Tensor]] = []
        for rainy, reference in zip(worn.unbind(1), batch.reference.unbind(1), strict=True):
            # Together, so that batch normalisation sees all of them.
            scales = self.network.encode(torch.cat([rainy, reference]))
            output = self.network.decode(rainy, [scale[: len(rainy)] for scale in scales], state)
            state = output.state
            seen, wanted = self.network.project(scales[-1]).chunk(2)
            robust = robust_loss(seen, wanted, temperature=config.temperature)
            frames.append(
                self.frame_losses(output, rainy, reference)
                | {"robust": config.robust_weight * robust}
            )
        return {name: torch.stack([frame[name] for frame in frames]).mean() for name in frames[0]}

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        config, produced = self.network.config, output.derained.float()
        return {
            "ms_ssim": config.ms_ssim_weight * (1 - ms_ssim(produced, reference)),
            "l1": config.l1_weight * F.l1_loss(produced, reference),
        }


_CHAINS = 3
_MOST_TURN, _MOST_SHEAR, _MOST_ZOOM = 0.35, 0.2, 1.5  # radians, slope, factor


def mixed_rain(batch: Batch, *, share: float) -> Tensor:
    """The rainy clips; a share of them gets its own rain blended with a mixture of three clips'
    rain, each turned, sheared, zoomed and moved.
    """
    rain = batch.rainy - batch.reference
    count, device = len(rain), rain.device
    # Drawn on the CPU, whose generator seeds a training run on any device.
    parts = -torch.rand(count, _CHAINS).clamp_min(1e-6).log()
    parts = parts / parts.sum(1, keepdim=True)  # from Dirichlet's distribution
    mixture = torch.zeros_like(rain)
    for part in parts.unbind(1):
        other = rain[torch.randperm(count).to(device)]
        mixture = mixture + part.to(device).view(-1, 1, 1, 1, 1) * _transformed(other)
    blend = torch.rand(count).to(device).view(-1, 1, 1, 1, 1)
    mixed = (torch.rand(count) < share).to(device).view(-1, 1, 1, 1, 1)
    other = (batch.reference + torch.lerp(mixture, rain, blend)).clamp(0, 1)
    return torch.where(mixed, other, batch.rainy)


def _transformed(rain: Tensor) -> Tensor:
    """Transform each clip's rain as a whole, so that it still falls from frame to frame."""
    count, frames = rain.shape[:2]
    drawn = 2 * torch.rand(6, count) - 1
    turn, shear, down, right = drawn[0] * _MOST_TURN, drawn[1] * _MOST_SHEAR, drawn[2], drawn[3]
    zoom = _MOST_ZOOM ** drawn[4] * torch.where(drawn[5] < 0, -1, 1)  # some are mirrored
    rows = [
        torch.stack([zoom * turn.cos(), shear - turn.sin(), right], 1),
        torch.stack([turn.sin(), zoom.abs() * turn.cos(), down], 1),
    ]
    places = torch.stack(rows, 1).repeat_interleave(frames, 0)
    flat = rain.flatten(0, 1).float()
    grid = F.affine_grid(places.to(flat), list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat, grid, padding_mode="reflection", align_corners=False)
    return moved.view_as(rain)
