"""The network made for the stream: causal, recurrent, and fast enough to stand on a robot.

Ours, not a paper's. Three decisions give it its speed and its manners. Nearly all work is done at a
quarter of the resolution and below (pixel unshuffle in, pixel shuffle out). What comes out is not a
picture but a correction, ``clean = gain * (frame - mask * rain) + offset``: rain is taken from the
frame at full resolution, so clean detail is never redrawn, and the smooth gain and offset lift the
veil, whose inverse is just such an affine map. And the last clean frame, brought into line with the
moving scene by a measured displacement, stands beside the current one as evidence: a streak is
hardly ever where it was a frame ago, the scene behind it nearly always is. Where the network trusts
it, the past may also take the place of what the frame alone allows.
"""

from __future__ import annotations

from collections.abc import Callable
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

_FOLD = 4  # the factor of pixel unshuffle and shuffle
_MOST_GAIN = 3.0  # as a logarithm: beyond it, an untrained network runs away


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
    """How the past is brought into line with the frame: "measured" or "none"."""
    guide: bool = True
    """Whether the rectified local contrast (RLCN) of the frame is an input."""
    affine: bool = True
    """Whether gain and offset may lift a veil; without them rain is only subtracted."""


class _Block(nn.Module):
    """Residual block of two plain 3x3 convolutions: the shape CPUs and GPUs run fastest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(x), inplace=True))
        return change.add_(x)


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels) for _ in range(count)))


class _Gate(nn.Module):
    """Gated recurrent unit over feature maps."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + hidden, 2 * hidden, 3, padding=1)
        self.candidate = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        update, reset = self.gates(torch.cat([x, hidden], 1)).sigmoid().chunk(2, 1)
        candidate = self.candidate(torch.cat([x, reset * hidden], 1)).tanh()
        return torch.lerp(hidden, candidate, update)


