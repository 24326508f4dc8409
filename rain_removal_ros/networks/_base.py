"""The interface of all networks, and of what they are trained for.

Recurrent state is an argument and a result of ``forward``, never kept in the module. So one network
serves any number of cameras, and a reset is an empty state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from rain_removal_ros.losses import ssim
from rain_removal_ros.networks._cautions import Cautions

State: TypeAlias = tuple[Tensor, ...]


class Output(NamedTuple):
    """What a network makes of one batch of frames."""

    derained: Tensor
    """B x 3 x sH x sW in [0, 1], where s is the network's scale."""
    attention: Tensor
    """B x 1 x H x W in [0, 1]: the network's view of how much the rain changed each pixel. How
    reliable that is depends on how its weights were trained."""
    state: State
    """Pass it in with the next frame. ``()`` is a fresh start, and all a stateless network
    returns."""
    rain_level: Tensor | None = None
    """B values in [0, 1], from networks that estimate how hard it rains."""


@dataclass(frozen=True)
class Facts:
    """What can be known of a network before creating it."""

    paper: str
    recurrent: bool
    """Whether state is carried from frame to frame."""
    stride: int = 1
    """Height and width passed to ``forward`` must be multiples of this."""
    stages: int = 1
    """Passes over one frame by default; 1 for a network without stages."""
    planar: bool = False
    """Whether frames should come as planes; other networks are faster with channels last."""


class Network(nn.Module):
    """Base of all networks: a config, facts, and a ``forward`` from frame and state to ``Output``.

    ``stages`` may be changed at any time; networks without stages ignore it.
    """

    facts: ClassVar[Facts]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.stages: int = getattr(config, "stages", self.facts.stages)
        self.cautions = Cautions()
        """What measurements found against the weights, from their file."""

    @property
    def scale(self) -> int:
        """How many times larger than the input the output is."""
        return int(getattr(self.config, "scale", 1))

    @property
    def not_exportable(self) -> str:
        """Why this network cannot become an ONNX graph; empty if it can."""
        return ""

    def rectified(self) -> dict[nn.Conv2d, nn.Conv2d | None]:
        """The convolutions whose output is rectified, each with the one that alone reads it, if
        there is one. Training can start their dead units anew."""
        return {}

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        raise NotImplementedError


def change_map(derained: Tensor, frame: Tensor, *, full_at: float = 0.25) -> Tensor:
    """The attention map of a network that has none by design: the size of the change it made.

    A change of ``full_at`` of the value range is shown as 1, so that maps of different frames can
    be compared; normalising each by its own maximum would make a clear frame look rainy.
    """
    return ((derained - frame).abs().amax(1, keepdim=True) / full_at).clamp(0, 1)


def attention_loss(attention: Tensor, reference: Tensor, rainy: Tensor) -> Tensor:
    """The cross entropy between an attention map and the change that the rain really made.

    Where the network is not sure, cross entropy is smallest at the mean of the possible values. L1
    is smallest at their median, which is zero even where rain covers nearly half of the pixels.
    """
    with torch.autocast(attention.device.type, enabled=False):
        attention = attention.float().clamp(1e-3, 1 - 1e-3)
        change = change_map(reference, rainy)
        return -(change * attention.log() + (1 - change) * (-attention).log1p()).mean()


@dataclass
class Batch:
    """The input of one training step. A picture is a clip of one frame."""

    rainy: Tensor
    """B x T x 3 x H x W in [0, 1]."""
    reference: Tensor
    """B x T x 3 x sH x sW in [0, 1]."""
    unlabelled: Tensor | None = None
    """B' x T x 3 x H x W in [0, 1]: real rain, for objectives with ``wants_unlabelled``."""
    taught: Tensor | None = None
    """B x T x 3 x sH x sW in [0, 1]: the teacher's output for ``rainy``, if there is a teacher."""


class Objective(nn.Module):
    """What a network is trained to do: losses, and helper networks such as a discriminator.

    Training is a game of one or more ``players``, each with its own parameters and optimiser. In
    every step, for each player in turn, the sum of ``forward(batch, player)`` is minimised over
    that player's parameters. The base class has one player: it unrolls the clip, carries the state,
    calls ``frame_losses`` for every frame, and imitates a teacher if there is one.
    """

    wants_unlabelled: ClassVar[bool] = False
    truncate: int = 0
    """Frames that gradients flow back over; 0 for the whole clip."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"network": list(self.network.parameters())}

    def rates(self) -> dict[nn.Parameter, float]:
        """Factors on the learning rate of some parameters; all others have the player's own."""
        return {}

    def forward(self, batch: Batch, player: str = "network") -> dict[str, Tensor]:
        state: State = ()
        frames: list[dict[str, Tensor]] = []
        for place, rainy in enumerate(batch.rainy.unbind(1)):
            output = self.network(rainy, state)
            losses = self.frame_losses(output, rainy, batch.reference[:, place])
            if batch.taught is not None:
                unlike = (output.derained.float() - batch.taught[:, place]).abs().mean()
                losses["taught"] = 0.5 * unlike
            frames.append(losses)
            state = output.state
            if self.truncate and (place + 1) % self.truncate == 0:
                state = tuple(each.detach() for each in state)
        return {name: torch.stack([frame[name] for frame in frames]).mean() for name in frames[0]}

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """Named, weighted losses of one frame."""
        produced = output.derained.float()
        return {
            "l1": (produced - reference).abs().mean(),
            "ssim": 0.2 * (1 - ssim(produced, reference)),
        }
