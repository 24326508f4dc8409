"""PReNet (Ren et al. 2019), a small progressive network: the baseline of all comparisons.

Written from its paper. It can import the published weights, so that a whole evaluation can be
checked against published numbers. Its ConvLSTM runs over the stages of a frame, as in the paper,
and here also on into the next frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rain_removal_ros.losses import ssim
from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Facts, Output, State, change_map
from rain_removal_ros.networks._layers import ConvLSTM, in_range


@dataclass(frozen=True)
class Config:
    """Defaults are the published network's."""

    stages: int = 6
    channels: int = 32
    blocks: int = 5
    """Residual blocks, each of two convolutions."""
    lstm: bool = True
    """Without it this is the paper's PRN, whose stages share only their result."""


class _Block(nn.Module):
    """The paper's residual block: a ReLU after each convolution, and one after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(F.relu(self.second(F.relu(self.first(features)))) + features)


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="Ren et al., Progressive Image Deraining Networks: A Better and Simpler Baseline, "
        "CVPR 2019",
        recurrent=True,
        stages=Config.stages,
    )
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = nn.Conv2d(6, config.channels, 3, padding=1)
        self.lstm = ConvLSTM(config.channels) if config.lstm else None
        self.blocks = nn.Sequential(*(_Block(config.channels) for _ in range(config.blocks)))
        self.tail = nn.Conv2d(config.channels, 3, 3, padding=1)

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        background = frame
        memory = (state[0], state[1]) if state else None
        for _ in range(self.stages):
            features = F.relu(self.head(torch.cat([frame, background], 1)))
            if self.lstm is not None:
                memory = self.lstm(features, memory)
                features = memory[0]
            # The published weights predict the negative rain layer, which the paper does not say.
            background = frame + self.tail(self.blocks(features))
        derained = in_range(background)
        return Output(derained, change_map(derained, frame), memory or ())


class Objective(_base.Objective):
    """Negative SSIM of the last stage; the paper found it to be sufficient."""

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        return {"ssim": 1 - ssim(output.derained.float(), reference)}


def from_published(weights: dict[str, Tensor]) -> tuple[Config, dict[str, Tensor]]:
    """The published state dict, or the derainer of VRGNet, under our names."""
    weights = {key.removeprefix("derainet."): value for key, value in weights.items()}
    layers = {"head": "conv0.0", "tail": "conv.0"}
    blocks = sum(f"res_conv{number}.0.weight" in weights for number in range(1, 100))
    for block in range(blocks):
        layers[f"blocks.{block}.first"] = f"res_conv{block + 1}.0"
        layers[f"blocks.{block}.second"] = f"res_conv{block + 1}.2"
    ours = {
        f"{layer}.{kind}": weights[f"{published}.{kind}"]
        for layer, published in layers.items()
        for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        gates = [weights[f"conv_{gate}.0.{kind}"] for gate in "ifog"]
        ours[f"lstm.gates.{kind}"] = torch.cat(gates)
    return Config(channels=len(ours["head.bias"]), blocks=blocks), ours
