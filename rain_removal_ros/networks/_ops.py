"""What rainstream computes around its convolutions, in one pass over memory each if the C code is
there.

Folded: four by four pixels of a plane form a cell with sixteen channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.networks import _gradients as gradients
from rain_removal_ros.networks import _native as native

FOLD = 4
_EPSILON = 0.02  # below this, contrast counts as noise


def fold_inputs(
    frame: Tensor,
    past: Tensor | None,
    extras: Tensor | None = None,
    *,
    guided: bool,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The frame, its rectified local contrast, its difference to the past and more planes, folded.

    The result is in ``dtype`` if that costs nothing extra; otherwise autocast converts it.
    """
    if native.serves(frame, least_side=16):
        return native.fold_inputs(frame, past, extras, guided=guided, epsilon=_EPSILON, dtype=dtype)
    if past is not None and gradients.serves(frame, least_side=16):
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
        return gradients.FoldInputs.apply(frame, past, extras, guided, _EPSILON, dtype)  # type: ignore[no-any-return, no-untyped-call]
    planes = [frame]
    if guided:
        planes.append(_local_contrast(frame.mean(1, keepdim=True)))
    if past is not None:
        planes.append(past - frame)
    if extras is not None:
        planes.append(extras)
    return _fold(torch.cat(planes, 1))


def compose_output(
    frame: Tensor,
    streaks: Tensor,
    maps: Tensor | None,
    past: Tensor | None,
    known: Tensor | None,
    *,
    anchored: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The derained picture, the attention (how much rain was removed where), and what is carried
    on.

    ``streaks`` are folded: three planes of rain, one for the mask and, with a past, one for how far
    the past is trusted. ``maps`` are gains and offsets at an eighth of the resolution. ``known`` is
    one wherever there is a past. If ``anchored``, the picture before gain and offset is carried,
    and they are applied last. Otherwise the derained picture is carried, and they are applied
    before the past.
    """
    if native.serves(frame, least_side=16):
        return native.compose_output(frame, streaks, maps, past, known, anchored=anchored)
    if gradients.serves(frame, least_side=16):
        made = gradients.ComposeOutput.apply(frame, streaks, maps, past, known, anchored)  # type: ignore[no-untyped-call]
        return made if anchored else (*made, made[0])
    streaks = F.pixel_shuffle(streaks, FOLD)
    streaks = streaks.to(torch.float32, memory_format=torch.contiguous_format)
    rain, attention = streaks[:, :3], streaks[:, 3:4].sigmoid()
    derained = torch.addcmul(frame, attention, rain, value=-1)
    if not anchored:
        derained = _apply_affine(derained, maps)
    if past is not None and known is not None:
        trust = streaks[:, 4:].sigmoid() * F.interpolate(known, scale_factor=8.0)
        derained = torch.lerp(derained, _clamp_to_surroundings(past, derained), trust)
    base = derained.clamp(0, 1)
    if not anchored or maps is None:
        return base, attention, base
    return _apply_affine(base, maps).clamp(0, 1), attention, base


def upsample_add(fine: Tensor, coarse: Tensor) -> Tensor:
    """``fine`` plus ``coarse`` at twice its size. ``fine`` may be overwritten."""
    if native.serves_features(fine, coarse):
        return native.upsample_add(fine, coarse)
    return fine + F.interpolate(coarse, scale_factor=2.0)


def apply_reset_gate(joined: Tensor, gates: Tensor) -> Tensor:
    """Multiply the hidden state in ``joined`` (inputs and hidden state) by the reset gate.

    ``gates`` are update and reset gate before their sigmoid. ``joined`` may be overwritten.
    """
    if native.serves_features(joined, gates):
        return native.apply_reset_gate(joined, gates)
    reset = gates.chunk(2, 1)[1].sigmoid()
    inputs = joined.shape[1] - reset.shape[1]
    return torch.cat([joined[:, :inputs], reset * joined[:, inputs:]], 1)


def gru_update(hidden: Tensor, gates: Tensor, candidate: Tensor) -> Tensor:
    """The new hidden state: between the old one and the candidate, by the update gate.

    ``hidden`` may be overwritten.
    """
    if native.serves_features(hidden, gates, candidate):
        return native.gru_update(hidden, gates, candidate)
    return torch.lerp(hidden, candidate.tanh(), gates.chunk(2, 1)[0].sigmoid())


def _apply_affine(picture: Tensor, maps: Tensor | None) -> Tensor:
    if maps is None:
        return picture
    # Smooth by construction: eightfold interpolation can hold a veil, not a streak.
    maps = F.interpolate(maps, scale_factor=8.0, mode="bilinear", align_corners=False)
    return torch.addcmul(maps[:, 3:], picture, maps[:, :3])


def _clamp_to_surroundings(past: Tensor, derained: Tensor) -> Tensor:
    """The past, clamped to the range of the current neighbourhood, so that moved objects leave no
    ghosts.

    Most pixels under a streak have a neighbour that shows the scene, so they are still filled in.
    """
    low, high = _extreme_of_3x3(derained, torch.minimum), _extreme_of_3x3(derained, torch.maximum)
    return torch.minimum(torch.maximum(past, low), high)


def _extreme_of_3x3(picture: Tensor, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The minimum or maximum of 3 x 3 pixels, in a tenth of the time of a pooling layer."""
    edged = F.pad(picture, (1, 1, 0, 0), mode="replicate")
    wide = pick(pick(edged[..., :-2], edged[..., 2:]), picture)
    edged = F.pad(wide, (0, 0, 1, 1), mode="replicate")
    return pick(pick(edged[..., :-2, :], edged[..., 2:, :]), wide)


def _fold(planes: Tensor) -> Tensor:
    """``F.pixel_unshuffle``, directly into the channels-last order that convolutions use."""
    batch, channels, height, width = planes.shape
    blocks = planes.reshape(batch, channels, height // FOLD, FOLD, width // FOLD, FOLD)
    blocks = blocks.permute(0, 2, 4, 1, 3, 5)
    return blocks.flatten(3).permute(0, 3, 1, 2)


def _local_contrast(grey: Tensor) -> Tensor:
    """Rectified local contrast of the frame: bright where a streak may be.

    Mean and deviation are taken over 20 x 20 pixels from 4 x 4 blocks, which is a fifteenth of the
    work of a sliding window and as good a guide.
    """
    blocks = torch.cat([F.avg_pool2d(grey, 4), F.avg_pool2d(grey * grey, 4)], 1)
    mean, square = F.avg_pool2d(blocks, 5, 1, 2, count_include_pad=False).chunk(2, 1)
    deviation = (square - mean * mean).clamp_min(0).sqrt()
    scale = 0.25 / (deviation + _EPSILON)
    # Both at a quarter, so that the division is too.
    local = torch.cat([scale, -mean * scale], 1)
    local = F.interpolate(local, scale_factor=4.0, mode="bilinear", align_corners=False)
    return torch.addcmul(local[:, 1:], grey, local[:, :1]).clamp(0, 1)
