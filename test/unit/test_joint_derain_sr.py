"""joint_derain_sr: regions of MSER, the inverted rain model, branches, losses and VGG16."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from rain_removal_ros.errors import CheckpointError, SettingsError
from rain_removal_ros.networks import create, joint_derain_sr
from rain_removal_ros.networks._base import Batch, Network
from rain_removal_ros.networks.joint_derain_sr import Vgg16, stable_regions


def small(**config: Any) -> Any:
    torch.manual_seed(0)
    return create("joint_derain_sr", **{"channels": 8, "blocks": 1, **config}).eval()


def discs(*centres: tuple[int, int], size: tuple[int, int] = (96, 128)) -> Tensor:
    """A grey picture with dark discs on it, 1 x 3 x H x W."""
    y = torch.arange(size[0]).view(-1, 1)
    x = torch.arange(size[1])
    picture = torch.full(size, 0.8)
    for row, column in centres:
        picture[(y - row) ** 2 + (x - column) ** 2 < 64] = 0.2
    return picture.expand(1, 3, *size)


def run(network: Network, frame: Tensor) -> Any:
    with torch.no_grad():
        return network(frame)


def test_regions_are_found_at_the_discs() -> None:
    (found,) = stable_regions(discs((30, 40), (60, 100)))
    pixels = found * (96, 128)
    for centre in ((30, 40), (60, 100)):
        assert np.abs(pixels - centre).max(1).min() < 2


def test_regions_do_not_depend_on_batch_and_memory_format() -> None:
    blobs = torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    frames = (F.interpolate(blobs, size=(240, 400), mode="bilinear") * 255).round() / 255
    together = stable_regions(frames)
    assert all(len(found) > 0 for found in together)
    for index, found in enumerate(together):
        alone = frames[index : index + 1].contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(stable_regions(alone)[0], found)


@pytest.mark.parametrize("size", [(4, 4), (4, 2000), (1080, 8)])
def test_regions_of_tiny_and_narrow_pictures_lie_inside(size: tuple[int, int]) -> None:
    (found,) = stable_regions(torch.rand(1, 3, *size))
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("size", [(4, 4), (64, 96), (180, 228)])
def test_the_grid_covers_the_whole_picture(size: tuple[int, int]) -> None:
    regions = small(regions="grid").regions
    height, width = size[0] // 4, size[1] // 4
    radii = [height // 32, width // 32]
    centres = regions._centres(torch.rand(2, 3, *size), radii)
    assert centres.shape == (2, 1, height, width)
    assert (joint_derain_sr._box_mean(centres, radii) > 0).all()


def test_a_picture_without_regions_is_covered_by_the_grid() -> None:
    flat = torch.full((1, 3, 32, 48), 0.5)
    assert len(stable_regions(flat)[0]) == 0
    searched, covered = small(), small(regions="grid")
    assert torch.equal(run(searched, flat).derained, run(covered, flat).derained)


def test_regions_change_only_the_operation_layers() -> None:
    frame = discs((30, 40))
    with torch.no_grad():
        searched, covered = small().coarse(frame), small(regions="grid").coarse(frame)
    for name in ("multiplication", "addition"):
        assert not torch.equal(searched[name], covered[name])
    assert torch.equal(searched["ats"], covered["ats"])


def test_an_exported_network_uses_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(frames: Tensor) -> None:
        pytest.fail("MSER was looked for while a graph was drawn")

    frame = discs((30, 40))
    expected = run(small(regions="grid"), frame)
    monkeypatch.setattr(joint_derain_sr, "stable_regions", unreachable)
    exported = torch.export.export(small(), (frame,)).module()
    torch.testing.assert_close(exported(frame).derained, expected.derained)
    assert create("joint_derain_sr").to("meta")(frame.to("meta")).derained.shape == (1, 3, 192, 256)


def test_a_network_without_regions_has_no_weights_for_them() -> None:
    assert not [key for key in small(regions="none").state_dict() if key.startswith("regions")]


class ConstantLayer(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        return self.value


def test_the_ats_model_inverts_the_heavy_rain_formula() -> None:
    ats = small().ats
    generator = torch.Generator().manual_seed(0)
    background, streaks, light = torch.rand(3, 1, 3, 8, 12, generator=generator)
    share = torch.rand(1, 1, 8, 12, generator=generator)
    least = ats.least
    transmission = least + (1 - least) * share
    ats.transmission = ConstantLayer(share.logit())
    ats.light = ConstantLayer(light.logit())
    ats.streaks = ConstantLayer(streaks)
    rainy = transmission * (background + streaks) + (1 - transmission) * light
    torch.testing.assert_close(ats(rainy), background, rtol=0, atol=1e-4)


def test_zero_transmission_gives_finite_output() -> None:
    network = small()
    network.ats.transmission = ConstantLayer(torch.full((1, 1, 8, 12), -1000.0))
    frame = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert network.coarse(frame)["ats"].isfinite().all()
    assert run(network, frame).derained.isfinite().all()


def test_an_untrained_network_returns_nearly_its_input() -> None:
    frame = discs((30, 40))
    assert (run(create("joint_derain_sr", scale=1), frame).derained - frame).abs().mean() < 0.15


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_output_is_larger_by_the_scale_and_the_attention_is_not(scale: int) -> None:
    output = run(small(scale=scale), torch.rand(2, 3, 12, 20))
    assert output.derained.shape == (2, 3, 12 * scale, 20 * scale)
    assert output.attention.shape == (2, 1, 12, 20)


@pytest.mark.parametrize("left_out", ["multiplication", "addition", "ats"])
def test_each_branch_can_be_left_out(left_out: str) -> None:
    network = small(**{left_out: False})
    with torch.no_grad():
        assert set(network.coarse(torch.rand(1, 3, 8, 8))) == {
            "multiplication",
            "addition",
            "ats",
        } - {left_out}


def test_a_single_branch_and_an_unknown_scale_are_refused() -> None:
    with pytest.raises(SettingsError, match="keep two"):
        small(multiplication=False, addition=False)
    with pytest.raises(SettingsError, match="1, 2, 4"):
        small(scale=3)


def pairs(*, scale: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    blocks = torch.rand(2, 3, 4, 4, generator=generator) * 0.4 + 0.2
    reference = F.interpolate(blocks, size=24 * scale)
    streaks = (torch.rand(2, 1, 1, 24, generator=generator) > 0.8) * 0.3
    rainy = F.avg_pool2d(reference, scale) * 0.7 + 0.2 + streaks
    return Batch(rainy=rainy[:, None], reference=reference[:, None])


def test_the_first_stage_is_compared_with_the_reference_at_the_size_of_the_input() -> None:
    network, batch = small(), pairs()
    small_clean = F.avg_pool2d(batch.reference[:, 0], 2)
    losses = joint_derain_sr.Objective(network)(batch)
    results = network.coarse(batch.rainy[:, 0])
    assert set(losses) == {*results, "output", "attention"}
    for name, result in results.items():
        torch.testing.assert_close(losses[name], (result - small_clean).square().mean())


def test_a_missing_vgg16_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    joint_derain_sr._say_that_vgg16_is_missing.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            joint_derain_sr.Objective(small())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "without its perceptual loss" in caplog.text


@pytest.fixture(params=["vgg16.safetensors", "vgg16.pth"])
def vgg16_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Random weights under torchvision's names, with one layer more than needed."""
    generator = torch.Generator().manual_seed(0)
    widths = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128)}
    widths |= {10: (128, 256), 12: (256, 256), 14: (256, 256), 17: (256, 512)}
    weights = {}
    for layer, (inputs, outputs) in widths.items():
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
        weights[f"features.{layer}.weight"] = kernel
        weights[f"features.{layer}.bias"] = torch.zeros(outputs)
    path = tmp_path / request.param
    if path.suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    return path


