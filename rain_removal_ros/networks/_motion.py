"""Measures how a scene moved between frames, and aligns what was carried with the current frame.

For networks that carry maps from frame to frame. Flow says where each cell of the current frame was
before: B x 2 (x, y), at an eighth of the resolution and in its cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.networks import _gradients as gradients
from rain_removal_ros.networks import _native as native


@torch.no_grad()
def estimate_flow(past: Tensor, now: Tensor) -> Tensor:
    """Where each eighth-resolution cell of ``now`` was in ``past``: B x 2 (x, y), in cells.

    Both are derained, B x C x H x W, with sides that are multiples of 16, and compared in grey.
    Block matching at a sixteenth finds large motions; gradient steps at an eighth, a quarter and a
    half find fractions of a pixel. Remaining streaks, which are bright and narrow, are removed
    first.
    """
    if native.serves(now, least_side=16):
        return native.estimate_flow(past, now)
    with torch.autocast(now.device.type, enabled=False):
        pair = torch.cat([past, now]).float().mean(1, keepdim=True)
        half = _opening(F.avg_pool2d(pair, 2))
        quarter = F.avg_pool2d(half, 2)
        eighth = F.avg_pool2d(quarter, 2)
        flow = _search(F.avg_pool2d(eighth, 2), reach=3)
        flow = 2 * F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
        for grey, cell, steps in ((eighth, 1, 2), (quarter, 2, 2), (half, 4, 1)):
            for _ in range(steps):
                flow = flow + _gradient_step(grey, flow, cell)
            flow = F.avg_pool2d(flow, 3, 1, 1, count_include_pad=False)
        return flow


def zero_flow(picture: Tensor) -> Tensor:
    """Flow for a scene that does not move, or whose motion is unknown."""
    batch, _, height, width = picture.shape
    return picture.new_zeros(batch, 2, height // 8, width // 8)


@torch.no_grad()
def propagate_flow(motion: Tensor, past: Tensor, now: Tensor) -> Tensor:
    """How far ``motion`` continued this time, and how the whole view shifted in addition.

    ``past`` and ``now`` are grey frames at a quarter, from ``downsample_grey``. There are only
    three unknowns per frame, so rain hardly affects them, and a dropped or late frame does no harm.
    """
    if native.serves(now, least_side=4):
        return native.propagate_flow(motion, past, now)
    with torch.autocast(now.device.type, enabled=False):
        quarter = torch.cat([past, now]).float()
        flow = motion
        for grey, cell in ((F.avg_pool2d(quarter, 2), 1), (quarter, 2)):
            course = _enlarged(motion, cell)
            for _ in range(3):
                dx, dy, error, trust = _slopes(grey, flow, cell)
                along = (dx * course[:, :1] + dy * course[:, 1:]) * cell
                xx, xy, yy = (_mean(trust * p) for p in (dx * dx, dx * dy, dy * dy))
                free = _solved(xx, xy, yy, _mean(trust * dx * error), _mean(trust * dy * error))
                bound = _solved(xx, xy, yy, _mean(trust * dx * along), _mean(trust * dy * along))
                rest = error - dx * free[:, :1] - dy * free[:, 1:]
                part = along - dx * bound[:, :1] - dy * bound[:, 1:]
                more = _mean(trust * part * rest) / (1.02 * _mean(trust * part * part) + 1e-4)
                more = more.clamp(-1, 1)
                flow = flow + more * motion + ((free - more * bound) / cell).clamp(-1.5, 1.5)
        return flow


@torch.no_grad()
def downsample_grey(picture: Tensor) -> Tensor:
    """The frame in grey, at a quarter of the size, without thin streaks."""
    if native.serves(picture, least_side=4):
        return native.downsample_grey(picture)
    grey = picture.mean(1, keepdim=True)
    return F.avg_pool2d(_opening(F.avg_pool2d(grey, 2)), 2)


def warp(image: Tensor, flow: Tensor, finer: int) -> Tensor:
    """A carried map, moved to the current frame; its resolution is ``finer`` times the flow's."""
    if native.serves(image, least_side=2):
        return native.warp(image, flow, finer)
    if gradients.serves(flow, least_side=1) and min(image.shape[-2:]) >= 2:
        return gradients.Warp.apply(image, flow, finer)  # type: ignore[no-any-return, no-untyped-call]
    return _look_up(image, _enlarged(flow * finer, finer))


