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

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rain_removal_ros.losses import ssim
from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Facts, Output, State

_FOLD = 4  # the factor of pixel unshuffle and shuffle


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
        change: Tensor = self.second(F.relu(self.first(x)))
        return x + change


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
        planes = [frame]
        if self.config.guide:
            planes.append(_guide(frame))
        if self.config.carry:
            past, hidden = self._aligned(frame, state)
            # The difference to the past is what tells streak from scene; a fresh start has none.
            planes.append(past - frame)
        fine = self.down_fine(F.relu(self.enter(F.pixel_unshuffle(torch.cat(planes, 1), _FOLD))))
        middle = self.down_middle(F.relu(self.to_middle(fine)))
        coarse = self.coarse(F.relu(self.to_coarse(middle)))
        summary = coarse.mean((2, 3))
        coarse = coarse + self.context(summary)[:, :, None, None]
        middle = middle + F.interpolate(self.from_coarse(coarse), scale_factor=2.0)
        carried: State = ()
        if self.gate is not None:
            known = hidden[:, -1:]
            hidden = self.gate(middle, hidden[:, :-1].to(middle.dtype))
            middle = torch.cat([middle, hidden], 1)
        middle = self.up_middle(F.relu(self.join_middle(middle)))
        fine = fine + F.interpolate(self.from_middle(middle), scale_factor=2.0)
        streaks = F.pixel_shuffle(self.leave(self.up_fine(fine)), _FOLD).float()
        rain, mask = streaks[:, :3], streaks[:, 3:4].sigmoid()
        clean = frame - mask * rain
        if self.affine is not None:
            # Smooth by construction: what is interpolated eightfold can hold a veil, not a streak.
            maps = F.interpolate(
                self.affine(middle).float(), scale_factor=8.0, mode="bilinear", align_corners=False
            )
            clean = clean * maps[:, :3].exp() + maps[:, 3:]
        if self.gate is not None:
            trust = streaks[:, 4:].sigmoid() * F.interpolate(known, scale_factor=8.0)
            clean = torch.lerp(clean, past, trust)
        clean = clean.clamp(0, 1)
        if self.gate is not None:
            carried = (clean, torch.cat([hidden.float(), torch.ones_like(known)], 1))
        return Output(clean, mask, carried, self.level(summary).float().sigmoid()[:, 0])

    def _aligned(self, frame: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Last clean frame and hidden state as seen from where the camera is now.

        The hidden state's last channel is one wherever there is a past, and zero at a fresh start.
        """
        if not state:
            batch, _, height, width = frame.shape
            hidden = frame.new_zeros(batch, self.config.channels + 1, height // 8, width // 8)
            return frame, hidden
        past, hidden = state
        if self.config.alignment == "none":
            return past, hidden
        flow = displacement(past, frame)
        fine_flow = F.interpolate(flow, scale_factor=8.0, mode="bilinear", align_corners=False)
        return _warp(past, fine_flow * 8), _warp(hidden, flow)


def _guide(frame: Tensor, *, epsilon: float = 0.02) -> Tensor:
    """Rectified local contrast of the grey frame: bright where a streak may be.

    Mean and deviation are taken over 20 x 20 pixels by way of 4 x 4 blocks, a fifteenth of the work
    of a sliding window and as good a guide.
    """
    grey = frame.mean(1, keepdim=True)
    blocks = torch.cat([F.avg_pool2d(grey, 4), F.avg_pool2d(grey * grey, 4)], 1)
    local = F.avg_pool2d(blocks, 5, 1, 2, count_include_pad=False)
    local = F.interpolate(local, scale_factor=4.0, mode="bilinear", align_corners=False)
    mean, square = local[:, :1], local[:, 1:]
    deviation = (square - mean * mean).clamp_min(0).sqrt()
    return ((grey - mean).clamp_min(0) / (deviation + epsilon)).clamp_max(4) / 4


@torch.no_grad()
def displacement(past: Tensor, frame: Tensor) -> Tensor:
    """Where each eighth-resolution cell of ``frame`` was in ``past``: B x 2 (x, y), in cells.

    Block matching at a sixteenth finds the large motions; gradient steps at an eighth, a quarter
    and a half find the fractions of a pixel. Streaks are bright and narrow, so an opening across
    them takes them away first; without it they cost 10 dB of the aligned picture, with it 2 dB.
    """
    with torch.autocast(frame.device.type, enabled=False):
        half = F.avg_pool2d(torch.cat([past, frame]).float().mean(1, keepdim=True), 2)
        half = F.max_pool2d(-F.max_pool2d(-half, (1, 3), 1, (0, 1)), (1, 3), 1, (0, 1))
        quarter = F.avg_pool2d(half, 2)
        eighth = F.avg_pool2d(quarter, 2)
        flow = _search(F.avg_pool2d(eighth, 2), reach=3)
        flow = 2 * F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
        for grey, cell, steps in ((eighth, 1, 2), (quarter, 2, 2), (half, 4, 1)):
            for _ in range(steps):
                flow = flow + _gradient_step(grey, flow, cell)
            flow = F.avg_pool2d(flow, 3, 1, 1, count_include_pad=False)
        return flow


def _search(pair: Tensor, *, reach: int) -> Tensor:
    """The best of all shifts up to ``reach``, past and present stacked in the batch."""
    before, now = pair.chunk(2)
    height, width = now.shape[-2:]
    padded = F.pad(before, (reach,) * 4, mode="replicate")
    side = 2 * reach + 1
    shifts = [padded[..., y : y + height, x : x + width] for y in range(side) for x in range(side)]
    cost = F.avg_pool2d((torch.cat(shifts, 1) - now).abs(), 5, 1, 2, count_include_pad=False)
    # Without texture all shifts cost the same; a small price on moving keeps the flow calm there.
    steps = torch.arange(-reach, reach + 1, device=now.device, dtype=now.dtype)
    cost = cost + (steps[:, None] ** 2 + steps**2).flatten()[:, None, None] * 2e-4
    best = cost.argmin(1, keepdim=True)
    flow = torch.cat([best % side, torch.div(best, side, rounding_mode="floor")], 1) - reach
    return F.avg_pool2d(flow.to(now.dtype), 3, 1, 1, count_include_pad=False)


def _gradient_step(pair: Tensor, flow: Tensor, cell: int) -> Tensor:
    """One step of Lucas and Kanade (1981) towards the displacement, per cell of ``cell`` pixels."""
    before, now = pair.chunk(2)
    if cell > 1:
        fine = F.interpolate(flow, scale_factor=float(cell), mode="bilinear", align_corners=False)
        before = _warp(before, fine * cell)
    else:
        before = _warp(before, flow)
    edged = F.pad(before, (1, 1, 1, 1), mode="replicate")
    dx = (edged[..., 1:-1, 2:] - edged[..., 1:-1, :-2]) / 2
    dy = (edged[..., 2:, 1:-1] - edged[..., :-2, 1:-1]) / 2
    error = now - before
    # What differs much is rain or a thing appearing, and has little say in where the scene went.
    trust = 1 / (error.abs() + 0.03)
    moments = torch.cat([dx * dx, dx * dy, dy * dy, dx * error, dy * error], 1) * trust
    moments = F.avg_pool2d(moments, cell)
    window = 5 if cell <= 2 else 3
    moments = F.avg_pool2d(moments, window, 1, window // 2, count_include_pad=False)
    xx, xy, yy, xe, ye = moments.unbind(1)
    damping = 1e-3 + 0.02 * (xx + yy)
    xx, yy = xx + damping, yy + damping
    step = torch.stack([yy * xe - xy * ye, xx * ye - xy * xe], 1)
    return (step / (xx * yy - xy * xy)[:, None]).clamp(-1.5, 1.5) / cell


def _warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image`` looked up at each pixel plus its flow, in float32, edges repeated."""
    height, width = image.shape[-2:]
    ys = torch.arange(height, device=image.device, dtype=torch.float32)
    xs = torch.arange(width, device=image.device, dtype=torch.float32)
    x = (flow[:, 0].float() + xs + 0.5) * (2 / width) - 1
    y = (flow[:, 1].float() + ys[:, None] + 0.5) * (2 / height) - 1
    return F.grid_sample(
        image.float(), torch.stack([x, y], -1), padding_mode="border", align_corners=False
    )


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
