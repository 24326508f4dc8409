"""The network for video streams: causal, recurrent, and fast enough for a robot.

This project's own design. Three decisions give it speed and quality. Nearly all work is done at a
quarter of the resolution and below (pixel unshuffle in, pixel shuffle out). The output is not a
picture but a correction, ``derained = gain * (frame - attention * rain) + offset``: rain is
subtracted from the frame at full resolution, so detail is never redrawn, and the smooth gain and
offset remove the veil, whose inverse is such an affine map. The last derained frame, aligned by
measured motion, is an input beside the current frame: a streak is hardly ever where it was a frame
ago, but the scene behind it nearly always is. Where the network trusts the past, it can also
replace what the frame alone gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.losses import ssim
from rain_removal_ros.networks import _base
from rain_removal_ros.networks import _motion as motion
from rain_removal_ros.networks._base import Facts, Output, State
from rain_removal_ros.networks._layers import conv_add, conv_relu
from rain_removal_ros.networks._ops import (
    FOLD,
    apply_reset_gate,
    compose_output,
    fold_inputs,
    gru_update,
    upsample_add,
)

_MOST_GAIN = 3.0  # as a logarithm: beyond it, an untrained network diverges
_ERROR, _FINEST = 0.025, 0.01  # weight of the logarithm of the error, and the error it ends at
_RAINY = 0.25  # weight of the error where it rains
_KEPT = 0.2  # weight of the error where it does not, and the network acts as if it did
_NOISE, _CERTAIN = 0.02, 0.1  # changes that are hardly and certainly rain
_LEAST_MASK = 1e-6  # what the mask's logarithm ends at
_FOUND, _SPARED = 0.01, 0.1  # weights of the mask's logarithms where it rains, and where not
_FEWEST_PIXELS = 20.0  # of rain in a picture; less rain counts for less


@dataclass(frozen=True)
class Config:
    """Sizes S, M and L are ``channels`` 24, 40 and 64 with ``blocks`` 1, 2 and 3."""

    channels: int = 40
    """At a quarter of the resolution; twice as many at an eighth, three times at a sixteenth."""
    blocks: int = 2
    """Residual blocks at each scale, on the way down and on the way up."""
    carry: bool = True
    """Whether anything is carried from frame to frame."""
    alignment: str = "measured"
    """How the past is aligned with the frame: "measured" or "none"."""
    guide: bool = True
    """Whether the rectified local contrast (RLCN) of the frame is an input."""
    affine: bool = True
    """Whether gain and offset may remove a veil; without them rain is only subtracted."""
    anchored: bool = False
    """Whether the frame without streaks is carried before gain and offset are applied. They are
    then estimated from each frame and cannot accumulate."""
    evidence: bool = False
    """Whether the minimum and median brightness of the last three frames are inputs: rain only
    brightens, and is elsewhere in the next frame."""


class _Block(nn.Module):
    """Residual block of two plain 3x3 convolutions, which CPUs and GPUs run fastest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return conv_add(self.second, conv_relu(self.first, x), x)


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels) for _ in range(count)))


