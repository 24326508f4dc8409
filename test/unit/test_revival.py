"""Hidden units that died start anew, and what the network makes of a picture stays the same."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from rain_removal_ros import networks
from rain_removal_ros.networks._base import Network
from rain_removal_ros.training.revival import copy_changes, revive


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    made = networks.create("rainstream", channels=8, blocks=1)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.03)
    for layer in made.rectified():
        nn.init.constant_(layer.bias, 0.2)  # type: ignore[arg-type]
    return made


@pytest.fixture
def clips() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.rand(1, 2, 3, 32, 48) for _ in range(3)]


def hidden(network: Network) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The two convolutions of the first block."""
    block = network.get_submodule("down_fine.0")
    return cast(nn.Conv2d, block.first), cast(nn.Conv2d, block.second)


def shown(network: Network, clip: Tensor) -> Tensor:
    with torch.no_grad():
        first = network(clip[:, 0])
        return cast(Tensor, network(clip[:, 1], first.state).derained)


def positive(network: Network, layer: nn.Conv2d, clips: list[Tensor]) -> Tensor:
    """How often each unit of a layer is positive."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(
        lambda _, __, output: seen.append((output > 0).float().mean((0, 2, 3)))
    )
    for clip in clips:
        shown(network, clip)
    handle.remove()
    return torch.stack(seen).mean(0)


def test_a_dead_unit_comes_back_and_the_picture_stays(
    network: Network, clips: list[Tensor]
) -> None:
    first, second = hidden(network)
    with torch.no_grad():
        first.bias[3] = -100.0  # type: ignore[index]
    before, kept = shown(network, clips[0]), first.weight[:3].clone()
    changes = revive(network, clips)
    assert {change.parameter for change in changes if 3 in change.units.tolist()} >= {
        "down_fine.0.first.weight",
        "down_fine.0.first.bias",
        "down_fine.0.second.weight",
    }
    assert torch.equal(second.weight[:, 3], torch.zeros_like(second.weight[:, 3]))
    assert torch.equal(first.weight[:3], kept)
    torch.testing.assert_close(shown(network, clips[0]), before)
    assert 0.2 < float(positive(network, first, clips)[3]) < 0.8


def test_a_new_unit_can_learn(network: Network, clips: list[Tensor]) -> None:
    first, second = hidden(network)
    with torch.no_grad():
        first.bias[3] = -100.0  # type: ignore[index]
    revive(network, clips)
    network(clips[0][:, 0]).derained.square().mean().backward()
    assert second.weight.grad is not None
    assert float(second.weight.grad[:, 3].abs().max()) > 0


def test_nothing_changes_where_all_units_live(network: Network, clips: list[Tensor]) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert revive(network, clips) == []
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_units_that_only_clips_use_are_not_dead(network: Network) -> None:
    """What is carried from frame to frame belongs to what a unit sees."""
    torch.manual_seed(2)
    still, clip = torch.rand(1, 1, 3, 32, 48), torch.rand(1, 4, 3, 32, 48)
    join = cast(nn.Conv2d, network.join_middle)
    with torch.no_grad():
        # A unit that reads one channel of the hidden state, which is 0 or less in the first frame.
        join.weight[0] = 0
        join.weight[0, -1] = 10.0
        join.bias[0] = 0  # type: ignore[index]
    units = {change.parameter: change.units.tolist() for change in revive(network, [still, clip])}
    assert 0 not in units.get("join_middle.weight", [])


def test_the_mean_of_the_weights_gets_the_same_units(network: Network, clips: list[Tensor]) -> None:
    first, _ = hidden(network)
    mean = networks.create("rainstream", channels=8, blocks=1)
    mean.load_state_dict(network.state_dict())
    with torch.no_grad():
        first.bias[3] = -100.0  # type: ignore[index]
        mean.get_parameter("down_fine.0.first.weight")[0] += 1
    copy_changes(revive(network, clips), network, mean)
    copied = mean.get_parameter("down_fine.0.first.weight")
    assert torch.equal(copied[3], first.weight[3])
    assert not torch.equal(copied[0], first.weight[0])
