"""A campaign of trainings resumes after a stop, a kill or a damaged file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.errors import SettingsError
from rain_removal_ros.training import campaign as campaigns
from rain_removal_ros.training import load_recipe
from rain_removal_ros.training.campaign import at_work, last_line, load_campaign, progress
from rain_removal_ros.training.recipe import parse_override

RECIPE = """
network: {name: prenet, channels: 4, blocks: 1, stages: 1}
steps: STEPS
log_every: 1
save_every: 1
device: cpu
data: {crop: 16, batch: 2, workers: 0, sources: [{path: train}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training pairs, a recipe that ends soon, one that does not, and a campaign of both."""
    for kind, brightness in (("target", 100), ("input", 140)):
        path = tmp_path / "data/train" / kind / "0.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((40, 48, 3), brightness, np.uint8))
    (tmp_path / "short.yaml").write_text(RECIPE.replace("STEPS", "2"))
    (tmp_path / "long.yaml").write_text(RECIPE.replace("STEPS", "1000000"))
    (tmp_path / "campaign.yaml").write_text(
        f"data_root: {tmp_path}/data\n"
        "lanes:\n"
        "  - - {recipe: short.yaml}\n"
        "    - {recipe: long.yaml, begin_with: [short], hours: 1000}\n"
    )
    return tmp_path


def command(folder: Path, action: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rain_removal_ros", "campaign", action,
         str(folder / "campaign.yaml"), "--runs", str(folder / "runs"), *more],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def steps(folder: Path) -> int:
    return progress(folder / "runs/long").step


def test_a_leg_trains_its_recipe_with_its_own_settings(folder: Path) -> None:
    legs = "[[{recipe: short.yaml, run: end, hours: 2, set: [steps=5, optimiser.rate=0.1]}]]"
    (folder / "campaign.yaml").write_text(f"lanes: {legs}\n")
    (leg,) = load_campaign(folder / "campaign.yaml", folder / "runs").legs
    command = leg.command("data")
    overrides = [command[place + 1] for place, word in enumerate(command) if word == "--set"]
    assert overrides[0] == f'data.decoded="{folder}/runs/decoded"'
    assert overrides[1:] == ["core_hours=2.0", "threads=1", "steps=5", "optimiser.rate=0.1"]
    assert command[command.index("--run") + 1] == str(folder / "runs/end")


def test_every_leg_of_the_shipped_campaign_can_begin(repository: Path, tmp_path: Path) -> None:
    campaign = load_campaign(repository / "config/train/campaign.yaml", tmp_path)
    for leg in campaign.legs:
        recipe = load_recipe(leg.recipe, dict(map(parse_override, leg.settings.set)))
        name, *fields = recipe.network
        file = networks.module(recipe.network[name])
        file.Config(**{field: recipe.network[field] for field in fields})
        for crop in ("crop", "crop_width", "clip_crop", "clip_crop_width"):
            assert getattr(recipe.data, crop) % file.Network.facts.stride == 0, (leg.name, crop)
        begun = [other.name for other in campaign.legs]
        assert all(name in begun or checkpoints.find(name) for name in leg.settings.begin_with)


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups"
)
def test_a_leg_and_its_session_have_the_lowest_priority() -> None:
    code = "import os; print(os.nice(0), open('/proc/self/autogroup').read().split()[-1])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        start_new_session=True,
        preexec_fn=campaigns._lowest_priority,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["19", "19"]


def test_a_leg_ends_after_its_hours_of_processor_time(folder: Path) -> None:
    legs = "[[{recipe: short.yaml, hours: 1}]]"
    (folder / "campaign.yaml").write_text(f"lanes: {legs}\n")
    (leg,) = load_campaign(folder / "campaign.yaml", folder / "runs").legs
    leg.run.mkdir(parents=True)
    file = leg.run / "log.jsonl"
    file.write_text('{"step": 5, "seconds": 90000, "core_seconds": 3500}\n')
    assert not leg.ended
    file.write_text('{"step": 5, "seconds": 90000, "core_seconds": 3600}\n')
    assert leg.ended


def test_a_campaign_starts_shows_its_state_refuses_a_second_stops_and_resumes(folder: Path) -> None:
    started = command(folder, "start")
    assert started.returncode == 0, started.stderr
    try:
        wait_for(lambda: steps(folder) > 2)
        assert (folder / "runs/short/done").exists()
        shown = command(folder, "show").stdout
        assert "at work, process" in shown
        assert "long" in shown
        second = command(folder, "start")
        assert second.returncode == 2
        assert "a campaign is at work" in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        stopped = command(folder, "stop")
    assert stopped.stdout == "stopped\n"
    assert at_work(folder / "runs") is None
    before = steps(folder)
    assert (folder / "runs/long/state.pt").exists()
    again = command(folder, "run", "--max-minutes", "0.3")
    assert "not done" in again.stdout
    assert steps(folder) > before
    assert command(folder, "stop").stdout == "there was none at work\n"


def test_a_killed_campaign_leaves_no_lock_and_moves_a_damaged_state_aside(folder: Path) -> None:
    command(folder, "start")
    wait_for(lambda: steps(folder) > 2)
    supervisor = at_work(folder / "runs")
    assert supervisor is not None
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    for process in (supervisor, *map(int, children)):
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: at_work(folder / "runs") is None)
    (folder / "runs/long/state.pt").write_bytes(b"nonsense")
    with (folder / "runs/long/log.jsonl").open("a") as log:
        log.write('{"step": 12, "sec')

    campaign = load_campaign(folder / "campaign.yaml", folder / "runs")
    lane = campaigns._Lane(campaign.lanes[0], campaign.data_root)
    assert lane.advance(start=True)
    wait_for(lambda: lane._process is not None and lane._process.poll() is not None)
    assert lane.advance(start=True)  # notices the exit, and waits before the next try
    assert not (folder / "runs/long/state.pt").exists()
    assert (folder / "runs/long/state.damaged.pt").exists()
    assert "damaged" in last_line(folder / "runs/long/output.log")


@pytest.mark.parametrize(
    ("lanes", "said"),
    [
        ("[[{recipe: missing.yaml}]]", "there is no recipe"),
        ("[[{recipe: short.yaml}], [{recipe: short.yaml}]]", "would share the run short"),
        ("[{recipe: short.yaml}]", "list of lists"),
        ("[[{recipes: short.yaml}]]", "unknown setting 'recipes'"),
        ("[[short.yaml]]", "must be settings of a leg"),
    ],
)
def test_a_wrong_campaign_is_refused_before_it_starts(folder: Path, lanes: str, said: str) -> None:
    (folder / "campaign.yaml").write_text(f"lanes: {lanes}\n")
    with pytest.raises(SettingsError, match=said):
        load_campaign(folder / "campaign.yaml", folder / "runs")


def test_a_leg_begins_with_the_first_weights_that_exist(folder: Path) -> None:
    legs = "[[{recipe: short.yaml, begin_with: [before, rainstream_s, prenet]}]]"
    (folder / "campaign.yaml").write_text(f"lanes: {legs}\n")

    def start_from() -> str | None:
        (leg,) = load_campaign(folder / "campaign.yaml", folder / "runs").legs
        return leg.start_from()

    assert start_from() == "rainstream_s"  # the run is lost, so it begins with shipped weights
    weights = folder / "runs/before/last.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert start_from() == str(weights)