class Network(_base.Network):
    facts: ClassVar[Facts] = Facts(
        paper="rainstream, this project's own network for video", recurrent=True, stride=16
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        fine, middle, coarse = config.channels, 2 * config.channels, 3 * config.channels
        planes = 3 + (1 if config.guide else 0) + (3 if config.carry else 0)
        self.enter = nn.Conv2d(planes * _FOLD**2, fine, 3, padding=1)
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
        self.leave = nn.Conv2d(fine, (5 if config.carry else 4) * _FOLD**2, 3, padding=1)
        self.affine = nn.Conv2d(middle, 6, 3, padding=1) if config.affine else None
        self.level = nn.Linear(coarse, 1)
        self._start_as_identity()

    def _start_as_identity(self) -> None:
        """An untrained network hands its frame on unchanged, give or take a little."""
        for module in self.modules():
            if isinstance(module, _Block):
                nn.init.kaiming_normal_(module.first.weight, nonlinearity="relu")
                nn.init.zeros_(module.first.bias)  # type: ignore[arg-type]
                nn.init.normal_(module.second.weight, std=1e-3)
                nn.init.zeros_(module.second.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        if self.config.carry:
            nn.init.constant_(self.leave.bias[-(_FOLD**2) :], -3.0)  # type: ignore[index]
        if self.affine is not None:
            nn.init.normal_(self.affine.weight, std=1e-3)
            nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        # Half of the time goes into plain arithmetic on whole planes, which is quickest on
        # contiguous ones.
        frame = frame.contiguous()
        grey = frame.mean(1, keepdim=True)
        planes = [frame]
        if self.config.guide:
            planes.append(_guide(grey))
        if self.config.carry:
            small = motion.small(grey)
            past, hidden = self._aligned(frame, small, state)
            # The difference to the past is what tells streak from scene; a fresh start has none.
            planes.append(past - frame)
        fine = self.down_fine(F.relu(self.enter(_folded(torch.cat(planes, 1))), inplace=True))
        middle = self.down_middle(F.relu(self.to_middle(fine), inplace=True))
        coarse = self.coarse(F.relu(self.to_coarse(middle), inplace=True))
        summary = coarse.mean((2, 3))
        coarse = coarse + self.context(summary)[:, :, None, None]
        middle = middle + F.interpolate(self.from_coarse(coarse), scale_factor=2.0)
        carried: State = ()
        if self.gate is not None:
            known = hidden[:, -1:]
            hidden = self.gate(middle, hidden[:, :-1].to(middle.dtype))
            middle = torch.cat([middle, hidden], 1)
        middle = self.up_middle(F.relu(self.join_middle(middle), inplace=True))
        fine = fine + F.interpolate(self.from_middle(middle), scale_factor=2.0)
        streaks = F.pixel_shuffle(self.leave(self.up_fine(fine)), _FOLD)
        streaks = streaks.to(torch.float32, memory_format=torch.contiguous_format)
        rain, mask = streaks[:, :3], streaks[:, 3:4].sigmoid()
        clean = torch.addcmul(frame, mask, rain, value=-1)
        if self.affine is not None:
            # Smooth by construction: what is interpolated eightfold can hold a veil, not a streak.
            gain, offset = self.affine(middle).float().chunk(2, 1)
            maps = torch.cat([gain.clamp(-_MOST_GAIN, _MOST_GAIN).exp(), offset], 1)
            maps = F.interpolate(maps, scale_factor=8.0, mode="bilinear", align_corners=False)
            clean = torch.addcmul(maps[:, 3:], clean, maps[:, :3])
        if self.gate is not None:
            trust = streaks[:, 4:].sigmoid() * F.interpolate(known, scale_factor=8.0)
            clean = torch.lerp(clean, _plausible(past, clean), trust)
        clean = clean.clamp_(0, 1)
        if self.gate is not None:
            carried = (clean, torch.cat([hidden.float(), torch.ones_like(known)], 1))
            if self.config.alignment == "measured":
                carried += (self._motion(clean, state), small)
        return Output(clean, mask, carried, self.level(summary).float().sigmoid()[:, 0])

    def _aligned(self, frame: Tensor, small: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Last clean frame and hidden state as seen from where the camera is now.

        The hidden state's last channel is one wherever there is a past, and zero at a fresh start.
        """
        if not state:
            batch, _, height, width = frame.shape
            hidden = frame.new_zeros(batch, self.config.channels + 1, height // 8, width // 8)
            return frame, hidden
        past, hidden = state[:2]
        if self.config.alignment == "none":
            return past, hidden
        course, before = state[2:]
        # Between frames in the rain, motion can be told for the view as a whole only; between the
        # clean ones it was told everywhere, a frame ago. Things go on as they went; what shakes is
        # the camera, and what varies is how long it takes to the next frame.
        # Nothing moves at a fresh start, also where it is told by zeros, as in an exported graph.
        flow = motion.resumed(course, before, small) * hidden[:, -1:]
        return motion.moved(past, flow, 8), motion.moved(hidden, flow, 1)

    def _motion(self, clean: Tensor, state: State) -> Tensor:
        """How things moved from the last clean frame to this one."""
        if not state:
            batch, _, height, width = clean.shape
            return clean.new_zeros(batch, 2, height // 8, width // 8)
        flow = motion.displacement(state[0].mean(1, keepdim=True), clean.mean(1, keepdim=True))
        return flow * state[1][:, -1:]


def _plausible(past: Tensor, clean: Tensor) -> Tensor:
    """The past within the range of what is around each pixel now: no ghost of what has moved on.

    Most of what a streak left has something of the scene beside it, so it is still filled in.
    """
    low, high = _around(clean, torch.minimum), _around(clean, torch.maximum)
    return torch.minimum(torch.maximum(past, low), high)


def _around(picture: Tensor, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The least or the greatest of 3 x 3 pixels, in a tenth of what a pooling layer takes."""
    edged = F.pad(picture, (1, 1, 0, 0), mode="replicate")
    wide = pick(pick(edged[..., :-2], edged[..., 2:]), picture)
    edged = F.pad(wide, (0, 0, 1, 1), mode="replicate")
    return pick(pick(edged[..., :-2, :], edged[..., 2:, :]), wide)


def _folded(planes: Tensor) -> Tensor:
    """``F.pixel_unshuffle``, straight into the channels-last order that convolutions work in."""
    batch, channels, height, width = planes.shape
    blocks = planes.reshape(batch, channels, height // _FOLD, _FOLD, width // _FOLD, _FOLD)
    blocks = blocks.permute(0, 2, 4, 1, 3, 5)
    return blocks.flatten(3).permute(0, 3, 1, 2)


def _guide(grey: Tensor, *, epsilon: float = 0.02) -> Tensor:
    """Rectified local contrast of the frame: bright where a streak may be.

    Mean and deviation are taken over 20 x 20 pixels by way of 4 x 4 blocks, a fifteenth of the work
    of a sliding window and as good a guide.
    """
    blocks = torch.cat([F.avg_pool2d(grey, 4), F.avg_pool2d(grey * grey, 4)], 1)
    mean, square = F.avg_pool2d(blocks, 5, 1, 2, count_include_pad=False).chunk(2, 1)
    deviation = (square - mean * mean).clamp_min(0).sqrt()
    scale = 0.25 / (deviation + epsilon)
    # Both at a quarter, so that the division is.
    local = torch.cat([scale, -mean * scale], 1)
    local = F.interpolate(local, scale_factor=4.0, mode="bilinear", align_corners=False)
    return torch.addcmul(local[:, 1:], grey, local[:, :1]).clamp(0, 1)


@torch.no_grad()
def grow(small: Network, large: Network) -> None:
    """Let ``large`` begin with what ``small`` has learnt.

    Every layer is some times ``channels`` wide, so channel n of each of these parts stays channel n
    of that part. None of the old channels hears the new ones yet, and new blocks change next to
    nothing.
    """
    before, after = small.config.channels, large.config.channels
    wanted = replace(small.config, channels=after, blocks=large.config.blocks)
    if wanted != large.config or before > after or small.config.blocks > large.config.blocks:
        raise SettingsError(f"{large.config} cannot begin as {small.config}: it is no larger one")

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
            columns = places(learnt[name].shape[1], weight.shape[1])
            weight[rows] = 0
            weight[rows[:, None], columns] = learnt[name].to(weight)


class Objective(_base.Objective):
    """L1 and SSIM on the picture; a nudge for mask and rain level to mean what they say."""

    def frame_losses(self, output: Output, rainy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        change = (rainy - clean).abs().amax(1, keepdim=True)
        # Saturating targets: a change of a tenth of the range is rain for certain, and a mean
        # change of that size is as hard as rain gets.
        mask = (change * 10).clamp_max(1)
        level = 1 - torch.exp(-change.mean((1, 2, 3)) * 10)
        assert output.rain_level is not None
        return {
            "l1": (output.clean - clean).abs().mean(),
            "ssim": 0.2 * (1 - ssim(output.clean, clean)),
            "mask": 0.01 * F.l1_loss(output.attention, mask),
            "level": 0.01 * F.mse_loss(output.rain_level, level),
        }
