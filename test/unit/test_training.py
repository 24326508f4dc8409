"""A run learns, continues exactly, survives being killed, and names mistakes in a recipe."""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.data.mix import DataSettings, SourceSettings
from rain_removal_ros.errors import CheckpointError, SettingsError, TrainingError
from rain_removal_ros.networks._base import Batch
from rain_removal_ros.training import Recipe, load_recipe, train
from rain_removal_ros.training.campaign import load_campaign
from rain_removal_ros.training.optimisation import create_optimiser, schedule_factor
from rain_removal_ros.training.recipe import (
    OptimiserSettings,
    ScheduleSettings,
    ValidationSettings,
    parse_override,
)

KILLED_IN_STEP_11 = """
import os, signal, sys
from pathlib import Path
from rain_removal_ros.training import load_recipe, run

whole = run.TrainingRun._one_step

def deadly(self, samples):
    if self.step == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, samples)

run.TrainingRun._one_step = deadly
run.train(load_recipe(Path(sys.argv[1])))
"""

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"name": "rainstream", "channels": 8, "blocks": 1}


def scene(seed: int, *, side: int = 96) -> np.ndarray:
    """A picture with edges and gradients, as a street has."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(
        rng.integers(40, 160, (4, 4, 3), dtype=np.uint8),
        (side, side),
        interpolation=cv2.INTER_CUBIC,
    )
    for _ in range(6):
        corner, far = rng.integers(0, side, 2), rng.integers(0, side, 2)
        colour = tuple(int(value) for value in rng.integers(20, 200, 3))
        cv2.rectangle(picture, corner.tolist(), far.tolist(), colour, -1)
    return picture


def rain_over(picture: np.ndarray, seed: int) -> np.ndarray:
    """The picture under sixty slanted bright streaks."""
    rng = np.random.default_rng(seed)
    light = np.zeros(picture.shape[:2], np.uint8)
    for _ in range(60):
        x, y = (int(value) for value in rng.integers(0, len(picture), 2))
        cv2.line(light, (x, y), (x + 3, y + 14), int(rng.integers(60, 120)), 1, cv2.LINE_AA)
    return cv2.add(picture, cv2.merge([light] * 3))


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs in ``pairs``, their references in ``clean``, their rainy pictures in ``real``."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(8):
        dry = scene(number)
        for name, picture in (
            ("clean", dry),
            ("pairs/target", dry),
            ("pairs/input", rain_over(dry, number)),
            ("real", rain_over(dry, number)),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
    return folder


@pytest.fixture
def recipe(tiny_set: Path, tmp_path: Path) -> Recipe:
    """A recipe for a few steps of a tiny network."""
    return Recipe(
        network=dict(SMALL),
        data=DataSettings(
            sources=(
                SourceSettings("clean", "clean", skip_every=4),
                SourceSettings("real", "unlabelled"),
            ),
            root=str(tiny_set),
            crop=32,
            batch=2,
            workers=0,
        ),
        optimiser=OptimiserSettings(rate=2e-3),
        steps=6,
        run=str(tmp_path / "run"),
        ema=0.9,
        clip_norm=1.0,
        device="cpu",
        save_every=3,
    )


def log(recipe: Recipe) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(recipe.run) / "log.jsonl").read_text().splitlines()]


def weights(recipe: Recipe, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoints.load(Path(recipe.run) / f"{name}.safetensors").network.state_dict()


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.equal(second[name]), name


def test_a_network_learns_a_tiny_set(recipe: Recipe) -> None:
    pairs = DataSettings(
        sources=(SourceSettings("pairs", skip_every=4),), root=recipe.data.root, crop=48, batch=4
    )
    recipe = replace(
        recipe,
        network={"name": "prenet", "channels": 16, "blocks": 2, "stages": 2},
        data=pairs,
        optimiser=OptimiserSettings(rate=5e-3),
        validation=(ValidationSettings("held_out", "pairs", only_every=4),),
        steps=120,
        log_every=1,
        save_every=60,
        validate_every=60,
    )
    train(recipe)
    losses = [line["ssim"] for line in log(recipe) if "ssim" in line]
    assert len(losses) == 120
    assert np.mean(losses[-30:]) < 0.5 * np.mean(losses[:30])
    half, end = [line["held_out/gain"] for line in log(recipe) if "held_out/gain" in line]
    assert end > half > 0
    assert end > 3
    picture = cv2.imread(str(Path(recipe.run) / "pictures/held_out_0000120.png"))
    assert picture.shape == (2 * 100, 3 * 96, 3)
    best = checkpoints.load(Path(recipe.run) / "best.safetensors")
    assert best.facts["recipe"]["data"]["crop"] == 48
    assert_equal(best.network.state_dict(), weights(recipe, "last"))


GAME = {"name": "frequency_gan", "stages": 2, "channels": 8, "discriminator_channels": 8}
SEMI = {"name": "semi_multiscale", "units": 2, "channels": 8}


@pytest.mark.parametrize("network", [SMALL, GAME, SEMI], ids=lambda network: network["name"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    recipe: Recipe, network: dict[str, Any]
) -> None:
    recipe = replace(recipe, network=network)
    uncut = replace(recipe, run=f"{recipe.run}_uncut")
    train(uncut)
    halfway = replace(recipe, max_minutes=1e-9)  # stops after its first step
    assert train(halfway).step == 1
    assert train(halfway).step == 2
    done = train(recipe)
    assert done.finished
    assert_equal(weights(uncut), weights(recipe))
    states = [torch.load(Path(run.run) / "state.pt") for run in (uncut, recipe)]
    for name in ("objective", "mean"):
        assert_equal(states[0][name], states[1][name])


def test_a_resumed_run_starts_the_same_units_anew(recipe: Recipe) -> None:
    recipe = replace(recipe, revive_every=1, steps=4)
    untouched = replace(recipe, run=f"{recipe.run}_untouched", revive_every=0)
    uncut = replace(recipe, run=f"{recipe.run}_uncut")
    for run in (untouched, uncut, replace(recipe, max_minutes=1e-9), recipe):
        train(run)
    assert_equal(weights(uncut), weights(recipe))
    before, after = weights(untouched), weights(recipe)
    assert any(not value.equal(after[name]) for name, value in before.items())


def test_units_of_a_network_that_does_not_name_them_cannot_start_anew(recipe: Recipe) -> None:
    with pytest.raises(SettingsError, match="revive_every"):
        train(replace(recipe, network={"name": "prenet"}, revive_every=1))


def test_a_run_stops_when_its_processor_time_is_spent_and_logs_it(recipe: Recipe) -> None:
    short = replace(recipe, core_hours=1e-9)
    assert train(short).step == 1
    assert train(short).step == 2
    logged = log(recipe)[-1]
    assert logged["step"] == 2
    assert logged["core_seconds"] > 0


def test_unlabelled_rain_reaches_a_network_that_learns_from_it(recipe: Recipe) -> None:
    train(replace(recipe, network=dict(SEMI), steps=1))
    assert {"mean", "covariance"} <= log(recipe)[0].keys()


def test_a_killed_run_loses_no_more_than_a_checkpoint_interval(
    recipe: Recipe, tmp_path: Path
) -> None:
    # Rounding depends on the number of threads, so both runs use the same.
    recipe = replace(recipe, threads=1)
    uncut = replace(recipe, run=f"{recipe.run}_uncut", steps=14)
    train(uncut)
    program = tmp_path / "killed.py"
    program.write_text(KILLED_IN_STEP_11)
    recipe = replace(recipe, steps=14)
    ended = start([str(program), str(as_yaml(recipe, tmp_path))])
    assert ended.returncode == -signal.SIGKILL
    state = torch.load(Path(recipe.run) / "state.pt")
    assert state["step"] == 9  # the last multiple of save_every
    train(recipe)
    assert_equal(weights(uncut), weights(recipe))
    steps = [line["step"] for line in log(recipe)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_sigterm_saves_the_state_and_ends_the_run_without_error(
    recipe: Recipe, tmp_path: Path, kill: Callable[[int, int], None]
) -> None:
    recipe = replace(recipe, steps=100_000, data=replace(recipe.data, workers=1))
    with subprocess.Popen(
        [sys.executable, "-m", "rain_removal_ros", "train", "--config",
         str(as_yaml(recipe, tmp_path))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while "rainstream from step 0" not in process.stderr.readline():
            assert process.poll() is None
        while not (Path(recipe.run) / "state.pt").exists():  # its worker has made samples
            assert process.poll() is None
            time.sleep(0.05)
        kill(process.pid, signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the same command continues" in out
    assert torch.load(Path(recipe.run) / "state.pt")["step"] >= 1


def test_two_processes_train_as_one_does_with_twice_the_batch(
    recipe: Recipe, tmp_path: Path
) -> None:
    alone = replace(recipe, run=f"{recipe.run}_alone", data=replace(recipe.data, batch=4))
    # Adam would amplify rounding differences to the size of its steps.
    sgd = OptimiserSettings("sgd", rate=0.05)
    alone, recipe = (replace(each, optimiser=sgd) for each in (alone, recipe))
    train(alone)
    ended = start(
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "rain_removal_ros", "train", "--config", str(as_yaml(recipe, tmp_path))]
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    for name, value in weights(alone).items():
        assert torch.allclose(value, weights(recipe)[name], rtol=1e-4, atol=1e-5), name
    assert len(torch.load(Path(recipe.run) / "state.pt")["rng"]) == 2


def test_two_processes_train_a_network_and_its_discriminator(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, network=GAME, steps=2)
    ended = start(
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "rain_removal_ros", "train", "--config", str(as_yaml(recipe, tmp_path))]
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert torch.load(Path(recipe.run) / "state.pt")["step"] == 2


def test_bfloat16_trains_about_as_float32_does(recipe: Recipe) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        each = replace(recipe, run=f"{recipe.run}_{precision}", precision=precision, log_every=1)
        train(each)
        losses[precision] = [line["log_l1"] for line in log(each)]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.06)
    assert losses["bfloat16"] != losses["float32"]


def test_training_carries_state_through_clips(recipe: Recipe) -> None:
    recipe = replace(recipe, data=replace(recipe.data, frames=3), log_every=1)
    train(recipe)
    assert all(math.isfinite(line["log_l1"]) for line in log(recipe))
    # The state is used, so the weights that act on it have changed.
    fresh = train(replace(recipe, steps=1, run=f"{recipe.run}_fresh"))
    gate = "gate.candidate.weight"
    assert not weights(recipe)[gate].equal(fresh.judged.state_dict()[gate])


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = networks.module("rainstream").Objective
    sound = objective.frame_losses

    def not_finite(*args: Any) -> dict[str, torch.Tensor]:
        return {**sound(*args), "log_l1": torch.tensor(math.nan, requires_grad=True)}

    monkeypatch.setattr(objective, "frame_losses", not_finite)
    with pytest.raises(TrainingError, match=r"not finite .* the batch is in .*not_finite_0\.pt"):
        train(recipe)
    saved = torch.load(Path(recipe.run) / "not_finite_0.pt")
    assert saved["rainy"].shape == (2, 1, 3, 32, 32)
    assert saved["rainy"].dtype == torch.uint8


def test_a_full_disk_is_a_one_line_error_and_keeps_the_last_state(
    recipe: Recipe, tmp_path: Path
) -> None:
    train(replace(recipe, steps=3))
    before = (Path(recipe.run) / "state.pt").read_bytes()
    path = as_yaml(recipe, tmp_path)

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    ended = start(
        ["-m", "rain_removal_ros", "train", "--config", str(path)], preexec_fn=small_files_only
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("rain-removal train: cannot write")
    assert "state.pt" in ended.stderr.splitlines()[-1]
    assert (Path(recipe.run) / "state.pt").read_bytes() == before
    assert not [path for path in Path(recipe.run).iterdir() if path.name.startswith(".")]


def test_a_run_of_another_network_is_not_continued(recipe: Recipe) -> None:
    train(replace(recipe, steps=1))
    with pytest.raises(CheckpointError, match=r"state\.pt is of a run of .*'channels': 8"):
        train(replace(recipe, network={"name": "rainstream", "channels": 12, "blocks": 1}))


def test_a_resumed_run_uses_the_current_rate_of_its_recipe(recipe: Recipe) -> None:
    recipe = replace(recipe, ema=0.0)
    train(replace(recipe, steps=2))
    before = weights(recipe)
    train(replace(recipe, optimiser=OptimiserSettings(rate=0.0)))
    state = torch.load(Path(recipe.run) / "state.pt")
    assert state["step"] == 6
    assert state["optimisers"]["network"]["param_groups"][0]["initial_lr"] == 0
    assert_equal(before, weights(recipe))
    with pytest.raises(CheckpointError, match="is of a run of adamw, not of sgd"):
        train(replace(recipe, optimiser=OptimiserSettings("sgd")))


def test_the_log_is_written_without_tensorboard_too(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(recipe)
    assert capsys.readouterr().err.count("no TensorBoard here") == 1
    assert log(recipe)
    assert not (Path(recipe.run) / "tensorboard").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_on_a_gpu(recipe: Recipe, precision: str) -> None:
    recipe = replace(recipe, device="cuda", precision=precision, steps=20, log_every=1)
    train(replace(recipe, steps=10))
    assert train(recipe).finished
    assert all(math.isfinite(line["log_l1"]) for line in log(recipe))


def test_a_damaged_state_is_refused(recipe: Recipe) -> None:
    train(replace(recipe, steps=1))
    path = Path(recipe.run) / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged; remove it to begin the run anew"):
        train(recipe)


def test_a_run_may_start_from_weights(recipe: Recipe, tmp_path: Path) -> None:
    train(replace(recipe, steps=2))
    start_weights = Path(recipe.run) / "last.safetensors"
    again = replace(recipe, run=str(tmp_path / "again"), init_from=str(start_weights), steps=1)
    stays = replace(again, optimiser=OptimiserSettings(rate=0.0))
    train(stays)
    assert_equal(weights(recipe), weights(stays))
    with pytest.raises(CheckpointError, match="holds rainstream, not prenet"):
        train(replace(again, network={"name": "prenet"}, run=str(tmp_path / "other")))


def test_a_network_learns_from_a_teacher(recipe: Recipe, tmp_path: Path) -> None:
    train(replace(recipe, steps=1))
    taught = replace(
        recipe, teacher=str(Path(recipe.run) / "last.safetensors"), run=str(tmp_path / "taught")
    )
    train(taught)
    assert all(line["taught"] >= 0 for line in log(taught) if "log_l1" in line)
    assert any(line.get("taught", 0) > 0 for line in log(taught))
    with pytest.raises(SettingsError, match="imitates nobody"):
        train(replace(taught, network=dict(GAME), run=str(tmp_path / "other")))


def test_a_larger_network_can_start_from_a_smaller_one(recipe: Recipe, tmp_path: Path) -> None:
    small = networks.create("rainstream", channels=8, blocks=1)
    with torch.no_grad():
        for weight in small.parameters():
            weight.add_(torch.randn(weight.shape) * 0.02)
    start = tmp_path / "small.safetensors"
    checkpoints.save(start, small, {})
    larger = replace(
        recipe,
        network={"name": "rainstream", "channels": 16, "blocks": 2},
        data=replace(recipe.data, crop=48, frames=2),
        optimiser=OptimiserSettings(rate=0.0),
        init_from=str(start),
        steps=1,
    )
    train(larger)
    grown = checkpoints.load(Path(larger.run) / "last.safetensors").network
    clip = torch.rand(3, 1, 3, 64, 48)
    states: list[Any] = [(), ()]
    for frame in clip:
        outputs = [
            network.eval()(frame, state)
            for network, state in zip((small, grown), states, strict=True)
        ]
        states = [output.state for output in outputs]
        change = (outputs[0].derained - frame).abs().max()
        assert change > 0.05
        assert (outputs[0].derained - outputs[1].derained).abs().max() < 0.2 * change
    with pytest.raises(CheckpointError, match="of another size"):
        train(replace(larger, network={"name": "rainstream", "channels": 4}, run=str(tmp_path)))


def test_float16_is_refused_on_the_cpu(recipe: Recipe) -> None:
    with pytest.raises(SettingsError, match="float16 trains on CUDA only"):
        train(replace(recipe, precision="float16"))


def factors(steps: int = 100, **settings: Any) -> list[float]:
    schedule = ScheduleSettings(**settings)
    return [schedule_factor(schedule, step, steps) for step in range(steps)]


def test_schedules_follow_the_papers() -> None:
    assert set(factors(name="constant")) == {1.0}
    steps = factors(name="constant", milestones=(30, 60), gamma=0.2)
    assert steps[29:31] == pytest.approx([1, 0.2])
    assert steps[99] == pytest.approx(0.04)
    poly = factors(name="poly", power=0.9)
    assert poly[0] == 1
    assert poly[50] == pytest.approx(0.5**0.9)
    assert poly[99] < 0.02
    cosine = factors(name="cosine", warmup_steps=10, final=0.1)
    assert cosine[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert cosine[55] == pytest.approx(0.55)
    assert cosine[99] == pytest.approx(0.1, abs=0.01)
    assert all(b <= a for a, b in itertools.pairwise(cosine[9:]))


def test_helper_players_may_have_their_own_rate() -> None:
    settings = OptimiserSettings("adam", rate=1e-3, helper_rate=1e-4)
    parameters = [nn.Parameter(torch.zeros(1))]
    assert create_optimiser("network", parameters, settings).param_groups[0]["lr"] == 1e-3
    assert create_optimiser("discriminator", parameters, settings).param_groups[0]["lr"] == 1e-4


def test_a_recipe_is_read_with_its_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "network: {name: prenet, stages: 6}\n"
        "optimiser: {rate: 0.01}\n"
        "data:\n  crop: 64\n  sources:\n  - {path: a}\n  - {path: b, kind: clean, weight: 2}\n"
        "validation:\n- {name: v, path: c}\n"
    )
    recipe = load_recipe(path, {"data.root": "/there", "network.stages": 3, "steps": 7})
    assert recipe.network == {"name": "prenet", "stages": 3}
    assert recipe.optimiser.rate == 0.01
    assert (recipe.data.root, recipe.data.crop, recipe.steps) == ("/there", 64, 7)
    assert [source.weight for source in recipe.data.sources] == [1.0, 2.0]
    assert recipe.validation[0].path == "c"
    assert load_recipe(path, {"validation": []}).validation == ()
    assert parse_override("optimiser.rate=0.5") == ("optimiser.rate", 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {name: prenet}\nstepz: 3", r"unknown setting 'stepz'; near: steps"),
        ("network: {name: prenet}\noptimiser: {raet: 1.0}", r"'optimiser\.raet'; near: optimiser"),
        ("network: {name: prenet}\ndata: {sources: [{pth: a}]}", r"data\.sources\[0\].*near: path"),
        ("network: {name: prenet}\ndata: {sources: [{kind: wet}]}", r"kind is one of pairs"),
        ("network: {name: prenet}\ndata: {sources: a}", r"data\.sources must be a list"),
        ("network: {name: prenet}\nsteps: many", r"steps is integer, not 'many'"),
        ("network: prenet", "network must be given, with its name"),
        ("steps: [", "is not YAML"),
    ],
)
def test_a_wrong_recipe_is_an_error_that_names_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_a_crop_that_does_not_fit_the_network_is_refused_with_near_ones_that_do(
    recipe: Recipe,
) -> None:
    with pytest.raises(SettingsError, match=r"crop is 100, .* multiples of 16: 96 or 112"):
        train(replace(recipe, data=replace(recipe.data, crop=100)))


def test_unknown_networks_and_their_unknown_settings_are_refused(recipe: Recipe) -> None:
    with pytest.raises(SettingsError, match="rainstream has no setting 'chanels'; it has channels"):
        train(replace(recipe, network={"name": "rainstream", "chanels": 8}))
    with pytest.raises(SettingsError, match="no network is called 'rainstorm'"):
        train(replace(recipe, network={"name": "rainstorm"}))


CAMPAIGN = REPOSITORY / "config" / "train" / "campaign.yaml"
RECIPES = sorted(set(CAMPAIGN.parent.glob("*.yaml")) - {CAMPAIGN})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_can_be_trained(path: Path) -> None:
    shipped = load_recipe(path)
    fields = {name: value for name, value in shipped.network.items() if name != "name"}
    network = networks.create(shipped.network["name"], **fields)
    sides = (shipped.data.crop, shipped.data.crop_width)
    assert all(side % network.facts.stride == 0 for side in sides)
    assert shipped.validation
    kinds = {source.kind for source in shipped.data.sources}
    objective = networks.module(shipped.network["name"]).Objective
    assert ("unlabelled" in kinds) == objective.wants_unlabelled


def test_the_shipped_campaign_uses_shipped_recipes(tmp_path: Path) -> None:
    legs = list(load_campaign(CAMPAIGN, tmp_path).legs)
    assert {leg.recipe for leg in legs} <= set(RECIPES)
    assert all(leg.settings.hours > 0 for leg in legs)


def test_every_paper_has_a_full_and_a_small_recipe() -> None:
    names = {path.stem for path in RECIPES}
    for network in set(networks.available()) - {"rainstream"}:
        assert {network, f"{network}_small"} <= names


def as_yaml(recipe: Recipe, folder: Path) -> Path:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(plain(asdict(recipe))))
    return path


def start(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        **options,
    )


def test_gradients_flow_back_over_the_given_number_of_frames(recipe: Recipe) -> None:
    def gradients_with(truncate: int) -> torch.Tensor:
        torch.manual_seed(0)
        network = networks.create("rainstream", channels=8, blocks=1)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.05)
        objective = networks.module("rainstream").Objective(network)
        objective.truncate = truncate
        clip = torch.rand(1, 4, 3, 32, 32)
        losses = objective(Batch(clip, clip.flip(1)))
        torch.stack(list(losses.values())).sum().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    whole = gradients_with(0)
    torch.testing.assert_close(gradients_with(4), whole)
    assert not torch.allclose(gradients_with(2), whole)
