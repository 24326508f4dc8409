"""Passes in C with gradients, for training on a CPU.

As separate torch operations they took three quarters of a training step of rainstream; now they
take a fifth. They compute the same as ``_ops`` and ``_motion``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rain_removal_ros.networks import _native as forward
from rain_removal_ros.runtime import native
from rain_removal_ros.runtime.native import agree, call

FOLD, COARSE = 4, 8  # as in passes.h


def serves(*fixed: Tensor, least_side: int) -> bool:
    """Whether these passes can compute gradients for such pictures, on a CPU.

    ``fixed`` are inputs that get no gradient here: frames, which are data, and flow.
    """
    return (
        not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and native.library is not None
        and all(type(each) is Tensor and each.device.type == "cpu" for each in fixed)
        and all(each.dtype == torch.float32 and not each.requires_grad for each in fixed)
        and min(fixed[0].shape[-2:]) >= least_side
    )


class FoldInputs(torch.autograd.Function):
    """``_ops.fold_inputs``; only the past gets a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        frame: Tensor,
        past: Tensor,
        extras: Tensor | None,
        guided: bool,  # noqa: FBT001
        epsilon: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.first = 3 + guided
        return forward.fold_inputs(frame, past, extras, guided=guided, epsilon=epsilon, dtype=dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_folded: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[1]:
            return None, None, None, None, None, None
        folded, narrow = _folded(of_folded)
        batch, channels, height, width = folded.shape
        most = max(channels // FOLD**2, ctx.first + 3) * FOLD**2
        agree("fold_inputs_gradient", folded.shape, (batch, most, height, width))
        of_past = torch.empty(batch, 3, height * FOLD, width * FOLD)
        planes = channels // FOLD**2
        size = *of_past.shape[-2:], narrow
        call("fold_inputs_gradient", folded, batch, planes, ctx.first, 3, *size, of_past)
        return None, of_past, None, None, None, None


class ComposeOutput(torch.autograd.Function):
    """``_ops.compose_output``, for frames without gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        frame: Tensor,
        streaks: Tensor,
        maps: Tensor | None,
        past: Tensor | None,
        known: Tensor | None,
        anchored: bool,  # noqa: FBT001
    ) -> tuple[Tensor, ...]:
        derained, attention, base = forward.compose_output(
            frame, streaks, maps, past, known, anchored=anchored
        )
        ctx.save_for_backward(frame, streaks, maps, past, known, base if anchored else None)
        ctx.set_materialize_grads(False)
        return (derained, attention, base) if anchored else (derained, attention)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        of_derained: Tensor | None,
        of_attention: Tensor | None,
        of_base: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        frame, streaks, maps, past, known, base = ctx.saved_tensors
        for whole, shape in (
            (of_derained, frame.shape),
            (of_base, frame.shape),
            (of_attention, (len(frame), 1, *frame.shape[-2:])),
        ):
            if whole is not None:
                agree("compose_output_gradient", whole.shape, shape)
        folded, narrow = _folded(streaks)
        of_streaks = torch.empty_like(folded)
        of_maps = None if maps is None else torch.empty(maps.shape)
        of_past = None if past is None else torch.empty(past.shape)
        of_derained = torch.zeros(frame.shape) if of_derained is None else of_derained
        given = [_plain(each) for each in (past, maps, known)]
        call(
            "compose_output_gradient",
            frame.contiguous(),
            given[0],
            folded,
            given[1],
            given[2],
            base,
            _plain(of_derained),
            _plain(of_base),
            _plain(of_attention),
            frame.shape[0],
            *frame.shape[-2:],
            narrow,
            of_streaks,
            of_maps,
            of_past,
        )
        return None, of_streaks, of_maps, of_past, None, None


class Warp(torch.autograd.Function):
    """``_motion.warp``, for a flow without gradient."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, flow: Tensor, finer: int) -> Tensor:
        ctx.save_for_backward(flow)
        ctx.finer = finer
        return forward.warp(image, flow, finer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_moved: Tensor) -> tuple[Tensor | None, ...]:
        (flow,) = ctx.saved_tensors
        cells = [side // ctx.finer for side in of_moved.shape[-2:]]
        agree("warp_gradient", flow.shape, (len(of_moved), 2, *cells))
        of_moved = of_moved.float().contiguous()
        of_image = torch.empty(of_moved.shape)
        cells = flow.shape[-2:]
        plain = flow.contiguous()
        call("warp_gradient", of_moved, *of_moved.shape, plain, *cells, ctx.finer, of_image)
        return of_image, None, None


def samples(image: Tensor) -> bool:
    """Whether ``DeformColumns`` is available, with or without gradients."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and type(image) is Tensor
        and image.device.type == "cpu"
        and hasattr(native.library, "deform_columns")
    )


class DeformColumns(torch.autograd.Function):
    """The values that the 3 x 3 taps of a deformable convolution sample: B x rows x columns x (9
    C).

    ``offsets`` and ``modulation`` are for some of the rows, from ``first`` on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        offsets: Tensor,
        modulation: Tensor | None,
        first: int,
        dtype: torch.dtype,
    ) -> Tensor:
        batch, channels, height, width = image.shape
        rows, columns = offsets.shape[-2:]
        native.agree("deform_columns", offsets.shape, (batch, 18, rows, columns))
        if modulation is not None:
            native.agree("deform_columns", modulation.shape, (batch, 9, rows, columns))
        given = image.float().contiguous(memory_format=torch.channels_last)
        fields = _plain(offsets), _plain(modulation)
        narrow = dtype == torch.bfloat16
        kind = torch.bfloat16 if narrow else torch.float32
        out = torch.empty(batch, rows, columns, 9 * channels, dtype=kind)
        ctx.size = batch, height, width, channels, rows, columns, first
        ctx.kinds = image.dtype, offsets.dtype, None if modulation is None else modulation.dtype
        call("deform_columns", given, *fields, *ctx.size, out, narrow)
        ctx.save_for_backward(given, *fields)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_columns: Tensor) -> tuple[Tensor | None, ...]:
        given, *fields = ctx.saved_tensors
        narrow = of_columns.dtype == torch.bfloat16
        of_columns = (of_columns if narrow else of_columns.float()).contiguous()
        of_inputs: list[Tensor | None] = [torch.zeros_like(given)]
        of_inputs += [None if each is None else torch.empty_like(each) for each in fields]
        call("deform_gradient", given, *fields, *ctx.size, of_columns, narrow, *of_inputs)
        pairs = zip(of_inputs, ctx.kinds, strict=True)
        return *(None if each is None else each.to(kind) for each, kind in pairs), None, None


def _folded(values: Tensor) -> tuple[Tensor, bool]:
    """Folded values in C's layout, and whether they are bfloat16."""
    narrow = values.dtype == torch.bfloat16
    values = values if narrow else values.float()
    return values.contiguous(memory_format=torch.channels_last), narrow


def _plain(planes: Tensor | None) -> Tensor | None:
    return None if planes is None else planes.float().contiguous()