def test_vgg16_returns_the_features_of_its_seventh_convolution(vgg16_file: Path) -> None:
    vgg = Vgg16(str(vgg16_file))
    image = torch.rand(1, 3, 16, 24)
    features = vgg(image)
    assert features.shape == (1, 256, 4, 6)
    assert features.min() == 0  # after the ReLU
    assert not any(parameter.requires_grad for parameter in vgg.parameters())


def test_vgg16_adds_a_perceptual_loss_that_trains_only_the_network(
    vgg16_file: Path,
) -> None:
    network = small(vgg16=str(vgg16_file))
    objective = joint_derain_sr.Objective(network)
    players = objective.players()["network"]
    assert len(players) == len(list(network.parameters()))
    loss = objective(pairs())["perceptual"]
    loss.backward()
    assert loss > 0
    assert network.refinement.tail.weight.grad.abs().max() > 0


def test_a_wrong_vgg16_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no file of VGG16 weights"):
        Vgg16(str(tmp_path / "absent.pth"))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(CheckpointError, match="not a plain file of weights"):
        Vgg16(str(tmp_path / "text.pth"))
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"no features\.0\.bias"):
        Vgg16(str(tmp_path / "other.safetensors"))


def test_thirty_steps_on_two_pairs_lower_the_loss() -> None:
    network = small()
    objective = joint_derain_sr.Objective(network).train()
    optimiser = torch.optim.Adam(objective.players()["network"], 3e-3)
    batch, history = pairs(), []
    for _ in range(30):
        losses = objective(batch)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        history.append({name: value.item() for name, value in losses.items()})
    for name in history[0]:
        least = 0.95 if name == "attention" else 0.7  # attention maps learn slowly
        assert history[-1][name] < least * history[0][name], name


def test_the_ats_model_uses_regions_only_with_ats_regions() -> None:
    frame = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for enabled in (False, True):
        torch.manual_seed(0)
        network = create(
            "joint_derain_sr", channels=8, blocks=1, regions="grid", ats_regions=enabled
        )
        assert isinstance(network, Network)
        with torch.no_grad():
            before = network.coarse(frame)["ats"]
            for parameter in network.regions.parameters():
                parameter.mul_(2)
            after = network.coarse(frame)["ats"]
        assert torch.equal(before, after) != enabled
