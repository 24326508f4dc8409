"""Deraining at several scales at once; it also learns from real rain without references.

Features of synthetic and of real rain are made alike in mean and covariance before rain is removed.
The paper's figures are lost; what they showed follows its predecessor JDNet (Wang et al. 2020): 3x3
convolutions and LeakyReLU, units densely linked through 1x1 convolutions, nearest-neighbour
upsampling, the rain layer subtracted from the image, negative SSIM as loss. There are 8 units
instead of JDNet's 32, which would cost four times as much per frame. The covariance is divided by
the number of feature vectors, which the paper's formula leaves out, so that it does not depend on
the picture's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.losses import ssim
from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Batch, Facts, Output, State, change_map
from rain_removal_ros.networks._layers import in_range

_MOST_SCALES = 4


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's where it gives them: three scales, 32 channels, weight 1."""

    scales: int = 3
    """Ablation: scale i pools by ``2 ** (i - 1)``; 1 to 4."""
    units: int = 8
    """De-raining units, one after another."""
    channels: int = 32
    cascade: int = 3
    """Convolutions in a cascade convolution learning block."""
    dense: bool = True
    """Ablation: whether a unit sees the output of all units before it, or only of the last."""
    residual: bool = True
    """Ablation: whether a unit's input is added to its output."""
    upsampling: str = "nearest"
    """How coarse scales get back to full resolution: ``nearest`` or ``bilinear``."""
    output: str = "rain"
    """Whether the last features become the ``rain`` to subtract, or the ``background``."""
    matching: bool = True
    """Ablation: whether features of synthetic and real rain are made alike."""
    matching_weight: float = 1.0

    def __post_init__(self) -> None:
        for field, known in (
            ("scales", tuple(range(1, _MOST_SCALES + 1))),
            ("upsampling", ("nearest", "bilinear")),
            ("output", ("rain", "background")),
        ):
            if getattr(self, field) not in known:
                raise SettingsError(
                    f"{field} is one of {', '.join(map(str, known))}, "
                    f"not {getattr(self, field)!r} (semi_multiscale)"
                )


def _cascade(config: Config) -> nn.Sequential:
    """A cascade convolution learning block."""
    layers: list[nn.Module] = []
    for _ in range(config.cascade):
        layers += [nn.Conv2d(config.channels, config.channels, 3, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class _Unit(nn.Module):
    """A multi-scale de-raining unit: pooled, derained at every scale, enlarged and summed."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(_cascade(config) for _ in range(config.scales))

    def forward(self, features: Tensor) -> Tensor:
        total = features if self.config.residual else torch.zeros_like(features)
        pooled = features
        for scale, cascade in enumerate(self.scales):
            if scale > 0:
                pooled = F.max_pool2d(pooled, 2)  # two poolings by two are one by four
            derained = cascade(pooled)
            if scale > 0:
                derained = F.interpolate(
                    derained, scale_factor=2**scale, mode=self.config.upsampling
                )
            total = total + derained
        return total


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="Qiu et al., Single Image De-raining Algorithm Based on Semi-supervised Learning, "
        "2023",
        recurrent=False,
        stride=2 ** (_MOST_SCALES - 1),
    )
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        channels = config.channels
        self.transform = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.LeakyReLU(0.2))
        self.matching = _cascade(config)
        self.units = nn.ModuleList(_Unit(config) for _ in range(config.units))
        self.links = nn.ModuleList(
            nn.Sequential(nn.Conv2d((number + 2) * channels, channels, 1), nn.LeakyReLU(0.2))
            for number in range(config.units if config.dense else 0)
        )
        self.conversion = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        return self.derain(frame, self.features(frame))

    def features(self, frame: Tensor) -> Tensor:
        """The features that should be alike for synthetic and real rain."""
        transformed = self.transform(frame)
        matched: Tensor = transformed + self.matching(transformed)
        return matched

    def derain(self, frame: Tensor, features: Tensor) -> Output:
        """The derained frame from its features."""
        made = [features]
        for number, unit in enumerate(self.units):
            made.append(unit(features))
            features = self.links[number](torch.cat(made, 1)) if self.config.dense else made[-1]
        image = self.conversion(features)
        derained = in_range(frame - image if self.config.output == "rain" else image)
        return Output(derained, change_map(derained, frame), ())


def matching_losses(synthetic: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """How far apart two sets of features, B x d x H x W each, are in mean and in covariance."""
    mean_s, covariance_s = _statistics(synthetic)
    mean_r, covariance_r = _statistics(real)
    dimension = synthetic.shape[1]
    return (
        torch.linalg.vector_norm(mean_s - mean_r),
        torch.linalg.matrix_norm(covariance_s - covariance_r) / dimension,
    )


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance over all pixels of all pictures."""
    # A difference of second moments is too small for autocast's precision.
    with torch.autocast(features.device.type, enabled=False):
        vectors = features.float().transpose(0, 1).flatten(1)
        mean = vectors.mean(1, keepdim=True)
        centred = vectors - mean
        return mean, centred @ centred.T / vectors.shape[1]


class Objective(_base.Objective):
    """Negative SSIM with a reference, matching without one."""

    wants_unlabelled: ClassVar[bool] = True
    network: Network

    def forward(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        # Nothing is carried from frame to frame, so a clip is a batch.
        rainy, reference = batch.rainy.flatten(0, 1), batch.reference.flatten(0, 1)
        synthetic = self.network.features(rainy)
        losses = self.frame_losses(self.network.derain(rainy, synthetic), rainy, reference)
        config = self.network.config
        if config.matching and batch.unlabelled is not None:
            real = self.network.features(batch.unlabelled.flatten(0, 1))
            mean, covariance = matching_losses(synthetic, real)
            losses["mean"] = config.matching_weight * mean
            losses["covariance"] = config.matching_weight * covariance
        return losses

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        return {"ssim": 1 - ssim(output.derained.float(), reference)}
