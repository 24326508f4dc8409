"""Every pass in C gives the result of its counterpart in torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.engines import _pixels as pixels
from rain_removal_ros.networks import _motion as motion
from rain_removal_ros.networks import _native as inference
from rain_removal_ros.networks import _ops as ops
from rain_removal_ros.runtime import native

# One camera and two; wide, high, and the smallest size.
SIZES = [(1, 96, 160), (2, 48, 32), (1, 16, 16), (1, 1088, 16)]

pytestmark = pytest.mark.skipif(
    native.library is None and shutil.which("cc") is None,
    reason="there is no C compiler, so nothing was built",
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def scene(batch: int, height: int, width: int) -> Tensor:
    rough = torch.rand(batch, 3, height // 16 + 1, width // 16 + 1)
    smooth = F.interpolate(rough, (height, width), mode="bicubic").clamp(0, 1)
    return 0.8 * smooth + 0.2 * torch.rand(batch, 3, height, width)


def channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last)


def compare(
    run: Callable[[], Tensor | tuple[Tensor, ...]], *, atol: float = 1e-4, rtol: float = 0
) -> None:
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", None)
        in_torch = run()
    with torch.inference_mode():
        assert inference.serves(torch.zeros(1, 3, 16, 16), least_side=16), (
            "the library was not built"
        )
        in_c = run()
    torch.testing.assert_close(in_c, in_torch, atol=atol, rtol=rtol)


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_motion_estimates_agree(batch: int, height: int, width: int) -> None:
    before = scene(batch, height, width)
    now = 0.95 * before.roll((3, 5), (2, 3))
    flow = motion.estimate_flow(before, now)
    small = motion.downsample_grey(before), motion.downsample_grey(now)
    compare(lambda: motion.downsample_grey(before))
    compare(lambda: motion.estimate_flow(before, now))
    compare(lambda: motion.propagate_flow(0.8 * flow, *small))


@pytest.mark.parametrize("finer", [1, 2, 4, 8])
def test_warps_agree(finer: int) -> None:
    carried = torch.rand(2, 5, 6 * finer, 9 * finer)
    flow = torch.randn(2, 2, 6, 9) * 4  # reaches beyond the edges
    compare(lambda: motion.warp(carried, flow, finer))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_past", [True, False])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_folded_inputs_agree(
    batch: int, height: int, width: int, guided: bool, with_past: bool, precision: torch.dtype
) -> None:
    frame = scene(batch, height, width)
    past = frame.roll(2, 3) if with_past else None
    reduced = precision != torch.float32
    folded = ops.fold_inputs(frame, past, guided=guided)
    # The last bit of a float decides to which of two bfloat16 values it is rounded.
    compare(
        lambda: ops.fold_inputs(frame, past, guided=guided, dtype=precision).to(precision),
        rtol=2**-7 if reduced else 0,
    )
    with torch.inference_mode():
        assert ops.fold_inputs(frame, past, guided=guided, dtype=precision).dtype == precision
    assert folded.shape == (batch, 48 + 16 * guided + 48 * with_past, height // 4, width // 4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("with_past", [True, False])
@pytest.mark.parametrize("with_maps", [True, False])
@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_composed_outputs_agree(
    batch: int,
    height: int,
    width: int,
    with_maps: bool,
    with_past: bool,
    precision: torch.dtype,
    anchored: bool,
) -> None:
    frame = scene(batch, height, width)
    past = frame.roll(2, 3) if with_past else None
    known = torch.rand(batch, 1, height // 8, width // 8).round() if with_past else None
    streaks = torch.randn(batch, 80 if with_past else 64, height // 4, width // 4) * 3
    maps = torch.rand(batch, 6, height // 8, width // 8) * 0.4 + 0.8 if with_maps else None
    said = streaks.to(precision)
    compare(
        lambda: ops.compose_output(frame, said, maps, past, known, anchored=anchored), atol=1e-5
    )


FEATURES = [(1, 24, 6, 10), (2, 40, 4, 2), (1, 3, 2, 34)]
PRECISIONS = [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)]


def maps(batch: int, channels: int, height: int, width: int, kind: torch.dtype) -> Tensor:
    values = torch.randn(batch, channels, height, width).to(kind)
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(("batch", "channels", "height", "width"), FEATURES)
def test_upsampled_sums_agree(
    batch: int, channels: int, height: int, width: int, precision: torch.dtype, tolerance: float
) -> None:
    fine = maps(batch, channels, height, width, precision)
    coarse = maps(batch, channels, height // 2, width // 2, precision)
    compare(lambda: ops.upsample_add(fine.clone(), coarse), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("inputs", [1, 48])
@pytest.mark.parametrize(("batch", "hidden", "height", "width"), FEATURES)
def test_reset_gates_and_state_updates_agree(
    batch: int,
    hidden: int,
    height: int,
    width: int,
    inputs: int,
    precision: torch.dtype,
    tolerance: float,
) -> None:
    joined = maps(batch, inputs + hidden, height, width, precision)
    gates = maps(batch, 2 * hidden, height, width, precision) * 4
    before = maps(batch, hidden, height, width, precision)
    candidate = maps(batch, hidden, height, width, precision)
    candidate[:, :, 0, 0] = 1e-4  # a difference of 1 and nearly 1 would be all rounding error
    compare(lambda: ops.apply_reset_gate(joined.clone(), gates), atol=tolerance, rtol=tolerance)
    compare(lambda: ops.gru_update(before, gates, candidate), atol=tolerance, rtol=tolerance)


def test_other_maps_are_left_to_torch() -> None:
    """Maps that are not channels last, and maps of two types."""
    fine, coarse = torch.rand(1, 3, 4, 6), torch.rand(1, 3, 2, 3)
    with torch.inference_mode():
        plain = ops.upsample_add(fine, coarse)
        mixed = ops.upsample_add(fine.bfloat16(), coarse)
    assert plain.shape == mixed.shape == fine.shape
    assert mixed.dtype == torch.float32


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(5, 7, 16, 16), (48, 80, 48, 80)])
@pytest.mark.parametrize("way", [slice(None), slice(None, None, -1), slice(None, None, 2)])
def test_unpacking_and_packing_of_pixels_agree(
    height: int, width: int, rows: int, columns: int, way: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)[way]
    values = rng.random((3, *picture.shape[:2]), np.float32)

    def both_ways() -> list[np.ndarray]:
        planes = np.full((3, rows, columns), np.nan, np.float32)
        pixels.fill(planes, picture)
        again = planes[:, : len(picture), :width]
        shrunk = np.zeros((len(picture), width + 3, 3), np.uint8)
        pixels.as_picture(values, shrunk[:, :width])
        return [planes, pixels.as_picture(again, None), shrunk]

    in_c = both_ways()
    assert native.library is not None, "the library was not built"
    monkeypatch.setattr(native, "library", None)
    without = both_ways()
    np.testing.assert_array_equal(in_c[1], picture)
    np.testing.assert_allclose(in_c[0], without[0], atol=1e-7)
    assert np.abs(in_c[2].astype(int) - without[2]).max() <= 1
    assert (in_c[2] != without[2]).mean() < 0.01
    assert (in_c[2][:, width:] == 0).all()


@pytest.mark.parametrize("shape", [(2, 16, 16), (3, 4, 16), (3, 16, 4)])
def test_planes_that_do_not_fit_the_picture_are_refused(shape: tuple[int, ...]) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(RuntimeError, match="expected"):
        native.unpack_rgb(picture, np.zeros(shape, np.float32))
    with pytest.raises(RuntimeError, match="expected"):
        native.pack_rgb(np.zeros(shape, np.float32), picture)


@pytest.mark.parametrize("size", [(8, 0), (0, 8), (0, 0)])
def test_an_empty_picture_is_refused(size: tuple[int, int]) -> None:
    """C repeats the last column; here it would read the one before the first."""
    height, width = size
    picture = np.zeros((8, 8, 3), np.uint8)[:height, :width]
    with pytest.raises(RuntimeError, match="something was expected"):
        native.unpack_rgb(picture, np.zeros((3, 8, 8), np.float32))
    planes = np.zeros((3, 8, 8), np.float32)[:, :height, :width]
    with pytest.raises(RuntimeError, match="something was expected"):
        native.pack_rgb(planes, picture)


@pytest.mark.parametrize(("height", "width"), [(0, 16), (16, 0), (1, 8), (8, 1)])
def test_pictures_too_small_for_interpolation_are_refused(height: int, width: int) -> None:
    """Interpolation reads four pixels; two of them would lie before the first."""
    picture, flow = torch.zeros(1, 3, height, width), torch.zeros(1, 2, height, width)
    with pytest.raises(RuntimeError, match="expected"):
        inference.warp(picture, flow, 1)
    with pytest.raises(RuntimeError, match="expected"):
        inference.downsample_grey(picture)
    with pytest.raises(RuntimeError, match="expected"):
        inference.estimate_flow(picture, picture)


def test_nan_stays_in_the_output() -> None:
    frame = torch.full((1, 3, 32, 32), 0.5)
    frame[0, 1, 8, 8] = torch.nan
    streaks = torch.zeros(1, 64, 8, 8)
    with torch.inference_mode():
        derained, _, _ = ops.compose_output(frame, streaks, None, None, None)
    assert derained.isnan().sum() == 1


@pytest.mark.parametrize(
    "run",
    [
        lambda picture, flow: motion.downsample_grey(picture[..., :-1]),
        lambda picture, flow: motion.estimate_flow(picture, picture[..., :-16]),
        lambda picture, flow: motion.estimate_flow(picture[..., :-8], picture[..., :-8]),
        lambda picture, flow: motion.propagate_flow(flow, picture[:, :1], picture[:, :1]),
        lambda picture, flow: motion.warp(picture, flow[..., :-1], 8),
        lambda picture, flow: motion.warp(picture[..., :-1], flow, 8),
        lambda picture, flow: ops.fold_inputs(picture, picture[..., :-16], guided=True),
        lambda picture, flow: ops.compose_output(picture, picture, None, None, None),
        lambda picture, flow: ops.upsample_add(
            channels_last(picture), channels_last(picture[..., :-2, :-2])
        ),
        lambda picture, flow: ops.upsample_add(channels_last(picture), channels_last(flow)),
        lambda picture, flow: ops.apply_reset_gate(
            channels_last(flow), channels_last(flow.repeat(1, 4, 1, 1))
        ),
        lambda picture, flow: ops.apply_reset_gate(channels_last(flow), channels_last(flow[:, :1])),
        lambda picture, flow: ops.apply_reset_gate(channels_last(picture), channels_last(flow)),
        lambda picture, flow: ops.gru_update(
            channels_last(flow), channels_last(flow), channels_last(flow)
        ),
        lambda picture, flow: ops.compose_output(
            picture, torch.zeros(1, 80, 16, 16), None, picture, flow[:, :1, :4]
        ),
    ],
)
def test_tensors_of_mismatched_sizes_are_refused(run: Callable[[Tensor, Tensor], object]) -> None:
    """C would read beyond the end of a state of another size, and could crash the process."""
    with torch.inference_mode(), pytest.raises(RuntimeError, match="expected"):
        run(torch.zeros(1, 3, 64, 64), torch.zeros(1, 2, 8, 8))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    """Not by a bit: a recording can be derained again on another machine."""
    before = scene(1, 96, 416)
    now = before.roll(3, 3)
    course, streaks = torch.randn(1, 2, 12, 52), torch.randn(1, 80, 24, 104)
    known = torch.ones(1, 1, 12, 52)

    def all_passes() -> list[Tensor]:
        small = motion.downsample_grey(before), motion.downsample_grey(now)
        return [
            motion.estimate_flow(before, now),
            motion.propagate_flow(course, *small),
            motion.warp(before, course, 8),
            ops.fold_inputs(now, before, guided=True),
            *ops.compose_output(now, streaks, None, before, known),
        ]

    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            with torch.inference_mode():
                results.append(all_passes())
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert one.equal(other)
