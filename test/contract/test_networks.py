"""The contract that every network in ``networks/`` must fulfil.

The tests make networks small through their config, to be fast; the contract does not depend on
width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.networks._base import Batch, Network, Objective, Output, State

SMALL = {"channels": 8, "stages": 2, "discriminator_channels": 8, "bottleneck": 16}
GREY_LEVEL = 1 / 255
FACTS = {name: networks.module(name).Network.facts for name in networks.available()}


def small(name: str, **config: Any) -> Network:
    """The network with few channels and stages, its weights the same at every call."""
    known = {field.name for field in dataclasses.fields(networks.module(name).Config)}
    torch.manual_seed(3)
    shrunk = {key: value for key, value in SMALL.items() if key in known}
    return networks.create(name, **{**shrunk, **config}).eval()


def rainy_clip(frames: int, height: int = 32, width: int = 64, *, seed: int = 0) -> Tensor:
    """T x 3 x H x W: a slowly brightening slope with bright streaks that move on every frame.

    The size is a multiple of every network's stride unless another one is asked for.
    """
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(0.2, 0.6, height).view(1, 1, -1, 1)
    tint = torch.tensor([0.9, 1.0, 0.8]).view(1, 3, 1, 1)
    light = torch.linspace(1.0, 1.2, frames).view(-1, 1, 1, 1)
    streaks = (torch.rand(frames, 1, 1, width, generator=generator) > 0.8) * 0.3
    noise = torch.rand(frames, 3, height, width, generator=generator) * 0.05
    return (slope * tint * light + streaks + noise).clamp(0, 1)


def run(network: Network, clip: Iterable[Tensor], state: State = ()) -> list[Output]:
    """The outputs for the frames of a clip, the state carried from one to the next."""
    outputs = []
    with torch.no_grad():
        for frame in clip:
            outputs.append(network(frame[None], state))
            state = outputs[-1].state
    return outputs


def batch_for(objective: Objective, *, size: int = 64) -> Batch:
    rainy = torch.stack([rainy_clip(2, size, size, seed=seed) for seed in (0, 1)])
    scale = float(objective.network.scale)
    references = [F.interpolate((clip - 0.1).clamp(0, 1), scale_factor=scale) for clip in rainy]
    return Batch(
        rainy=rainy,
        reference=torch.stack(references),
        unlabelled=rainy.flip(-1) if objective.wants_unlabelled else None,
    )


@pytest.fixture(params=networks.available())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(name: str) -> Network:
    return small(name)


def test_a_file_holds_a_frozen_config_a_network_with_facts_and_an_objective(name: str) -> None:
    file = networks.module(name)
    assert issubclass(file.Network, Network)
    assert issubclass(file.Objective, Objective)
    with pytest.raises(dataclasses.FrozenInstanceError):
        file.Config().channels = 1
    assert file.Network.facts.paper
    assert file.Network.facts.stages == getattr(file.Config(), "stages", 1)


@pytest.mark.parametrize(("height", "width"), [(37, 53), (16, 1), (1, 1)])
def test_outputs_have_the_right_size_and_range(network: Network, height: int, width: int) -> None:
    stride = network.facts.stride
    frame = rainy_clip(1, height, width)
    frame = F.pad(frame, (0, -width % stride, 0, -height % stride), "replicate")
    padded = torch.tensor(frame.shape[2:])

    for output in run(network, torch.cat([frame, frame])):
        assert output.derained.shape == (1, 3, *(network.scale * padded).tolist())
        assert output.attention.shape == (1, 1, *padded.tolist())
        for values in (output.derained, output.attention):
            assert values.isfinite().all()
            assert values.min() >= 0
            assert values.max() <= 1
        if output.rain_level is not None:
            assert output.rain_level.shape == (1,)
            assert 0 <= output.rain_level.item() <= 1


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_a_flat_frame_gives_finite_values(network: Network, shade: float) -> None:
    for output in run(network, torch.full((2, 3, 32, 32), shade)):
        assert output.derained.isfinite().all()
        assert output.attention.isfinite().all()


def test_gradients_reach_all_parameters_of_the_player_and_no_others(
    network: Network, name: str
) -> None:
    objective: Objective = networks.module(name).Objective(network).train()
    batch = batch_for(objective)
    players = objective.players()
    belonging = [parameter for own in players.values() for parameter in own]
    assert {id(parameter) for parameter in belonging} == {
        id(parameter) for parameter in objective.parameters() if parameter.requires_grad
    }
    assert len(belonging) == len({id(parameter) for parameter in belonging})
    names = {id(parameter): name for name, parameter in objective.named_parameters()}

    for player, own in players.items():
        objective.zero_grad(set_to_none=True)
        losses = objective(batch, player)
        torch.stack(list(losses.values())).sum().backward()
        for parameter in belonging:
            label = f"{names[id(parameter)]} when {player} learns"
            if any(parameter is mine for mine in own):
                assert parameter.grad is not None, label
                assert parameter.grad.isfinite().all(), label
                assert parameter.grad.abs().max() > 0, label
            else:
                assert parameter.grad is None, label


def test_state_is_carried_exactly_if_the_facts_say_so(network: Network) -> None:
    first, second = rainy_clip(2)
    alone = run(network, [second])[0]
    after = run(network, [first, second])[1]
    assert bool(after.state) == network.facts.recurrent
    assert torch.equal(alone.derained, after.derained) == (not network.facts.recurrent)


def test_stepping_with_a_copied_state_equals_unrolling(network: Network) -> None:
    clip = rainy_clip(4)
    unrolled = run(network, clip)

    state: State = ()
    for frame, expected in zip(clip, unrolled, strict=True):
        # A copy of the network remembers nothing, so everything must be in the state.
        output = run(copy.deepcopy(network), [frame], state)[0]
        state = tuple(torch.from_numpy(tensor.numpy().copy()) for tensor in output.state)
        torch.testing.assert_close(output.derained, expected.derained, rtol=0, atol=1e-5)


def test_interleaved_streams_equal_separate_ones(network: Network) -> None:
    clips = [rainy_clip(3, seed=1), rainy_clip(3, 64, 32, seed=2)]
    separate = [run(network, clip) for clip in clips]

    states: list[State] = [(), ()]
    for index in range(3):
        for stream, clip in enumerate(clips):
            output = run(network, [clip[index]], states[stream])[0]
            states[stream] = output.state
            assert torch.equal(output.derained, separate[stream][index].derained)


def test_a_step_does_not_change_its_state(network: Network) -> None:
    first, second = rainy_clip(2)
    state = run(network, [first])[0].state
    before = [tensor.clone() for tensor in state]
    run(network, [second], state)
    assert all(map(torch.equal, state, before))


@pytest.mark.parametrize("name", [name for name in FACTS if FACTS[name].recurrent])
def test_state_stays_bounded_over_100_frames(name: str) -> None:
    network = small(name)
    network.stages = 1
    outputs = run(network, rainy_clip(100, 32, 32))
    largest = [max(tensor.abs().max().item() for tensor in output.state) for output in outputs]
    assert max(largest[50:]) <= 1.1 * max(largest[:50])
    assert outputs[-1].derained.isfinite().all()


def test_a_batch_equals_its_frames_one_by_one(network: Network) -> None:
    clips = torch.stack([rainy_clip(2, seed=seed) for seed in range(3)])
    state: State = ()
    with torch.no_grad():
        for frames in clips.unbind(1):
            together = network(frames, state)
            state = together.state
    for index, clip in enumerate(clips):
        alone = run(network, clip)[-1]
        torch.testing.assert_close(together.derained[index], alone.derained[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together.attention[index], alone.attention[0], rtol=0, atol=1e-4)
        for ours, theirs in zip(together.state, alone.state, strict=True):
            torch.testing.assert_close(ours[index], theirs[0], rtol=1e-4, atol=1e-4)


def test_memory_format_does_not_change_the_result(network: Network) -> None:
    clip = rainy_clip(2)
    expected = run(network, clip)[-1]
    network.to(memory_format=torch.channels_last)
    state: State = ()
    with torch.no_grad():
        for frame in clip:
            output = network(frame[None].to(memory_format=torch.channels_last), state)
            state = output.state
    torch.testing.assert_close(output.derained, expected.derained, rtol=0, atol=1e-5)


def test_bfloat16_agrees_with_float32_within_a_grey_level_on_average(network: Network) -> None:
    clip = rainy_clip(3)
    exact = run(network, clip)[-1]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(network, clip)[-1]
    difference = (rounded.derained.float() - exact.derained).abs()
    assert difference.mean() <= GREY_LEVEL
    assert difference.max() <= 8 * GREY_LEVEL
    assert (rounded.attention.float() - exact.attention).abs().mean() <= 0.05


def test_losses_under_autocast_agree_with_those_in_float32(network: Network, name: str) -> None:
    objective: Objective = networks.module(name).Objective(network)
    batch = batch_for(objective)
    for player in objective.players():
        with torch.no_grad():
            exact = objective(batch, player)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = objective(batch, player)
        for kind, loss in exact.items():
            torch.testing.assert_close(rounded[kind].float(), loss, rtol=0.05, atol=1e-3, msg=kind)


@pytest.mark.parametrize("name", [name for name in FACTS if FACTS[name].stages > 1])
def test_stages_can_be_changed_at_any_time(name: str) -> None:
    network = small(name)
    first, second = rainy_clip(2)
    state = run(network, [first])[0].state
    results = []
    for stages in (1, 3):
        network.stages = stages
        results.append(run(network, [second], state)[0].derained)
        built_so = small(name, stages=stages)
        assert torch.equal(results[-1], run(built_so, [second], state)[0].derained)
    assert not torch.equal(*results)


def test_every_switch_of_the_config_gives_a_trainable_network(name: str) -> None:
    file = networks.module(name)
    for field in dataclasses.fields(file.Config):
        if not isinstance(field.default, bool):
            continue
        switched = small(name, **{field.name: not field.default})
        assert run(switched, rainy_clip(2))[-1].derained.isfinite().all(), field.name
        objective: Objective = file.Objective(switched).train()
        losses = objective(batch_for(objective, size=32))
        assert torch.stack(list(losses.values())).sum().requires_grad, field.name


def test_a_checkpoint_restores_the_same_network(
    network: Network, name: str, tmp_path: Path
) -> None:
    checkpoints.save(tmp_path / "weights.safetensors", network, {"images": 3})
    loaded = checkpoints.load(tmp_path / "weights.safetensors")
    assert loaded.name == name
    assert loaded.facts == {"images": 3}
    assert loaded.network.config == network.config
    clip = rainy_clip(2)
    expected = run(network, clip)[-1]
    output = run(loaded.network, clip)[-1]
    assert torch.equal(output.derained, expected.derained)
    assert all(map(torch.equal, output.state, expected.state))
