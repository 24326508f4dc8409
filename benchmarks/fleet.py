"""Frames a second of a fleet on Ray, with one and with two nodes of one CPU on this machine.

    python benchmarks/fleet.py [RECORDINGS]

Each recording has 30 frames of 640x480, derained by the default network in one thread. A run is
timed as a user sees it: with the start of the command and of its workers, which import torch.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PORT = 20000 + os.getpid() % 10000
ADDRESS = f"127.0.0.1:{PORT}"
ROUNDS = 2
PATIENCE_S = 120.0
SMALL = [
    *("--disable-usage-stats", "--num-cpus=1", "--object-store-memory=80000000"),
    *("--node-ip-address=127.0.0.1", "--block"),
]
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # paths of its sockets may not be long
        folder = Path(name)
        bags = [recording(folder / f"{number}.mcap", number) for number in range(count)]
        with node(folder, "--head", f"--port={PORT}", f"--temp-dir={folder}/ray"):
            for _ in range(ROUNDS):
                report("one node", replay(bags, folder))
                with node(folder, f"--address={ADDRESS}"):
                    report("two nodes", replay(bags, folder))
    return 0


def report(nodes: str, rate: float) -> None:
    print(f"{nodes}: {rate:.2f} frames a second; load {os.getloadavg()[0]:.1f}", flush=True)


def recording(path: Path, seed: int) -> Path:
    make = [sys.executable, "-m", "rain_removal_ros", "bag-make", "drive", "-o", str(path)]
    shape = ["--seconds", "3", "--fps", "10", "--size", "640x480", "--seed", str(seed)]
    subprocess.run([*make, *shape], check=True, capture_output=True)
    return path


def replay(bags: list[Path], folder: Path) -> float:
    """Frames a second, from the command's start to its end."""
    summary = folder / "summary.json"
    command = [sys.executable, "-m", "rain_removal_ros", "replay", *map(str, bags), "--force"]
    how = ["--device", "cpu", "--threads", "1", "--ray", ADDRESS, "--json", str(summary)]
    out = tempfile.mkdtemp(dir=folder)
    began = time.monotonic()
    subprocess.run([*command, "-o", out, *how], check=True, capture_output=True, env=ENVIRONMENT)
    seconds = time.monotonic() - began
    results = json.loads(summary.read_text())["recordings"].values()
    return float(sum(result["frames"] for result in results) / seconds)


@contextmanager
def node(folder: Path, *where: str) -> Iterator[None]:
    """A node of the cluster."""
    log = folder / f"log-{len(where)}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, *SMALL]
    with log.open("wb") as said:
        started = subprocess.Popen(
            command, stdout=said, stderr=said, env=ENVIRONMENT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "Ray runtime started" not in log.read_text():
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


if __name__ == "__main__":
    sys.exit(main())
