"""A fleet on a Ray cluster: killed workers, lost nodes, a broken recording, a full disk."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import recordings

pytest.importorskip("ray", reason="Ray is not installed")

PATIENCE_S = 120.0
PORT = 20000 + os.getpid() % 10000
SMALL = [
    *("--disable-usage-stats", "--num-cpus=1", "--object-store-memory=80000000"),
    *("--node-ip-address=127.0.0.1", "--block"),
]


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Cluster:
    """Nodes of a cluster on this machine, started with the commands of docs/bags.md."""

    address = f"127.0.0.1:{PORT}"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._log = folder / "log"
        self._begun = 0

    def head(self) -> None:
        where = ["--head", f"--port={PORT}", f"--temp-dir={self.folder}"]
        self._start([*where, "--include-dashboard=false"])

    def node(self, *before: str) -> None:
        self._start([f"--address={self.address}"], before)

    def kill_node(self, number: int) -> None:
        """Kill a node at once, as a power failure does."""
        node = self.nodes.pop(number)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def close(self) -> None:
        while self.nodes:
            self.kill_node(-1)

    def _start(self, where: list[str], before: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        with self._log.open("ab") as log:
            node = subprocess.Popen(
                [*before, *command, *where, *SMALL],
                stdout=log,
                stderr=log,
                env={**os.environ, **TOKEN},
                start_new_session=True,
            )
        self.nodes.append(node)
        self._begun += 1
        deadline = time.monotonic() + PATIENCE_S
        while (said := self._log.read_text()).count("Ray runtime started") < self._begun:
            assert node.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One cluster for all tests, because nodes start slowly. Each test leaves only the head."""
    folder = Path(f"/tmp/ray{os.getpid()}")  # the paths of sockets must be short
    folder.mkdir(exist_ok=True)
    started = Cluster(folder)
    try:
        started.head()
        yield started
    finally:
        started.close()
        shutil.rmtree(folder, ignore_errors=True)


class Fleet:
    """``rain-removal replay`` on the cluster, as a user types it on the head."""

    def __init__(self, cluster: Cluster, sources: list[Path], folder: Path, weights: Path) -> None:
        self.out = folder / "out"
        self._summary = folder / "summary.json"
        self._command = [
            *(sys.executable, "-m", "rain_removal_ros", "replay", *map(str, sources)),
            *("-o", str(self.out), "--model", str(weights), "--device", "cpu"),
            *("--ray", cluster.address, "--json", str(self._summary)),
        ]

    def replay(self, **environment: str) -> dict[str, Any]:
        """Run the command and return its summary."""
        said = subprocess.run(
            self._command,
            env={**os.environ, **TOKEN, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert self._summary.exists(), said.stderr
        summary: dict[str, Any] = json.loads(self._summary.read_text())
        self._summary.unlink()
        assert said.returncode == (1 if summary["failures"] else 0)
        return summary

    def begun(self) -> list[Path]:
        """The mark files of the recordings that are being derained."""
        return list(self.out.glob(".*.begun"))


@pytest.fixture
def run(cluster: Cluster, sources: list[Path], tmp_path: Path, weights: Path) -> Fleet:
    return Fleet(cluster, sources, tmp_path, weights)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Four recordings, one of them broken."""
    names = ("one", "two", "three")
    good = [recordings.write(tmp_path / name, recordings.entries(3)) for name in names]
    (tmp_path / "broken.mcap").write_text("nothing of the kind")
    return [*good, tmp_path / "broken.mcap"]


class Second(threading.Thread):
    """Does something as soon as the second node is at work.

    That node takes seconds to begin. Meanwhile the head would do all there is, so its worker waits.
    """

    def __init__(self, cluster: Cluster, then: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._head, self._node = (node.pid for node in cluster.nodes)
        self._then = then
        self.worked = False
        self.start()

    def run(self) -> None:
        waiting = self._first_worker(self._head)
        os.kill(waiting, signal.SIGSTOP)
        try:
            self._first_worker(self._node)
            self.worked = True
            self._then()
        finally:
            os.kill(waiting, signal.SIGCONT)

    def _first_worker(self, node: int) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := workers(node)):
            assert time.monotonic() < deadline, "no worker"
            time.sleep(0.005)
        return found[0]


def workers(node: int) -> list[int]:
    """The processes of a node that derain something at the moment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        process = int(path.parent.name)
        with suppress(OSError):
            if b"_do_there" in path.read_bytes() and os.getsid(process) == node:
                found.append(process)
    return found


def frames(summary: dict[str, Any]) -> dict[str, int]:
    return {name: result["frames"] for name, result in summary["recordings"].items()}


ALL = {"one": 3, "two": 3, "three": 3}


def test_two_nodes_derain_every_recording_although_a_worker_is_killed(
    cluster: Cluster, run: Fleet
) -> None:
    cluster.node()
    node = cluster.nodes[1].pid
    second = Second(cluster, lambda: [os.kill(each, signal.SIGKILL) for each in workers(node)])
    done = run.replay()
    second.join()
    assert second.worked
    assert frames(done) == ALL
    assert list(done["failures"]) == ["broken"]
    assert "is no MCAP file" in done["failures"]["broken"]
    assert not run.begun()
    cluster.kill_node(1)


def test_another_node_derains_the_recording_of_a_lost_node(cluster: Cluster, run: Fleet) -> None:
    cluster.node()
    second = Second(cluster, lambda: cluster.kill_node(1))
    done = run.replay()
    second.join()
    assert second.worked
    assert frames(done) == ALL
    assert list(done["failures"]) == ["broken"]


def test_the_error_for_a_full_disk_names_the_machine_and_the_same_command_continues(
    cluster: Cluster, sources: list[Path], tmp_path: Path, weights: Path
) -> None:
    run = Fleet(cluster, [path for path in sources if path.name in ALL], tmp_path, weights)
    run.out.mkdir()
    full = f'mount -t tmpfs -o size=4k full {run.out} && exec "$@"'
    namespace = ("unshare", "--map-root-user", "--mount", "sh", "-c", full, "sh")
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    cluster.node(*namespace)
    second = Second(cluster)
    done = run.replay()
    second.join()
    assert second.worked
    assert done["failures"]
    for text in done["failures"].values():
        assert "No space left on device" in text
        assert f"(on {os.uname().nodename})" in text
    cluster.kill_node(1)
    again = run.replay()
    assert frames(again) == ALL
    assert set(again["before"]) == set(frames(done))


def test_a_wrong_token_gives_a_one_line_error(cluster: Cluster, run: Fleet) -> None:
    with pytest.raises(AssertionError) as refused:
        run.replay(RAY_AUTH_TOKEN=secrets.token_hex(32))
    (line,) = (one for one in str(refused.value).splitlines() if "rain-removal replay:" in one)
    assert f"no Ray cluster at {cluster.address}: Failed to connect" in line
    assert "RAY_AUTH_MODE=token" in line
