"""A fleet of recordings is derained by processes or on a cluster; a failure affects no other."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import recordings

from rain_removal_ros import checkpoints, networks, settings
from rain_removal_ros.bags import fleet
from rain_removal_ros.bags.replaying import ReplayOptions
from rain_removal_ros.errors import BagError
from rain_removal_ros.settings import Settings


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(path, networks.create("rainstream", channels=8, blocks=1), {})
    return path


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two good recordings, and a file that is not a recording."""
    (tmp_path / "bad.mcap").write_text("nothing of the kind")
    good = [recordings.write(tmp_path / name, recordings.entries(n)) for name, n in
            (("long", 4), ("short", 2))]  # fmt: skip
    return [good[0], tmp_path / "bad.mcap", good[1]]


def fleet_options(weights: Path, **options: Any) -> fleet.FleetOptions:
    changes = {
        "network.weights": str(weights),
        "engine.device": "cpu",
        "engine.precision": "float32",
    }
    return fleet.FleetOptions(settings.build(Settings, changes), ReplayOptions(**options))


def test_a_bad_recording_is_reported_and_the_others_are_derained(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    reported: list[tuple[int, int]] = []
    done = fleet.run(
        sources,
        tmp_path / "out",
        fleet_options(weights),
        jobs=2,
        progress=lambda done, total: reported.append((done, total)),
    )
    assert {name: result["frames"] for name, result in done.results.items()} == {
        "long": 4, "short": 2,
    }  # fmt: skip
    assert list(done.failures) == ["bad"]
    assert "bad.mcap is no MCAP file" in done.failures["bad"]
    assert reported == [(1, 3), (2, 3), (3, 3)]
    assert done.summary() == "2 recordings derained, 6 frames, 1 failed"


def test_a_repeated_call_skips_finished_recordings_and_other_options_start_over(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    good, out = sources[::2], tmp_path / "out"
    fleet.run(good[:1], out, fleet_options(weights))
    written = recordings.storage_file(out / "long").stat().st_mtime_ns
    done = fleet.run(good, out, fleet_options(weights))
    assert done.before == ["long"]
    assert {name: result["frames"] for name, result in done.results.items()} == {
        "long": 4, "short": 2,
    }  # fmt: skip
    assert recordings.storage_file(out / "long").stat().st_mtime_ns == written
    again = fleet.run(good, out, fleet_options(weights, every=2))
    assert again.before == []
    assert again.results["long"]["frames"] == 2


def test_an_existing_recording_is_replaced_only_by_force(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    recordings.write(tmp_path / "out" / "long", recordings.entries(1))
    done = fleet.run(sources[:1], tmp_path / "out", fleet_options(weights))
    assert "exists already" in done.failures["long"]
    done = fleet.run(sources[:1], tmp_path / "out", fleet_options(weights, force=True))
    assert done.results["long"]["frames"] == 4


def test_a_killed_process_loses_only_its_own_recording(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    """The process is killed while it works, as by the kernel when memory runs out."""
    good, out = sources[::2], tmp_path / "out"
    killer = threading.Thread(target=kill_the_process_that_wrote, args=(out / ".long.begun",))
    killer.start()
    done = fleet.run(good, out, fleet_options(weights))
    killer.join()
    assert done.failures == {"long": f"its process ended with code {-signal.SIGKILL}"}
    assert done.results["short"]["frames"] == 2
    # The process may also die after it has put the result in place, but not noted it as done.
    recordings.write(out / "long", recordings.entries(1))
    done = fleet.run(good, out, fleet_options(weights))
    assert (done.before, done.failures) == (["short"], {})
    assert done.results["long"]["frames"] == 4


def kill_the_process_that_wrote(mark: Path) -> None:
    """Kill the worker process once it has written ``mark``."""
    deadline = time.monotonic() + 120
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    (process,) = multiprocessing.active_children()
    process.kill()


def test_recordings_with_the_same_name_get_different_outputs(weights: Path, tmp_path: Path) -> None:
    twins = [recordings.write(tmp_path / day / "drive", recordings.entries(1)) for day in "ab"]
    done = fleet.run(twins, tmp_path / "out", fleet_options(weights))
    assert sorted(done.results) == ["b-drive", "drive"]


def test_the_report_and_the_json_contain_results_and_failures(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    wanted = fleet_options(weights)
    scored = fleet.FleetOptions(wanted.settings, wanted.options, scored=True)
    done = fleet.run(sources, tmp_path / "out", scored)
    fleet.write(done, report=tmp_path / "fleet.html", json=tmp_path / "fleet.json")
    page = (tmp_path / "fleet.html").read_text()
    assert 'href="out/long.html"' in page
    assert "bad.mcap is no MCAP file" in page
    noted = json.loads((tmp_path / "fleet.json").read_text())
    assert noted["recordings"]["long"]["scores"]["/camera/image_raw"]["frames"] == 4
    assert (tmp_path / "out" / "long.html").is_file()


def test_a_cluster_gives_the_same_recordings(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    """The test starts a Ray cluster of two workers."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    here = fleet.run(sources, tmp_path / "here", fleet_options(weights))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        there = fleet.run(sources, tmp_path / "there", fleet_options(weights), ray="auto")
    finally:
        ray.shutdown()
    machine = f" (on {os.uname().nodename})"
    failures = {name: text.removesuffix(machine) for name, text in there.failures.items()}
    assert failures == here.failures
    assert sorted(there.results) == sorted(here.results)
    for name in ("long", "short"):
        one, other = (recordings.storage_file(tmp_path / w / name) for w in ("here", "there"))
        assert one.read_bytes() == other.read_bytes()


def test_a_missing_cluster_gives_a_one_line_error(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(BagError, match="no Ray cluster at localhost:1"):
        fleet.run(sources, tmp_path / "out", fleet_options(weights), ray="localhost:1")
