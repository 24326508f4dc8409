"""What is special about rainstream: how it aligns its past with a moving scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_rain import render

from rain_removal_ros import engines
from rain_removal_ros.data import rain
from rain_removal_ros.networks import _motion as motion
from rain_removal_ros.networks import _ops, rainstream
from rain_removal_ros.settings import EngineSettings, NetworkSettings


def scene(frames: int, *, shift: float, bump: int = 0) -> Tensor:
    """A view that slides by ``shift`` pixels a frame, and jumps by ``bump`` in the last."""
    rng = torch.Generator().manual_seed(1)
    wide = sum(
        F.interpolate(torch.rand(1, 3, size, size, generator=rng), (320, 320), mode="bicubic")
        for size in (5, 20, 80)
    )
    assert isinstance(wide, Tensor)
    wide = ((wide - wide.min()) / (wide.max() - wide.min())).clamp(0, 1)
    steps = torch.linspace(-1, 1, 320)
    rows, columns = torch.meshgrid(steps[64:256], steps[64:256], indexing="ij")
    views = []
    for frame in range(frames):
        by = shift * frame + (bump if frame == frames - 1 else 0)
        grid = torch.stack([columns + by * 2 / 319, rows], -1)[None]
        views.append(F.grid_sample(wide, grid, align_corners=True))
    return torch.cat(views)


def in_rain(dry: Tensor) -> Tensor:
    drawn = rain.sample(np.random.default_rng(3), severity=0.5, style="shower")
    return render(dry, drawn).rainy


def alignment_error(past: Tensor, now: Tensor, flow: Tensor) -> float:
    moved = motion.warp(past, flow, 8)
    return float((moved - now)[..., 16:-16, 16:-16].abs().mean())


@pytest.mark.parametrize("shift", [0.0, 1.5, 6.0])
def test_motion_between_dry_frames_is_estimated(shift: float) -> None:
    dry = scene(2, shift=shift)
    flow = motion.estimate_flow(dry[:1], dry[1:])
    assert flow[0, 0].mean().item() * 8 == pytest.approx(shift, abs=0.3)
    assert flow[0, 1].abs().mean().item() * 8 < 0.3


@pytest.mark.parametrize("bump", [0, 4])
def test_the_past_is_aligned_in_rain_too(bump: int) -> None:
    """Also when the camera shakes: in rain, the motion of the whole view is estimated."""
    dry = scene(3, shift=3.0, bump=bump)
    rainy = in_rain(dry)
    course = motion.estimate_flow(dry[:1], dry[1:2])
    smalls = [motion.downsample_grey(frame[None]) for frame in rainy]
    flow = motion.propagate_flow(course, smalls[1], smalls[2])
    aligned = alignment_error(dry[1:2], dry[2:], flow)
    assert aligned < 0.4 * alignment_error(dry[1:2], dry[2:], 0 * flow)
    # Motion estimated place by place between rainy frames is that of the rain.
    estimated_in_rain = motion.estimate_flow(rainy[1:2], rainy[2:])
    assert aligned < 0.7 * alignment_error(dry[1:2], dry[2:], estimated_in_rain)


def test_an_appearing_veil_is_not_taken_for_motion() -> None:
    dry = scene(1, shift=0.0)
    veiled = 0.4 * dry + 0.5
    still = torch.zeros(1, 2, 24, 24)
    flow = motion.propagate_flow(still, motion.downsample_grey(dry), motion.downsample_grey(veiled))
    assert flow.abs().max().item() * 8 < 0.5


def test_cameras_of_a_batch_move_independently() -> None:
    dry = torch.cat([scene(2, shift=0.0), scene(2, shift=5.0)])
    small = motion.downsample_grey(dry)
    both = motion.propagate_flow(torch.zeros(2, 2, 24, 24), small[::2], small[1::2])
    for index in range(2):
        alone = motion.propagate_flow(
            torch.zeros(1, 2, 24, 24), small[2 * index][None], small[2 * index + 1][None]
        )
        torch.testing.assert_close(both[index : index + 1], alone, atol=1e-4, rtol=1e-4)


def test_an_untrained_network_hardly_changes_the_frame() -> None:
    frame = scene(1, shift=0.0)
    network = rainstream.Network(rainstream.Config()).eval()
    with torch.inference_mode():
        assert (network(frame).derained - frame).abs().mean().item() < 0.01


def test_motion_is_followed_across_dropped_frames() -> None:
    """After a dropped frame, the scene has moved twice as far."""
    dry = scene(4, shift=2.0)
    course = motion.estimate_flow(dry[:1], dry[1:2])
    smalls = [motion.downsample_grey(dry[index][None]) for index in (1, 3)]
    flow = motion.propagate_flow(course, *smalls)
    assert flow[0, 0].mean().item() * 8 == pytest.approx(4.0, abs=0.4)


def test_moved_objects_leave_no_ghosts() -> None:
    wall = torch.full((1, 3, 32, 32), 0.8)
    past = wall.clone()
    past[..., 10:14] = 0.1
    assert _ops._clamp_to_surroundings(past, wall).equal(wall)


def test_bfloat16_derains_a_clip_as_float32_does() -> None:
    """The default weights as they run on a robot: in C, with fused layers and carried state."""
    rainy = in_rain(scene(6, shift=2.0))
    frames = (rainy * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    derained_clips = []
    for precision in ("float32", "bfloat16"):
        settings = EngineSettings(device="cpu", precision=precision)
        engine = engines.load(NetworkSettings(name="rainstream"), settings)
        state, images = None, []
        for frame in frames:
            (result,) = engine.step([np.ascontiguousarray(frame)], [state])
            state = result.state
            images.append(result.image.astype(int))
        derained_clips.append(np.stack(images))
    difference = np.abs(derained_clips[1] - derained_clips[0])
    assert np.abs(derained_clips[0] - frames).mean() > 1, "nothing was done"
    # Where two displacements fit equally well, the last bit decides which patch is taken.
    assert (difference > 8).mean(axis=(1, 2, 3)).max() <= 0.01
    assert difference.mean(axis=(1, 2, 3)).max() <= 1
    assert np.median(difference) == 0


def test_rain_is_learnt_where_the_mask_is_zero() -> None:
    network = rainstream.Network(rainstream.Config(channels=8, blocks=1))
    of_mask = slice(3 * _ops.FOLD**2, 4 * _ops.FOLD**2)
    with torch.no_grad():
        network.leave.bias[of_mask] = -12.0
    dry = torch.full((1, 3, 64, 64), 0.4)
    rainy = dry.clone()
    rainy[..., 10:40, 30:32] = 0.9
    losses = rainstream.Objective(network).frame_losses(network(rainy), rainy, dry)
    sum(losses.values()).backward()
    assert network.leave.bias.grad[of_mask].sum() < -0.001