class _Gate(nn.Module):
    """Gated recurrent unit over feature maps."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + hidden, 2 * hidden, 3, padding=1)
        self.candidate = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        joined = torch.cat([x, hidden], 1)
        gates = self.gates(joined)
        return gru_update(hidden, gates, self.candidate(apply_reset_gate(joined, gates)))


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="rainstream, this project's own network for video",
        recurrent=True,
        stride=16,
        planar=True,
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        fine, middle, coarse = config.channels, 2 * config.channels, 3 * config.channels
        planes = 3 + (1 if config.guide else 0) + (3 if config.carry else 0)
        planes += 2 if config.carry and config.evidence else 0
        self.enter = nn.Conv2d(planes * FOLD**2, fine, 3, padding=1)
        self.down_fine = _blocks(fine, config.blocks)
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.down_middle = _blocks(middle, config.blocks)
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = _blocks(coarse, config.blocks)
        self.context = nn.Linear(coarse, coarse)
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.gate = _Gate(middle, fine) if config.carry else None
        self.join_middle = nn.Conv2d(middle + fine if config.carry else middle, middle, 1)
        self.up_middle = _blocks(middle, config.blocks)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.up_fine = _blocks(fine, config.blocks)
        self.leave = nn.Conv2d(fine, (5 if config.carry else 4) * FOLD**2, 3, padding=1)
        self.affine = nn.Conv2d(middle, 6, 3, padding=1) if config.affine else None
        self.level = nn.Linear(coarse, 1)
        self._start_as_identity()

    def _start_as_identity(self) -> None:
        """Let the untrained network return its frame almost unchanged."""
        for module in self.modules():
            if isinstance(module, _Block):
                nn.init.kaiming_normal_(module.first.weight, nonlinearity="relu")
                nn.init.zeros_(module.first.bias)  # type: ignore[arg-type]
                nn.init.normal_(module.second.weight, std=1e-3)
                nn.init.zeros_(module.second.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        if self.config.carry:
            nn.init.constant_(self.leave.bias[-(FOLD**2) :], -3.0)  # type: ignore[index]
        if self.affine is not None:
            nn.init.normal_(self.affine.weight, std=1e-3)
            nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]

    def rectified(self) -> dict[nn.Conv2d, nn.Conv2d | None]:
        blocks = [module for module in self.modules() if isinstance(module, _Block)]
        several = (self.enter, self.to_middle, self.to_coarse, self.join_middle)
        return {**dict.fromkeys(several), **{block.first: block.second for block in blocks}}

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        frame = frame.contiguous()  # arithmetic on whole planes is fastest on this layout
        past: Tensor | None = None
        known: Tensor | None = None
        evidence: Tensor | None = None
        if self.gate is not None:
            small = motion.downsample_grey(frame)
            past, hidden, greys = self._aligned(frame, small, state)
            known = hidden[:, -1:]
            evidence = None if greys is None else _evidence(greys)
        # The difference to the past separates streaks from scene; a fresh start has none.
        planes = fold_inputs(
            frame, past, evidence, guided=self.config.guide, dtype=self.enter.weight.dtype
        )
        fine = self.down_fine(conv_relu(self.enter, planes))
        middle = self.down_middle(conv_relu(self.to_middle, fine))
        coarse = self.coarse(conv_relu(self.to_coarse, middle))
        summary = coarse.mean((2, 3))
        coarse = coarse + self.context(summary)[:, :, None, None]
        middle = upsample_add(middle, self.from_coarse(coarse))
        carried: State = ()
        if self.gate is not None:
            hidden = hidden[:, :-1].to(middle.dtype, memory_format=torch.channels_last)
            hidden = self.gate(middle, hidden)
            middle = torch.cat([middle, hidden], 1)
        middle = self.up_middle(conv_relu(self.join_middle, middle))
        fine = upsample_add(fine, self.from_middle(middle))
        maps = None
        if self.affine is not None:
            gain, offset = self.affine(middle).float().chunk(2, 1)
            maps = torch.cat([gain.clamp(-_MOST_GAIN, _MOST_GAIN).exp(), offset], 1)
        streaks = self.leave(self.up_fine(fine))
        anchored = self.config.anchored
        derained, attention, base = compose_output(
            frame, streaks, maps, past, known, anchored=anchored
        )
        if self.gate is not None:
            hidden = hidden.float()
            carried = (base, torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1))
            if self.config.alignment == "measured":
                carried += (self._motion(base, state), small)
            if greys is not None:
                carried += (greys[:, :2].contiguous(),)
        return Output(derained, attention, carried, self.level(summary).float().sigmoid()[:, 0])

    def _aligned(
        self, frame: Tensor, small: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Last derained frame and hidden state, moved to the current frame; and the last three
        frames in grey, the newest first, if they are inputs.

        The hidden state's last channel is one wherever there is a past, and zero at a fresh start.
        """
        grey = frame.mean(1, keepdim=True) if self.config.evidence else None
        if not state:
            batch, _, height, width = frame.shape
            hidden = frame.new_zeros(batch, self.config.channels + 1, height // 8, width // 8)
            return frame, hidden, grey if grey is None else grey.expand(-1, 3, -1, -1)
        past, hidden = state[:2]
        if self.config.alignment == "none":
            return past, hidden, grey if grey is None else torch.cat([grey, state[2]], 1)
        course, before = state[2:4]
        # Between rainy frames, motion can only be estimated for the whole view; between the
        # derained ones it was estimated everywhere, a frame ago. That motion is assumed to
        # continue. What changes is the camera's shake and the time to the next frame. Nothing moves
        # at a fresh start, also if its state is zeros, as in an exported graph.
        flow = motion.propagate_flow(course, before, small) * hidden[:, -1:].detach()
        past, hidden = motion.warp(past, flow, 8), motion.warp(hidden, flow, 1)
        if grey is None:
            return past, hidden, None
        earlier = motion.warp(state[4], flow, 8)
        known = F.interpolate(hidden[:, -1:].detach(), scale_factor=8.0)
        return past, hidden, torch.cat([grey, torch.lerp(grey, earlier, known)], 1)

    def _motion(self, derained: Tensor, state: State) -> Tensor:
        """The motion from the last derained frame to this one."""
        if not state:
            return motion.zero_flow(derained)
        flow = motion.estimate_flow(state[0], derained)
        return flow * state[1][:, -1:].detach()


@torch.no_grad()
def _evidence(greys: Tensor) -> Tensor:
    """How much darker the minimum and the median of three frames are than the newest."""
    now, before, earlier = greys.chunk(3, 1)
    low, high = torch.minimum(before, earlier), torch.maximum(before, earlier)
    middle = torch.maximum(low, torch.minimum(now, high))
    return torch.cat([torch.minimum(now, low) - now, middle - now], 1)


@torch.no_grad()
def grow(small: Network, large: Network) -> None:
    """Let ``large`` begin with what ``small`` has learnt.

    Every layer's width is a multiple of ``channels``, so channel n of each part stays channel n of
    that part. Old channels ignore the new ones at first, and new blocks change next to nothing.
    Evidence, if it is new, is the last input and ignored too.
    """
    before, after = small.config.channels, large.config.channels
    wanted = replace(
        small.config,
        channels=after,
        blocks=large.config.blocks,
        anchored=large.config.anchored,
        evidence=large.config.evidence,
    )
    if wanted != large.config or before > after or small.config.blocks > large.config.blocks:
        raise SettingsError(f"{large.config} cannot begin as {small.config}: it is not larger")

    def places(old: int, new: int) -> Tensor:
        place = torch.arange(old)
        return place if old == new else place // before * after + place % before

    learnt = small.state_dict()
    for name, weight in large.state_dict().items():
        if name not in learnt:
            continue
        rows = places(len(learnt[name]), len(weight))
        if weight.dim() == 1:
            weight[rows] = learnt[name].to(weight)
        else:
            old, new = learnt[name].shape[1], weight.shape[1]
            columns = torch.arange(old) if name == "enter.weight" else places(old, new)
            weight[rows] = 0
            weight[rows[:, None], columns] = learnt[name].to(weight)


class Objective(_base.Objective):
    """The error's logarithm and SSIM on the picture, the error where it rains, and small losses for
    mask and rain level.

    The logarithm counts how much of the error of each picture is gone, as PSNR does. Without it,
    pictures in a thick veil, whose tone can only be guessed, have nearly all of the gradient.
    Without the error where it rains, a network learns to leave a few streaks, because they have
    little area. Without the error where it only seems to rain, it then learns to remove lane lines.
    """

    def frame_losses(self, output: Output, rainy: Tensor, reference: Tensor) -> dict[str, Tensor]:
        change = (rainy - reference).abs().amax(1, keepdim=True)
        # Saturating targets: a change of a tenth of the range is certainly rain, and a mean change
        # of that size is the hardest rain. Noise changes every pixel a little: counted as rain, it
        # would outweigh a few streaks.
        rainy_area = ((change - _NOISE) / (_CERTAIN - _NOISE)).clamp(0, 1)
        level = 1 - torch.exp(-change.mean((1, 2, 3)) * 10)
        assert output.rain_level is not None
        error = (output.derained - reference).abs()
        made = (output.derained.detach() - rainy).abs().amax(1, keepdim=True)
        mistaken = (made / _CERTAIN).clamp_max(1) * (1 - rainy_area)
        return {
            "log_l1": _ERROR * torch.log1p(error.mean((1, 2, 3)) / _FINEST).mean(),
            "rainy": _RAINY * _mean_over(rainy_area, error),
            "kept": _KEPT * _mean_over(mistaken, error),
            "ssim": 0.2 * (1 - ssim(output.derained, reference)),
            "mask": _mask_loss(output.attention, rainy_area),
            "level": 0.01 * F.mse_loss(output.rain_level, level),
        }


def _mask_loss(attention: Tensor, area: Tensor) -> Tensor:
    """Cross-entropy of the mask, in which the rain of each picture has equal weight.

    Where the mask is zero, the picture has no gradient: rain is subtracted in proportion to it.
    The logarithm has one, so that rain of a new kind can be learnt.
    """
    attention = attention.clamp(_LEAST_MASK, 1 - _LEAST_MASK)
    found = _mean_over(area, -attention.log())
    spared = ((1 - area) * -(1 - attention).log()).mean()
    return _FOUND * found + _SPARED * spared


def _mean_over(area: Tensor, error: Tensor) -> Tensor:
    """The mean error under the mask of each picture, with equal weight for each; 0 for dry ones."""
    covered = area.sum((1, 2, 3))
    error_of_each = (area * error.mean(1, keepdim=True)).sum((1, 2, 3))
    return (error_of_each / covered.clamp_min(_FEWEST_PIXELS)).mean()
