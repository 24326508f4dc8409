"""What RRANet carries from frame to frame, and how it follows a moving scene."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros.errors import SettingsError
from rain_removal_ros.networks import _motion as motion
from rain_removal_ros.networks import create
from rain_removal_ros.networks.rranet import _aligned, _motion

SMALL = {"channels": 4, "stages": 1}


def scenery(height: int, width: int) -> Tensor:
    """A picture with edges everywhere, so that motion can be estimated."""
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_the_state_moves_with_the_scene(scale: int) -> None:
    wide = scenery(136, 208)  # a multiple of 8, not of 16
    before, past, frame = (wide[..., 8 * step : 8 * step + 160] for step in range(3))
    memory = F.avg_pool2d(past, scale)
    state = (memory, past, _motion(before, past), motion.downsample_grey(past))
    moved, _ = _aligned(state, motion.downsample_grey(frame))
    now = F.avg_pool2d(frame, scale)
    inside = (..., slice(16 // scale, -16 // scale), slice(16 // scale, -16 // scale))

    assert moved.shape == memory.shape
    unmoved = F.l1_loss(memory[inside], now[inside])
    assert F.l1_loss(moved[inside], now[inside]) < 0.2 * unmoved


def test_a_still_scene_leaves_the_state_unchanged() -> None:
    frame = scenery(64, 96)
    memory = F.avg_pool2d(frame, 4)
    state = (memory, frame, _motion(frame, frame), motion.downsample_grey(frame))
    moved, picture = _aligned(state, motion.downsample_grey(frame))
    torch.testing.assert_close(moved, memory, rtol=0, atol=2e-3)
    torch.testing.assert_close(picture, frame, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        ({}, 8),
        ({"alignment": "measured"}, 11),
        ({"begin_with": "previous"}, 9),
        ({"begin_with": "previous", "alignment": "measured"}, 11),
        ({"lstm": False}, 0),
        ({"lstm": False, "begin_with": "previous", "alignment": "measured"}, 3),
        ({"carry": False, "begin_with": "previous"}, 0),
    ],
)
def test_the_config_decides_what_the_state_holds(config: dict[str, object], tensors: int) -> None:
    network = create("rranet", **SMALL, **config).eval()
    frame = scenery(40, 72)
    with torch.no_grad():
        state = network(frame).state
        again = network(frame, state)
    assert len(state) == len(again.state) == tensors
    assert again.derained.shape == frame.shape


def test_an_unknown_alignment_is_refused() -> None:
    with pytest.raises(SettingsError, match="alignment is 'none' or 'measured', not 'guessed'"):
        create("rranet", alignment="guessed")
