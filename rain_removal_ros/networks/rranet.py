"""RRANet: a recurrent U-Net guided by a map of what is brighter than its surroundings.

Where the paper is silent, this follows its predecessors: six stages and 32 channels at full
resolution (PReNet), 2x2 up-convolutions (U-Net), half the channels inside the attention module
(Attention U-Net), a 9x9 window (Jarrett et al.). Widths grow by 32 per scale instead of doubling,
which would put two thirds of the weights into the coarsest ConvLSTM.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.losses import ssim
from rain_removal_ros.networks import _base
from rain_removal_ros.networks import _motion as motion
from rain_removal_ros.networks._base import Facts, Output, State, attention_loss, change_map
from rain_removal_ros.networks._layers import ConvLSTM, Memory, ResidualBlock, in_range, rlcn

_SCALES = 4


@dataclass(frozen=True)
class Config:
    """Defaults are the paper's network, with state carried from frame to frame."""

    stages: int = 6
    channels: int = 32
    """Width at full resolution; scale s (from 0) has ``s + 1`` times as many."""
    rlcn_radius: int = 4
    """The local window is ``2 * rlcn_radius + 1`` pixels wide."""
    rlcn_epsilon: float = 0.01
    """Added to the deviation: two or three grey levels, so that flat areas give no response."""
    rlcn: bool = True
    """Ablation: whether the RLCN image is an input, and a guide where there is attention."""
    attention: bool = True
    """Ablation: whether skip connections pass through RLCN-GAM."""
    lstm: bool = True
    """Ablation: whether encoder blocks are recurrent. Without it no state is carried."""
    begin_with: str = "frame"
    """The first stage's background: the ``frame`` (the paper), or the derained ``previous`` frame,
    which helps a camera that moves little."""
    attention_weight: float = 0.1
    """Weight of the loss that ties the finest attention map to the rain. The paper has none, which
    is 0; the map was then unrelated to the rain."""
    carry: bool = True
    """Ablation: whether anything is carried from frame to frame."""
    alignment: str = "none"
    """How what is carried is aligned with a moving scene: not at all (``none``), or by motion
    ``measured`` between derained frames and assumed to continue."""

    def __post_init__(self) -> None:
        for field, known in (
            ("begin_with", ("frame", "previous")),
            ("alignment", ("none", "measured")),
        ):
            if getattr(self, field) not in known:
                raise SettingsError(
                    f"{field} is {' or '.join(map(repr, known))}, not {getattr(self, field)!r} "
                    "(rranet)"
                )

    @property
    def keeps_picture(self) -> bool:
        """Whether the derained frame is part of the state."""
        return self.begin_with == "previous" or self.alignment == "measured"


class _RecurrentBlock(nn.Module):
    """The paper's RRB: a residual block with a ConvLSTM between its two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.lstm = ConvLSTM(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        memory = self.lstm(F.relu(self.first(features)), memory)
        return F.relu(self.second(memory[0]) + self.shortcut(features)), memory


class _Attention(nn.Module):
    """RLCN-GAM, eq. 3: where in the encoder's features the rain is."""

    def __init__(self, channels: int, *, guided: bool) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.encoder = nn.Conv2d(channels, inner, 1)
        self.decoder = nn.Conv2d(channels, inner, 1)
        self.guide = nn.Conv2d(3, inner, 3, padding=1) if guided else None
        self.sum = nn.Conv2d(inner, 1, 1)
        if self.guide is not None:
            # Nothing in the loss says that rain scores high rather than low, as in the paper's
            # maps; by chance it came out low. Positive weights start it off high.
            with torch.no_grad():
                self.guide.weight.abs_()
                self.sum.weight.abs_()

    def forward(self, encoded: Tensor, decoded: Tensor, guide: Tensor | None) -> Tensor:
        inner = self.encoder(encoded) + self.decoder(decoded)
        if guide is not None:
            inner = inner + guide
        return torch.sigmoid(self.sum(F.relu(inner)))


