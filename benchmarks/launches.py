"""Starts and stops every launch file, 20 times each, and counts what went wrong.

    python benchmarks/launches.py --times 20

Needs launch and launch_ros, and the package installed where AMENT_PREFIX_PATH points. A start is
over when the node reports what it reads; the stop is Ctrl-C. Also prints when demo.launch.py had
its first derained frame. Exits with 1 after a wrong exit code or a process that was left behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 180.0
LAUNCH = ROOT / "scripts" / "launch"
FIRST = """
import sys, time, rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("first")
got = []
node.create_subscription(Image, "attention", got.append, QoSProfile(depth=1))
while not got:
    rclpy.spin_once(node)
"""
"""Ends with the first derained frame; only those have attention."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20, metavar="N")
    times = parser.parse_args().times
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "drive.mcap"
        command = [sys.executable, "-m", "rain_removal_ros", "bag-make", "drive", "-o", str(bag)]
        subprocess.run([*command, "--seconds", "60", "--size", "64x48", "--fps", "1"], check=True)
        for file, arguments in (
            ("derain.launch.py", []),
            ("multi_camera.launch.py", ["cameras:=front,rear"]),
            ("bag.launch.py", [f"bag:={bag}"]),
            ("demo.launch.py", ["viewer:=none"]),
        ):
            outcomes = [start_and_stop(file, arguments, Path(folder)) for _ in range(times)]
            codes = [code for code, _, _ in outcomes]
            stray = sum(left for _, left, _ in outcomes)
            seconds = sorted(taken for _, _, taken in outcomes)
            print(
                f"{file}: {times} starts, {sum(map(bool, codes))} exit codes other than 0, {stray} "
                f"processes left, up after {seconds[times // 2]:.1f} s (median); "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            wrong += sum(map(bool, codes)) + stray
        print(f"demo.launch.py: first derained frame after {first_frame(Path(folder)):.1f} s")
    return 1 if wrong else 0


def start(file: str, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(LAUNCH), str(ROOT / "launch" / file), *arguments],
            env=environment(log.parent),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def environment(folder: Path) -> dict[str, str]:
    mine = {"ROS_DOMAIN_ID": "98", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return {**os.environ, **mine, "ROS_LOG_DIR": str(folder)}


def start_and_stop(file: str, arguments: list[str], folder: Path) -> tuple[int, int, float]:
    """Exit code, processes left behind, and seconds until it was up."""
    log = folder / "log"
    began = time.monotonic()
    launch = start(file, arguments, log)
    while b" reads /" not in log.read_bytes():
        assert time.monotonic() - began < PATIENCE_S, log.read_text()
        time.sleep(0.02)
    taken = time.monotonic() - began
    return stop(launch), len(session(launch.pid)), taken


def stop(launch: subprocess.Popen[bytes]) -> int:
    os.killpg(launch.pid, signal.SIGINT)
    try:
        return launch.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(launch.pid, signal.SIGKILL)
        return launch.wait()


def session(leader: int) -> list[int]:
    """The processes that were started below a launch and still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == leader:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def first_frame(folder: Path) -> float:
    began = time.monotonic()
    launch = start("demo.launch.py", ["viewer:=none"], folder / "log")
    try:
        subprocess.run(
            [sys.executable, "-c", FIRST], env=environment(folder), timeout=PATIENCE_S, check=True
        )
        return time.monotonic() - began
    finally:
        stop(launch)


if __name__ == "__main__":
    sys.exit(main())
