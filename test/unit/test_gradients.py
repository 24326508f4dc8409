"""Operations in C give training the same values and gradients as torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros import losses, networks
from rain_removal_ros.networks import _base
from rain_removal_ros.networks import _motion as motion
from rain_removal_ros.networks import _ops as ops
from rain_removal_ros.runtime import native

SIZES = [(1, 96, 160), (2, 48, 32), (1, 16, 16)]

pytestmark = pytest.mark.skipif(
    native.library is None and shutil.which("cc") is None,
    reason="there is no C compiler, so nothing was built",
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


Results = tuple[Tensor, ...]


def compare(
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., Tensor | Results],
    *inputs: Tensor,
    off: float = 1e-5,
) -> None:
    """Compare values and gradients for ``inputs`` in C and in torch, for a random loss."""

    def values_and_gradients() -> tuple[Results, Results]:
        leaves = [each.detach().clone().requires_grad_() for each in inputs]
        produced = run(*leaves)
        produced = (produced,) if isinstance(produced, Tensor) else produced
        generator = torch.Generator().manual_seed(1)
        total = torch.zeros(())
        for each in produced:
            weights = torch.randn(each.shape, generator=generator)
            total = total + (each.float() * weights).sum()
        return tuple(each.detach().float() for each in produced), torch.autograd.grad(total, leaves)

    assert native.library is not None, "the library was not built"
    in_c = values_and_gradients()
    monkeypatch.setattr(native, "library", None)
    by_torch = values_and_gradients()
    torch.testing.assert_close(in_c[0], by_torch[0], atol=off, rtol=off)
    for ours, theirs in zip(in_c[1], by_torch[1], strict=True):
        assert ours.dtype == theirs.dtype
        scale = float(theirs.float().abs().max())
        torch.testing.assert_close(ours, theirs, atol=off * max(scale, 1.0), rtol=off)


def scene(batch: int, height: int, width: int) -> Tensor:
    rough = torch.rand(batch, 3, height // 16 + 1, width // 16 + 1)
    smooth = F.interpolate(rough, (height, width), mode="bicubic").clamp(0, 1)
    # Noise makes all neighbours differ: torch shares the gradient among equal ones, C does not.
    return 0.8 * smooth + 0.2 * torch.rand(batch, 3, height, width)


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_fold_inputs_in_c_equals_torch(
    monkeypatch: pytest.MonkeyPatch, batch: int, height: int, width: int, guided: bool, extra: int
) -> None:
    frame = scene(batch, height, width)
    extras = torch.rand(batch, extra, height, width) if extra else None

    def run(past: Tensor) -> Tensor:
        return ops.fold_inputs(frame, past, extras, guided=guided)

    compare(monkeypatch, run, frame.roll(2, 3))


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("with_past", [True, False])
@pytest.mark.parametrize("with_maps", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_compose_output_in_c_equals_torch(
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    height: int,
    width: int,
    kind: torch.dtype,
    with_maps: bool,
    with_past: bool,
    anchored: bool,
) -> None:
    frame = scene(batch, height, width)
    streaks = torch.randn(batch, 80 if with_past else 64, height // 4, width // 4)
    maps = torch.rand(batch, 6, height // 8, width // 8) * 0.4 + 0.8
    known = torch.rand(batch, 1, height // 8, width // 8).round()
    past = scene(batch, height, width)

    def run(streaks: Tensor, *others: Tensor) -> Results:
        left = list(others)
        maps_or_none = left.pop(0) if with_maps else None
        past_or_none = left.pop(0) if with_past else None
        return ops.compose_output(
            frame,
            streaks,
            maps_or_none,
            past_or_none,
            known if with_past else None,
            anchored=anchored,
        )

    given = [streaks.to(kind)] + [maps] * with_maps + [past] * with_past
    off = 2e-5 if kind == torch.float32 else 2**-7
    compare(monkeypatch, run, *given, off=off)


@pytest.mark.parametrize("finer", [1, 2, 8])
def test_warp_in_c_equals_torch(monkeypatch: pytest.MonkeyPatch, finer: int) -> None:
    flow = torch.randn(2, 2, 6, 9) * 4  # beyond the edges too
    carried = torch.rand(2, 5, 6 * finer, 9 * finer)
    compare(monkeypatch, lambda image: motion.warp(image, flow, finer), carried, off=1e-4)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (24, 17), (64, 96)])
def test_ssim_in_c_equals_torch(monkeypatch: pytest.MonkeyPatch, height: int, width: int) -> None:
    reference = scene(2, height, width)
    derained = (reference + 0.1 * torch.randn(2, 3, height, width)).clamp(0, 1)
    compare(monkeypatch, lambda image: losses.ssim(image, reference), derained, off=2e-4)


@pytest.mark.parametrize("anchored", [True, False])
def test_a_training_step_on_a_clip_in_c_equals_torch(
    monkeypatch: pytest.MonkeyPatch, anchored: bool
) -> None:
    """Compares all losses and the gradients of all weights, for a network that carries state."""
    create = networks.module("rainstream")
    network = create.Network(
        create.Config(channels=8, blocks=1, anchored=anchored, evidence=anchored)
    )
    for parameter in network.parameters():  # so that gates and masks have an effect
        torch.nn.init.normal_(parameter, std=0.05)
    objective = create.Objective(network)
    reference = torch.stack([scene(1, 64, 96).roll(2 * t, 3) for t in range(3)], 1)
    rainy = (reference + 0.5 * (torch.rand(1, 3, 1, 64, 96) > 0.95)).clamp(0, 1)
    parameters = list(network.parameters())

    def step() -> tuple[dict[str, Tensor], Results]:
        found = objective(_base.Batch(rainy, reference))
        return found, torch.autograd.grad(torch.stack(list(found.values())).sum(), parameters)

    in_c, slopes_in_c = step()
    monkeypatch.setattr(native, "library", None)
    by_torch, slopes_by_torch = step()
    for name, value in by_torch.items():
        torch.testing.assert_close(in_c[name], value, atol=1e-5, rtol=1e-3, msg=name)
    ours = torch.cat([each.flatten() for each in slopes_in_c])
    theirs = torch.cat([each.flatten() for each in slopes_by_torch])
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02
