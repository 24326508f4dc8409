"""Passes over whole planes and features in C; ``_ops`` and ``_motion`` do the same in torch.

They are for inference on a CPU; their callers check ``serves`` or ``serves_features`` first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rain_removal_ros.runtime import native
from rain_removal_ros.runtime.native import agree, call

_FOLD, _COARSE = 4, 8  # as in passes.h


def infers(x: Tensor) -> bool:
    """Whether this is inference on a CPU, neither compiled nor traced."""
    # Compilation is checked first, and nothing after it: the compiler must not see the other
    # checks.
    return (
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and type(x) is Tensor  # not a tensor without values, as tracers use
        and x.device.type == "cpu"
    )


def serves(picture: Tensor, *, least_side: int) -> bool:
    """Whether the passes over this picture can be done here."""
    return (
        infers(picture)
        and native.library is not None
        and picture.dtype == torch.float32
        and min(picture.shape[-2:]) >= least_side
    )


def downsample_grey(pictures: Tensor) -> Tensor:
    batch, channels, height, width = pictures.shape
    agree("downsample_grey", pictures.shape, (batch, channels, height // 4 * 4, width // 4 * 4))
    out = torch.empty(batch, 1, height // 4, width // 4)
    call("downsample_grey", _plain(pictures), batch, channels, height, width, out)
    return out


def estimate_flow(past: Tensor, now: Tensor) -> Tensor:
    batch, channels, height, width = now.shape
    agree("estimate_flow", now.shape, (batch, channels, height // 16 * 16, width // 16 * 16))
    agree("estimate_flow", past.shape, now.shape)
    flow = torch.empty(batch, 2, height // 8, width // 8)
    call("estimate_flow", _plain(past), _plain(now), batch, channels, height, width, flow)
    return flow


def propagate_flow(motion: Tensor, past: Tensor, now: Tensor) -> Tensor:
    batch, _, cells_y, cells_x = motion.shape
    agree("propagate_flow", motion.shape, (batch, 2, cells_y, cells_x))
    for grey in (past, now):
        agree("propagate_flow", grey.shape, (batch, 1, 2 * cells_y, 2 * cells_x))
    flow = torch.empty(motion.shape)
    pictures = _plain(past), _plain(now)
    call("propagate_flow", _plain(motion), *pictures, batch, *now.shape[-2:], flow)
    return flow


def warp(image: Tensor, flow: Tensor, finer: int) -> Tensor:
    batch, _, height, width = image.shape
    agree("warp", flow.shape, (batch, 2, height // finer, width // finer))
    agree("warp", image.shape[-2:], (height // finer * finer, width // finer * finer))
    if min(height, width) < 2:
        raise RuntimeError(f"warp: {tuple(image.shape)} where two rows and columns were expected")
    out = torch.empty(image.shape)
    call("warp", _plain(image), *image.shape, _plain(flow), *flow.shape[-2:], finer, out)
    return out


def fold_inputs(
    frame: Tensor,
    past: Tensor | None,
    extras: Tensor | None,
    *,
    guided: bool,
    epsilon: float,
    dtype: torch.dtype,
) -> Tensor:
    batch, _, height, width = frame.shape
    extra = 0 if extras is None else extras.shape[1]
    planes = 3 + guided + (0 if past is None else 3) + extra
    agree("fold_inputs", frame.shape, (batch, 3, height // _FOLD * _FOLD, width // _FOLD * _FOLD))
    if past is not None:
        agree("fold_inputs", past.shape, frame.shape)
    if extras is not None:
        agree("fold_inputs", extras.shape, (batch, extra, height, width))
    folded = torch.empty(
        (batch, planes * _FOLD**2, height // _FOLD, width // _FOLD),
        dtype=torch.bfloat16 if dtype == torch.bfloat16 else torch.float32,
        memory_format=torch.channels_last,
    )
    narrow = _is_narrow(folded)
    pictures = _plain(frame), _plain(past), _plain(extras)
    call("fold_inputs", *pictures, extra, batch, height, width, guided, epsilon, folded, narrow)
    return folded


def compose_output(
    frame: Tensor,
    streaks: Tensor,
    maps: Tensor | None,
    past: Tensor | None,
    known: Tensor | None,
    *,
    anchored: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, height, width = frame.shape
    coarse = height // _COARSE, width // _COARSE
    folded = (3 + 1 + (past is not None)) * _FOLD**2, 2 * coarse[0], 2 * coarse[1]
    agree("compose_output", frame.shape, (batch, 3, coarse[0] * _COARSE, coarse[1] * _COARSE))
    agree("compose_output", streaks.shape, (batch, *folded))
    if maps is not None:
        agree("compose_output", maps.shape, (batch, 6, *coarse))
    if past is not None:
        agree("compose_output", past.shape, frame.shape)
        agree("compose_output", () if known is None else known.shape, (batch, 1, *coarse))
    narrow = _is_narrow(streaks)
    streaks = streaks if narrow else streaks.float()
    streaks = streaks.contiguous(memory_format=torch.channels_last)
    derained, attention = torch.empty(frame.shape), torch.empty(batch, 1, height, width)
    base = torch.empty(frame.shape) if anchored else None
    said = streaks, _plain(maps), _plain(known)
    size = batch, height, width
    call(
        "compose_output",
        _plain(frame),
        _plain(past),
        *said,
        *size,
        narrow,
        derained,
        attention,
        base,
    )
    return derained, attention, derained if base is None else base


def serves_features(*maps: Tensor) -> bool:
    """Whether the passes over these feature maps, channels last, can be done here."""
    kinds = {each.dtype for each in maps}
    return (
        infers(maps[0])
        and native.library is not None
        and (kinds == {torch.bfloat16} or kinds == {torch.float32})
        and all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)
    )


def upsample_add(fine: Tensor, coarse: Tensor) -> Tensor:
    batch, channels, height, width = fine.shape
    agree("upsample_add", fine.shape, (batch, channels, height // 2 * 2, width // 2 * 2))
    agree("upsample_add", coarse.shape, (batch, channels, height // 2, width // 2))
    call("upsample_add", fine, coarse, batch * height, width, channels, _is_narrow(fine))
    return fine


def apply_reset_gate(joined: Tensor, gates: Tensor) -> Tensor:
    batch, hidden, height, width = gates.shape[0], gates.shape[1] // 2, *gates.shape[2:]
    inputs = joined.shape[1] - hidden
    agree("apply_reset_gate", gates.shape, (batch, 2 * hidden, height, width))
    agree("apply_reset_gate", joined.shape, (batch, max(inputs, 0) + hidden, height, width))
    call(
        "apply_reset_gate", joined, gates, batch * height, width, inputs, hidden, _is_narrow(gates)
    )
    return joined


def gru_update(hidden: Tensor, gates: Tensor, candidate: Tensor) -> Tensor:
    batch, channels, height, width = hidden.shape
    agree("gru_update", gates.shape, (batch, 2 * channels, height, width))
    agree("gru_update", candidate.shape, hidden.shape)
    out = torch.empty_like(hidden)
    size = batch * height, width, channels
    call("gru_update", hidden, gates, candidate, *size, _is_narrow(hidden), out)
    return out


def _is_narrow(values: Tensor) -> bool:
    return values.dtype == torch.bfloat16


def _plain(planes: Tensor | None) -> Tensor | None:
    """In C's layout: floats, plane after plane, row after row."""
    return None if planes is None else planes.float().contiguous()