def _opening(grey: Tensor) -> Tensor:
    """The image without bright parts narrower than three pixels."""
    edged = F.pad(grey, (1, 1, 0, 0), mode="replicate")
    low = torch.minimum(torch.minimum(edged[..., :-2], edged[..., 2:]), grey)
    edged = F.pad(low, (1, 1, 0, 0), mode="replicate")
    return torch.maximum(torch.maximum(edged[..., :-2], edged[..., 2:]), low)


def _search(pair: Tensor, *, reach: int) -> Tensor:
    """The best of all shifts up to ``reach``; past and present are stacked in the batch."""
    before, now = pair.chunk(2)
    side = 2 * reach + 1
    shifts = F.unfold(F.pad(before, (reach,) * 4, mode="replicate"), side)
    shifts = shifts.view(*shifts.shape[:2], *now.shape[-2:])
    cost = F.avg_pool2d((shifts - now).abs(), 5, 1, 2, count_include_pad=False)
    # Without texture all shifts cost the same; a small cost for moving keeps the flow near zero
    # there.
    steps = torch.arange(-reach, reach + 1, device=now.device, dtype=now.dtype)
    cost = cost + (steps[:, None] ** 2 + steps**2).flatten()[:, None, None] * 2e-4
    best = cost.argmin(1, keepdim=True)
    flow = torch.cat([best % side, torch.div(best, side, rounding_mode="floor")], 1) - reach
    return F.avg_pool2d(flow.to(now.dtype), 3, 1, 1, count_include_pad=False)


def _enlarged(flow: Tensor, cell: int) -> Tensor:
    if cell == 1:
        return flow
    return F.interpolate(flow, scale_factor=float(cell), mode="bilinear", align_corners=False)


def _slopes(pair: Tensor, flow: Tensor, cell: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For the past moved by ``flow``: both slopes, the difference to the present, and the weights.
    Cells are of ``cell`` pixels.
    """
    before, now = pair.chunk(2)
    before = warp(before, flow, cell)
    edged = F.pad(before, (1, 1, 1, 1), mode="replicate")
    dx = (edged[..., 1:-1, 2:] - edged[..., 1:-1, :-2]) / 2
    dy = (edged[..., 2:, 1:-1] - edged[..., :-2, 1:-1]) / 2
    error = now - before
    # A veil that came or went is not motion.
    error = error - error.mean((2, 3), keepdim=True)
    # Large differences are rain or a new object, and get a small weight.
    return dx, dy, error, 1 / (error.abs() + 0.03)


def _gradient_step(pair: Tensor, flow: Tensor, cell: int) -> Tensor:
    """One step of Lucas and Kanade (1981) towards the displacement, in cells."""
    dx, dy, error, trust = _slopes(pair, flow, cell)
    moments = torch.cat([dx * dx, dx * dy, dy * dy, dx * error, dy * error], 1) * trust
    moments = F.avg_pool2d(moments, cell)
    window = 5 if cell <= 2 else 3
    moments = F.avg_pool2d(moments, window, 1, window // 2, count_include_pad=False)
    xx, xy, yy, xe, ye = moments.chunk(5, 1)
    return (_solved(xx, xy, yy, xe, ye) / cell).clamp(-1.5, 1.5)


def _solved(xx: Tensor, xy: Tensor, yy: Tensor, xe: Tensor, ye: Tensor) -> Tensor:
    """The shift, in pixels, that solves the equations of these sums."""
    damping = 1e-3 + 0.02 * (xx + yy)
    xx, yy = xx + damping, yy + damping
    return torch.cat([yy * xe - xy * ye, xx * ye - xy * xe], 1) / (xx * yy - xy * xy)


def _mean(values: Tensor) -> Tensor:
    return values.mean((2, 3), keepdim=True)


def _look_up(image: Tensor, flow: Tensor) -> Tensor:
    """``image`` sampled at each pixel plus its flow, in float32, edges repeated."""
    height, width = image.shape[-2:]
    ys = torch.arange(height, device=image.device, dtype=torch.float32)
    xs = torch.arange(width, device=image.device, dtype=torch.float32)
    x = (flow[:, 0].float() + xs + 0.5) * (2 / width) - 1
    y = (flow[:, 1].float() + ys[:, None] + 0.5) * (2 / height) - 1
    return F.grid_sample(
        image.float(), torch.stack([x, y], -1), padding_mode="border", align_corners=False
    )
