"""Recurrent generator guided by the picture's low frequencies, trained against a discriminator.

A guided filter with each colour channel as its own guide extracts the base layer, which has less of
the rain: of the energy of the change made by rain, 13 to 36 % with the thin streaks of Rain100L,
and 39 to 85 % with Rain800's broader ones and its changes of tone. The base layer is an extra
input. The detail layer is the frame minus the base, which the first convolution can form by itself.

Where the paper is silent: stages, widths and output (the frame plus a negative rain layer) are
those of PReNet, whose equations it uses; the radius is from Fu et al. (2017), who introduced the
split to deraining; the attention is CBAM's spatial half (Woo et al. 2018), because the other half
averages over the whole picture and would differ between tiles; the discriminator is a small
PatchGAN, relativistic average (Jolicoeur-Martineau 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rain_removal_ros.losses import ssim
from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Batch, Facts, Output, State, attention_loss, change_map
from rain_removal_ros.networks._layers import ConvLSTM, guided_filter, in_range


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's network, with the choices named above."""

    stages: int = 6
    channels: int = 32
    blocks: int = 5
    base_radius: int = 15
    """Window of the guided filter, ``2 * base_radius + 1`` pixels: wider than a streak."""
    base_epsilon: float = 0.04
    """Variance below which the filter smooths: contrasts under a fifth of the range."""
    base: bool = True
    """Ablation: whether the base layer is an input."""
    attention: bool = True
    """Ablation: whether residual blocks weigh their features by an attention map."""
    lstm: bool = True
    """Ablation: whether stages and frames are connected by more than their results."""
    mse_weight: float = 1.0
    ssim_weight: float = 1.0
    attention_weight: float = 0.1
    """Weight of the loss that ties the last attention map to the rain. The paper has none, which is
    0; the map was then almost constant."""
    adversarial_weight: float = 0.01
    """0 is the ablation without a discriminator."""
    discriminator_channels: int = 64


class _SpatialAttention(nn.Module):
    """Attention to positions, from the mean and maximum over channels (CBAM's spatial half)."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.weigh(summary))


class _Block(nn.Module):
    """Two convolutions with ReLU, weighted by attention, beside a shortcut."""

    def __init__(self, channels: int, *, attentive: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = _SpatialAttention() if attentive else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        change = F.relu(self.second(F.relu(self.first(features))))
        if self.attention is None:
            return features + change, None
        attention = self.attention(change)
        return features + attention * change, attention


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="Wang and Wang, Research and Implementation of Image Rain Removal Based on Deep "
        "Learning",
        recurrent=True,
        stages=Config.stages,
    )
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = nn.Conv2d(9 if config.base else 6, config.channels, 3, padding=1)
        self.lstm = ConvLSTM(config.channels) if config.lstm else None
        self.blocks = nn.ModuleList(
            _Block(config.channels, attentive=config.attention) for _ in range(config.blocks)
        )
        self.tail = nn.Conv2d(config.channels, 3, 3, padding=1)

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        constant = [frame, self.base_layer(frame)] if self.config.base else [frame]
        background = frame
        memory = (state[0], state[1]) if state else None
        attention: Tensor | None = None
        for _ in range(self.stages):
            features = F.relu(self.head(torch.cat([*constant, background], 1)))
            if self.lstm is not None:
                memory = self.lstm(features, memory)
                features = memory[0]
            for block in self.blocks:
                features, attention = block(features)
            background = frame + self.tail(features)
        derained = in_range(background)
        attention = change_map(derained, frame) if attention is None else attention
        return Output(derained, attention, memory or ())

    def base_layer(self, frame: Tensor) -> Tensor:
        """The frame's low frequencies."""
        return guided_filter(
            frame, radius=self.config.base_radius, epsilon=self.config.base_epsilon
        )


class _Discriminator(nn.Sequential):
    """How real each patch of a picture looks, as a map of unbounded scores."""

    def __init__(self, channels: int) -> None:
        widths = [3, channels, 2 * channels, 4 * channels]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))


class Objective(_base.Objective):
    """MSE and negative SSIM of the last stage, and a game against the discriminator."""

    network: Network

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.discriminator = _Discriminator(network.config.discriminator_channels)
        self._batch: Batch | None = None
        self._derained: list[Tensor] = []
        """The derained frames of this batch, for the discriminator's turn."""

    def players(self) -> dict[str, list[nn.Parameter]]:
        players = super().players()
        if self.network.config.adversarial_weight:
            players["discriminator"] = list(self.discriminator.parameters())
        return players

    def forward(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        if player == "network":
            self._batch, self._derained = batch, []
            return super().forward(batch)
        if self._batch is not batch:
            self._derained = []
            with torch.no_grad():
                super().forward(batch)
        fake = self.discriminator(torch.stack(self._derained, 1).flatten(0, 1))
        real = self.discriminator(batch.reference.flatten(0, 1))
        self._batch, self._derained = None, []
        return {"discriminator": _relativistic(real, fake)}

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        config, produced = self.network.config, output.derained.float()
        losses = {
            "mse": config.mse_weight * F.mse_loss(produced, reference),
            "ssim": config.ssim_weight * (1 - ssim(produced, reference)),
        }
        if config.attention and config.attention_weight:
            loss = attention_loss(output.attention, reference, rainy)
            losses["attention"] = config.attention_weight * loss
        if config.adversarial_weight:
            self._derained.append(produced.detach())
            fake, real = self._judged(produced), self._judged(reference)
            losses["adversarial"] = config.adversarial_weight * _relativistic(fake, real)
        return losses

    def _judged(self, picture: Tensor) -> Tensor:
        """The discriminator's scores, with no gradient to the discriminator."""
        held = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        scores: Tensor = functional_call(self.discriminator, held, (picture,))
        return scores


def _relativistic(raised: Tensor, lowered: Tensor) -> Tensor:
    """Small where ``raised`` is above the average of ``lowered``, and the reverse."""
    above = raised.float() - lowered.float().mean()
    below = lowered.float() - raised.float().mean()
    return (F.softplus(-above).mean() + F.softplus(below).mean()) / 2