class _Decoder(nn.Module):
    """One step up: up-convolution, attention to the skip connection, residual block."""

    def __init__(self, below: int, channels: int, config: Config) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, channels, 2, stride=2)
        self.attention = _Attention(channels, guided=config.rlcn) if config.attention else None
        self.block = ResidualBlock(2 * channels, channels)

    def guide(self, contrast: Tensor) -> Tensor | None:
        """The RLCN image's contribution to the attention, the same at every stage."""
        if self.attention is None or self.attention.guide is None:
            return None
        guide: Tensor = self.attention.guide(contrast)
        return guide

    def forward(
        self, below: Tensor, encoded: Tensor, guide: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Features of this scale, and the attention map they were made with."""
        decoded = self.up(below)
        attention = None
        if self.attention is not None:
            attention = self.attention(encoded, decoded, guide)
            encoded = attention * encoded
        return self.block(torch.cat([encoded, decoded], 1)), attention


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="Li, Monno and Okutomi, Recurrent RLCN-Guided Attention Network for Single Image "
        "Deraining, MVA 2021",
        recurrent=True,
        stride=2 ** (_SCALES - 1),
        stages=Config.stages,
    )
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        widths = [config.channels * (scale + 1) for scale in range(_SCALES)]
        block = _RecurrentBlock if config.lstm else ResidualBlock
        self.head = nn.Conv2d(9 if config.rlcn else 6, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            block(below, width) for below, width in pairwise([widths[0], *widths])
        )
        self.decoder = nn.ModuleList(
            _Decoder(widths[scale + 1], widths[scale], config)
            for scale in reversed(range(_SCALES - 1))
        )
        self.tail = nn.Conv2d(widths[0], 3, 1)

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        grey = motion.downsample_grey(frame) if self._aligns else None
        background, memories = self._begin(frame, state, grey)
        constant, guides = self._guide(frame)
        attention: Tensor | None = None
        for _ in range(self.stages):
            features = F.relu(self.head(torch.cat([*constant, background], 1)))
            skips, memories = self._encode(features, memories)
            features = skips.pop()
            for decoder, guide in zip(self.decoder, guides, strict=True):
                features, attention = decoder(features, skips.pop(), guide)
            background = frame + self.tail(features)  # the negative rain layer
        derained = in_range(background)
        attention = change_map(derained, frame) if attention is None else attention
        return Output(derained, attention, self._state(memories, derained, state, grey))

    def _encode(
        self, features: Tensor, memories: list[Memory | None]
    ) -> tuple[list[Tensor], list[Memory | None]]:
        """Features of every scale, finest first, and the new ConvLSTM memories."""
        skips: list[Tensor] = []
        kept: list[Memory | None] = []
        for block, memory in zip(self.encoder, memories, strict=True):
            if skips:
                features = F.max_pool2d(features, 2)
            if isinstance(block, _RecurrentBlock):
                features, memory = block(features, memory)
            else:
                features = block(features)
            skips.append(features)
            kept.append(memory)
        return skips, kept

    def _guide(self, frame: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The inputs that all stages share: a constant one, and each decoder's guide."""
        if not self.config.rlcn:
            return [frame], [None for _ in self.decoder]
        contrast = rlcn(frame, radius=self.config.rlcn_radius, epsilon=self.config.rlcn_epsilon)
        decoders = cast("list[_Decoder]", list(self.decoder))
        guides, level = [decoders[-1].guide(contrast)], contrast
        for decoder in decoders[-2::-1]:
            level = F.avg_pool2d(level, 2)
            guides.insert(0, decoder.guide(level))
        return [frame, contrast], guides

    @property
    def _aligns(self) -> bool:
        return self.config.carry and self.config.alignment == "measured"

    def _begin(
        self, frame: Tensor, state: State, grey: Tensor | None
    ) -> tuple[Tensor, list[Memory | None]]:
        """The first stage's background and ConvLSTM memories."""
        if not state:
            return frame, [None] * _SCALES
        if grey is not None:
            state = _aligned(state, grey)
        memories = 2 * _SCALES if self.config.lstm else 0
        background = state[memories] if self.config.begin_with == "previous" else frame
        if not self.config.lstm:
            return background, [None] * _SCALES
        return background, [(state[2 * scale], state[2 * scale + 1]) for scale in range(_SCALES)]

    def _state(
        self, memories: list[Memory | None], derained: Tensor, state: State, grey: Tensor | None
    ) -> State:
        """Memories, then the derained frame, its motion and a small grey frame, if used."""
        if not self.config.carry:
            return ()
        kept = tuple(tensor for memory in memories if memory is not None for tensor in memory)
        if not self.config.keeps_picture:
            return kept
        if grey is None:
            return (*kept, derained)
        return (*kept, derained, _motion(state[-3] if state else None, derained), grey)


def _motion(past: Tensor | None, derained: Tensor) -> Tensor:
    """How the scene moved between two derained frames; zero if there was none before."""
    if past is None:
        return motion.zero_flow(derained)
    height, width = derained.shape[-2:]
    # Motion is measured down to a sixteenth, while the network only needs eighths.
    before, now = (
        F.pad(picture, (0, -width % 16, 0, -height % 16), mode="replicate")
        for picture in (past, derained)
    )
    return motion.estimate_flow(before, now)[..., : height // 8, : width // 8]


def _aligned(state: State, grey: Tensor) -> State:
    """Memories and the last derained frame, moved to the current frame."""
    *maps, course, before = state
    cells = motion.propagate_flow(course, before, grey)
    height = cells.shape[-2]
    moved = []
    for tensor in maps:
        aligned = motion.warp(tensor, cells, tensor.shape[-2] // height)
        moved.append(aligned.to(tensor.dtype, memory_format=torch.channels_last))
    return tuple(moved)


class Objective(_base.Objective):
    """Eq. 1, negative SSIM of the last stage, and a loss that ties attention to the rain."""

    network: Network

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        config = self.network.config
        losses = {"ssim": 1 - ssim(output.derained.float(), reference)}
        if config.attention and config.attention_weight:
            loss = attention_loss(output.attention, reference, rainy)
            losses["attention"] = config.attention_weight * loss
        return losses
