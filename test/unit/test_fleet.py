"""Many recordings: on processes, or on a cluster; one that fails costs the others nothing."""

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
    """Two good recordings, and one that is none."""
    (tmp_path / "bad.mcap").write_text("nothing of the kind")
    good = [recordings.write(tmp_path / name, recordings.entries(n)) for name, n in
            (("long", 4), ("short", 2))]  # fmt: skip
    return [good[0], tmp_path / "bad.mcap", good[1]]


def order(weights: Path, **options: Any) -> fleet.FleetOptions:
    changes = {
        "network.weights": str(weights),
        "engine.device": "cpu",
        "engine.precision": "float32",
    }
    return fleet.FleetOptions(settings.build(Settings, changes), ReplayOptions(**options))


def test_a_bad_recording_is_named_and_the_others_are_done(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    done = fleet.run(
        sources,
        tmp_path / "out",
        order(weights),
        jobs=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert {name: result["frames"] for name, result in done.results.items()} == {
        "long": 4, "short": 2,
    }  # fmt: skip
    assert list(done.failures) == ["bad"]
    assert "bad.mcap is no MCAP file" in done.failures["bad"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert done.summary() == "2 recordings derained, 6 frames, 1 failed"


def test_the_same_call_continues_and_another_starts_over(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    good, out = sources[::2], tmp_path / "out"
    fleet.run(good[:1], out, order(weights))
    written = recordings.storage_file(out / "long").stat().st_mtime_ns
    done = fleet.run(good, out, order(weights))
    assert done.before == ["long"]
    assert {name: result["frames"] for name, result in done.results.items()} == {
        "long": 4, "short": 2,
    }  # fmt: skip
    assert recordings.storage_file(out / "long").stat().st_mtime_ns == written
    again = fleet.run(good, out, order(weights, every=2))
    assert again.before == []
    assert again.results["long"]["frames"] == 2


def test_what_lay_there_before_is_not_replaced(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    recordings.write(tmp_path / "out" / "long", recordings.entries(1))
    done = fleet.run(sources[:1], tmp_path / "out", order(weights))
    assert "exists already" in done.failures["long"]
    done = fleet.run(sources[:1], tmp_path / "out", order(weights, force=True))
    assert done.results["long"]["frames"] == 4


def test_a_process_that_dies_costs_only_its_own_recording(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    """As when memory runs out: it is killed in the middle of its work."""
    good, out = sources[::2], tmp_path / "out"
    killer = threading.Thread(target=kill_once_it_is_there, args=(out / ".long.begun",))
    killer.start()
    done = fleet.run(good, out, order(weights))
    killer.join()
    assert done.failures == {"long": f"its process ended with code {-signal.SIGKILL}"}
    assert done.results["short"]["frames"] == 2
    # It may have come as far as to put the result in place, and no further.
    recordings.write(out / "long", recordings.entries(1))
    done = fleet.run(good, out, order(weights))
    assert (done.before, done.failures) == (["short"], {})
    assert done.results["long"]["frames"] == 4


def kill_once_it_is_there(mark: Path) -> None:
    """Kill the process that has left a mark."""
    deadline = time.monotonic() + 120
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    (process,) = multiprocessing.active_children()
    process.kill()


def test_recordings_of_one_name_are_told_apart(weights: Path, tmp_path: Path) -> None:
    twins = [recordings.write(tmp_path / day / "drive", recordings.entries(1)) for day in "ab"]
    done = fleet.run(twins, tmp_path / "out", order(weights))
    assert sorted(done.results) == ["b-drive", "drive"]


def test_the_summary_names_everything(sources: list[Path], weights: Path, tmp_path: Path) -> None:
    wanted = order(weights)
    scored = fleet.FleetOptions(wanted.settings, wanted.options, scored=True)
    done = fleet.run(sources, tmp_path / "out", scored)
    fleet.write(done, report=tmp_path / "fleet.html", json=tmp_path / "fleet.json")
    page = (tmp_path / "fleet.html").read_text()
    assert 'href="out/long.html"' in page
    assert "bad.mcap is no MCAP file" in page
    noted = json.loads((tmp_path / "fleet.json").read_text())
    assert noted["recordings"]["long"]["scores"]["/camera/image_raw"]["frames"] == 4
    assert (tmp_path / "out" / "long.html").is_file()


def test_on_a_cluster_the_result_is_the_same(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    """A Ray cluster of two workers, started here."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    here = fleet.run(sources, tmp_path / "here", order(weights))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        there = fleet.run(sources, tmp_path / "there", order(weights), ray="auto")
    finally:
        ray.shutdown()
    machine = f" (on {os.uname().nodename})"
    failures = {name: text.removesuffix(machine) for name, text in there.failures.items()}
    assert failures == here.failures
    assert sorted(there.results) == sorted(here.results)
    for name in ("long", "short"):
        one, other = (recordings.storage_file(tmp_path / w / name) for w in ("here", "there"))
        assert one.read_bytes() == other.read_bytes()


def test_no_cluster_at_an_address_is_one_line(
    sources: list[Path], weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(BagError, match="no Ray cluster at localhost:1"):
        fleet.run(sources, tmp_path / "out", order(weights), ray="localhost:1")
