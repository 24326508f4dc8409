"""What the node costs, loses and keeps: real processes, over DDS, on this machine.

    python benchmarks/node.py relay      own share of latency against a bare relay, 1080p bgr8
    python benchmarks/node.py live       real networks behind a live camera, against a bare relay
    python benchmarks/node.py driver     a reliable driver's process, with and without the profile
    python benchmarks/node.py camera     1080p at 30 Hz, best effort: where every frame went
    python benchmarks/node.py cameras    four cameras on one node against four nodes
    python benchmarks/node.py soak       memory, threads and files over an hour's worth of frames

Without a name, all of them run. These are not tests: a busy machine gives other figures, so the
alternatives of each comparison take turns in one run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rain_removal_ros.runtime.dds import profile_environment

HERE = Path(__file__).resolve().parent
DOMAIN = str(1 + os.getpid() % 100)
os.environ.update(
    ROS_DOMAIN_ID=DOMAIN,
    ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
    RAIN_REMOVAL_NETWORKS=str(HERE / "networks"),
    OMP_WAIT_POLICY="PASSIVE",
)
os.environ.update(profile_environment())

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from rain_removal_ros import checkpoints, codec, networks  # noqa: E402
from rain_removal_ros.manifest import manifest  # noqa: E402
from rain_removal_ros.runtime.files import write_json  # noqa: E402
from rain_removal_ros.runtime.processes import running  # noqa: E402

DRIVER = """
import sys, time
import numpy as np, rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from rain_removal_ros import codec
width, height, rate, frames = map(int, sys.argv[1:])
rclpy.init()
node = rclpy.create_node("driver")
camera = node.create_publisher(Image, "image", QoSProfile(depth=10))
while not camera.get_subscription_count():
    time.sleep(0.05)
time.sleep(1.0)
message = Image()
pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
codec.write_image(message, pixels, encoding="bgr8", header=message.header)
began = time.monotonic()
for number in range(frames):
    time.sleep(max(0.0, began + number / rate - time.monotonic()))
    codec.set_stamp(message.header, time.time_ns())
    camera.publish(message)
time.sleep(2.0)
"""
"""A camera in a process of its own, as drivers are, which publishes reliably."""

RELAY = """
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = Node("relay")
out = node.create_publisher(Image, "image_derained", QoSProfile(depth=1))
best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
node.create_subscription(Image, "image", out.publish, best_effort)
rclpy.spin(node)
"""
FULL_HD = (1080, 1920)
FRAMES_AN_HOUR = 108_000
PATIENCE_S = 120.0
UNANSWERED_S = 5.0
WARM_UP = 5
ROUNDS = 3
PERCENTILES = (50, 95, 99)

Figures = dict[str, Any]


# --- Processes and topics --------------------------------------------------------------------


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with running(command, grace_s=30, stderr=subprocess.DEVNULL) as (started,):
        yield started


def derain(
    parameters: Mapping[str, object], *, remap: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The command of a node."""
    given = [word for pair in parameters.items() for word in ("-p", "{}:={}".format(*pair))]
    rules = [word for pair in (remap or {}).items() for word in ("-r", "{}:={}".format(*pair))]
    return ("-m", "rain_removal_ros.ros.node", "--ros-args", *given, *rules)


class Bench:
    """A camera and a subscriber to the derained images, in one process."""

    def __init__(self, cameras: tuple[str, ...] = ("",), *, reliable: bool = False) -> None:
        self.node = Node("bench")
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=5 if reliable else 1, reliability=policy)
        prefixes = [f"{name}/" if name else "" for name in cameras]
        self.cameras = [self.node.create_publisher(Image, f"{p}image", qos) for p in prefixes]
        self.answers: list[dict[int, Image]] = [{} for _ in cameras]
        self.came: list[dict[int, float]] = [{} for _ in cameras]
        """When each answer arrived, by ``time.perf_counter``."""
        self.count = 0
        for index, prefix in enumerate(prefixes):
            self.node.create_subscription(
                Image,
                f"{prefix}image_derained",
                lambda image, index=index: self._take(index, image),
                qos,
            )
        self.status: dict[str, dict[str, str]] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._listen, 10)

    def close(self) -> None:
        self.node.destroy_node()

    def until(self, happened: Callable[[], object], timeout_s: float) -> bool:
        """Handle messages until something has happened."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline:
                return False
            rclpy.spin_once(self.node, timeout_sec=0.01)
        return True

    def connected(self, *, networks: int) -> None:
        """Wait until all cameras have subscribers and this many nodes have loaded a network."""

        def ready() -> bool:
            if not all(camera.get_subscription_count() for camera in self.cameras):
                return False
            loaded = [status.get("network", "none") != "none" for status in self.status.values()]
            return sum(loaded) >= networks

        if not self.until(ready, PATIENCE_S):
            raise SystemExit("the node is not ready after two minutes")
        self.until(lambda: False, 1.0)  # both sides of every match have to take note

    def trip(self, message: Image, stamp_ns: int, index: int = 0) -> float | None:
        """Milliseconds from publishing a frame to its answer; None if there was none."""
        codec.set_stamp(message.header, stamp_ns)
        began = time.perf_counter()
        self.cameras[index].publish(message)
        self.until(lambda: stamp_ns in self.answers[index], UNANSWERED_S)
        came = self.came[index].get(stamp_ns)
        self.forget(index)
        return 1e3 * (came - began) if came else None

    def film(self, messages: Sequence[Image], rate: float, index: int) -> list[float | None]:
        """Like ``trip``, for frames that come at this rate and do not wait for answers."""
        sent = []
        began = time.perf_counter()
        for number, message in enumerate(messages, 1):
            codec.set_stamp(message.header, time.time_ns())
            sent.append((codec.stamp_ns(message.header), time.perf_counter()))
            self.cameras[index].publish(message)
            due = began + number / rate
            self.until(lambda due=due: time.perf_counter() >= due, UNANSWERED_S)
            self.answers[index].clear()  # they are large
        self.until(lambda: all(stamp in self.came[index] for stamp, _ in sent), 1.0)
        came = dict(self.came[index])
        self.forget(index)
        return [1e3 * (came[stamp] - at) if stamp in came else None for stamp, at in sent]

    def forget(self, index: int) -> None:
        """Make room."""
        self.answers[index].clear()
        self.came[index].clear()

    def _take(self, index: int, image: Image) -> None:
        stamp_ns = codec.stamp_ns(image.header)
        self.answers[index][stamp_ns] = image
        self.came[index][stamp_ns] = time.perf_counter()
        self.count += 1

    def _listen(self, diagnostics: DiagnosticArray) -> None:
        for status in diagnostics.status:
            self.status[status.name] = {pair.key: pair.value for pair in status.values}


def noise(size: tuple[int, int], seed: int = 0) -> Image:
    return picture(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def drive(size: tuple[int, int], number: int, seed: int) -> Image:
    """A scene that moves by a pixel per frame, behind streaks that change every frame."""
    height, width = size
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), np.uint8)
    scene = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC)
    streaks = np.random.default_rng((seed, number)).random((height // 8, width, 1)) > 0.98
    shown = np.roll(scene, -number, axis=1)[:, :width]
    return picture(np.where(streaks.repeat(8, axis=0), np.uint8(230), shown))


def picture(pixels: np.ndarray[Any, Any]) -> Image:
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="bgr8", step=3 * width)
    message.header.frame_id = "camera"
    message.data = array("B", pixels.tobytes())
    return message


def saved(folder: Path, name: str, **config: Any) -> Path:
    """Weights of an untrained network."""
    path = folder / f"{name}.safetensors"
    checkpoints.save(path, networks.create(name, **config), {})
    return path


# --- Benchmarks ------------------------------------------------------------------------------


def relay(folder: Path, frames: int) -> Figures:
    """Publish to answer, one frame at a time, in turns: relay, node, identity network."""
    weights = saved(folder, "identity")
    common = {"network.weights": weights, "engine.precision": "float32"}
    arms = {
        "relay": ("-c", RELAY, "--ros-args", "-r", "__ns:=/relay"),
        "bypass": derain({**common, "bypass.mode": "always"}, remap={"__ns": "/bypass"}),
        "identity": derain(common, remap={"__ns": "/identity"}),
    }
    trips: dict[str, list[float | None]] = {name: [] for name in arms}
    message = noise(FULL_HD)
    with ExitStack() as stack:
        bench = Bench(tuple(arms))
        stack.callback(bench.close)
        for command in arms.values():
            stack.enter_context(process(*command))
        bench.connected(networks=2)
        for number in range(frames + WARM_UP):
            for index, name in enumerate(arms):
                took = bench.trip(message, (number + 1) * 33_000_000, index)
                if number >= WARM_UP:
                    trips[name].append(took)
    return {"frames": frames, **_against_the_relay(trips)}


def live(
    folder: Path,
    frames: int,
    *,
    names: Sequence[str] = ("rainstream",),
    device: str = "auto",
    size: tuple[int, int] = (480, 640),
    rate: float = 15.0,
) -> Figures:
    """A relay and shipped networks, by turns, each behind a camera that waits for nobody."""
    arms = {"relay": ("-c", RELAY, "--ros-args", "-r", "__ns:=/relay")}
    for name in names:
        parameters = {"network.name": name, "engine.device": device}
        arms[name] = derain(parameters, remap={"__ns": f"/{name}"})
    trips: dict[str, list[float | None]] = {name: [] for name in arms}
    scene = [drive(size, number, seed=0) for number in range(30)]
    scene += scene[-2:0:-1]  # forwards and backwards, so that it can go on for ever
    a_turn = [scene[number % len(scene)] for number in range(frames // ROUNDS + WARM_UP)]
    with ExitStack() as stack:
        bench = Bench(tuple(arms))
        stack.callback(bench.close)
        for command in arms.values():
            stack.enter_context(process(*command))
        bench.connected(networks=len(names))
        for _ in range(ROUNDS):
            for index, name in enumerate(arms):
                trips[name] += bench.film(a_turn, rate, index)[WARM_UP:]
        bench.until(lambda: False, 2.5)  # two more reports
        status = list(bench.status.values())
    return {
        "frames": len(trips["relay"]),
        "size": f"{size[1]}x{size[0]}",
        "rate [Hz]": rate,
        "run on": sorted({f"{s['device']} in {s['precision']}" for s in status if "device" in s}),
        "uncleaned": sum(int(s[key]) for s in status for key in s if key.startswith("passed: ")),
        **_against_the_relay(trips),
    }


def _against_the_relay(trips: Mapping[str, Sequence[float | None]]) -> Figures:
    """Percentiles of the latency of each alternative, and how much of it exceeds the relay's."""
    figures: Figures = {
        "unanswered": {name: list(times).count(None) for name, times in trips.items()}
    }
    answered = {
        name: np.percentile([time for time in times if time is not None], PERCENTILES)
        for name, times in trips.items()
    }
    floor = answered["relay"]
    for name, times in answered.items():
        figures[f"{name}: median, p95, p99 [ms]"] = times.round(2).tolist()
        if name != "relay":
            figures[f"{name}: more than the relay's [ms]"] = (times - floor).round(2).tolist()
            figures[f"{name}: median over the relay's"] = round(float(times[0] / floor[0]), 2)
    return figures


def driver(folder: Path, frames: int, rate: int = 15) -> Figures:
    """What comes out of what a reliable driver sends, with and without the profile on its side."""
    named = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    bare = {name: value for name, value in os.environ.items() if name not in named}
    network = {"network.weights": checkpoints.resolve("rainstream_s"), "engine.device": "cpu"}
    figures: Figures = {}
    for size, what, parameters in (
        ((640, 480), "bypass", {"bypass.mode": "always"}),
        ((640, 480), "rainstream_s", network),
        (FULL_HD[::-1], "bypass", {"bypass.mode": "always"}),
    ):
        for side, environment in (("with profile", dict(os.environ)), ("without", bare)):
            bench = Bench(reliable=True)
            with process(*derain(parameters)):
                bench.connected(networks=int(what != "bypass"))
                command = [sys.executable, "-c", DRIVER, *map(str, (*size, rate, frames))]
                sending = subprocess.Popen(command, env=environment)
                offset = time.time() - time.perf_counter()
                bench.until(lambda sending=sending: sending.poll() is not None, PATIENCE_S)
                trips = [1e3 * (at + offset - at_ns / 1e9) for at_ns, at in bench.came[0].items()]
                figures[f"{size[0]}x{size[1]}, {what}, {side}"] = {
                    "sent": frames,
                    "came out": len(trips),
                    "median [ms]": round(float(np.median(trips)), 1) if trips else None,
                    "95 % [ms]": round(float(np.percentile(trips, 95)), 1) if trips else None,
                    "load": os.getloadavg()[0],
                }
            bench.close()
    return figures


def camera(folder: Path, frames: int, rate: float = 30.0) -> Figures:
    """A camera that waits for nobody; every frame is published, or dropped with a reason."""
    weights = saved(folder, "rainstream", channels=8, blocks=1)
    arms = {
        "bypass": {"bypass.mode": "always"},
        "small network": {"network.weights": weights, "safety.watchdog_s": 60.0},
    }
    figures: Figures = {}
    message = noise(FULL_HD)
    for name, parameters in arms.items():
        bench = Bench()
        with process(*derain(parameters)):
            bench.connected(networks=int(name != "bypass"))
            began = time.monotonic()
            for number in range(frames):
                codec.set_stamp(message.header, (number + 1) * round(1e9 / rate))
                bench.cameras[0].publish(message)
                due = began + (number + 1) / rate
                bench.until(lambda due=due: time.monotonic() >= due, 1.0)
            took = time.monotonic() - began
            figures[name] = {
                "sent": frames,
                "rate [Hz]": round(frames / took, 1),
                **_accounts(bench),
                "reached the subscriber": bench.count,
            }
        bench.close()
    return figures


def _accounts(bench: Bench) -> Figures:
    """The node's own counts, once all frames it received are accounted for."""

    def accounts() -> dict[str, int]:
        status = next((s for s in bench.status.values() if "received" in s), {})
        kept = ("received", "lost in transport", "published")
        return {k: int(v) for k, v in status.items() if k in kept or k.startswith("dropped: ")}

    def open_ones(counts: Mapping[str, int]) -> int:
        gone = sum(count for key, count in counts.items() if key.startswith("dropped: "))
        return counts.get("received", 0) - counts.get("published", 0) - gone

    def settled() -> bool:
        before = accounts()
        bench.until(lambda: False, 2.5)  # two more reports
        return accounts() == before and not open_ones(before)

    bench.until(settled, 30.0)
    counts = accounts()
    return {**counts, "unaccounted for": open_ones(counts)}


def cameras(folder: Path, frames: int, size: tuple[int, int] = (240, 320)) -> Figures:
    """The same frames through one node with four cameras and through four nodes."""
    names = ("front", "rear", "left", "right")
    weights = saved(folder, "rainstream", channels=16, blocks=2)
    common = {
        "network.weights": weights,
        "engine.precision": "float32",
        "stream.scene_cut": 0.0,
        "safety.watchdog_s": 60.0,
    }
    together = [derain({**common, "input.cameras": f"[{', '.join(names)}]"})]
    apart = [derain(common, remap={"__ns": f"/{name}"}) for name in names]
    results: dict[str, list[list[Image]]] = {}
    figures: Figures = {"frames of each camera": frames, "size": f"{size[1]}x{size[0]}"}
    for name, commands in (("one node", together), ("four nodes", apart)):
        results[name], times = _sets(commands, names, frames, size)
        figures[f"{name}: a set of four, median [ms]"] = round(float(np.median(times)), 1)
    differences = np.array(
        [
            np.abs(_pixels(one) - _pixels(four))
            for row, other in zip(*results.values(), strict=True)
            for one, four in zip(row, other, strict=True)
        ]
    )
    figures["largest difference of a value [of 255]"] = int(differences.max())
    figures["values that differ [%]"] = round(float(100 * (differences > 0).mean()), 4)
    return figures


def _sets(
    commands: list[tuple[str, ...]], names: tuple[str, ...], frames: int, size: tuple[int, int]
) -> tuple[list[list[Image]], list[float]]:
    """Answers to sets of one frame per camera, each sent when the previous one is answered."""
    bench = Bench(names, reliable=True)
    answers, times = [], []
    with ExitStack() as stack:
        for command in commands:
            stack.enter_context(process(*command))
        bench.connected(networks=len(commands))
        for number in range(frames):
            stamp_ns = (number + 1) * 33_000_000
            began = time.perf_counter()
            for index, publisher in enumerate(bench.cameras):
                message = drive(size, number, seed=index)
                codec.set_stamp(message.header, stamp_ns)
                publisher.publish(message)
            if not bench.until(lambda at=stamp_ns: all(at in a for a in bench.answers), 60.0):
                raise SystemExit("a frame was not answered within a minute")
            times.append(1e3 * (time.perf_counter() - began))
            answers.append([received.pop(stamp_ns) for received in bench.answers])
    bench.close()
    return answers, times[1:]


def _pixels(message: Image) -> np.ndarray[Any, Any]:
    return codec.decode(message).image.astype(int)


def soak(folder: Path, frames: int) -> Figures:
    """Small frames as fast as they are answered; a fitted line shows what grows."""
    weights = saved(folder, "rainstream", channels=8, blocks=1)
    parameters = {
        "network.weights": weights,
        "engine.threads": 1,
        "stream.scene_cut": 0.0,
        "stream.max_gap_s": 10.0,
    }
    bench = Bench()
    messages = [noise((48, 64), seed) for seed in range(8)]
    seen: list[tuple[float, int, int]] = []
    unanswered = 0
    with process(*derain(parameters)) as node:
        bench.connected(networks=1)
        began = time.monotonic()
        for number in range(frames):
            took = bench.trip(messages[number % 8], (number + 1) * 33_000_000)
            unanswered += took is None
            if number % max(1, frames // 200) == 0:
                seen.append(_footprint(node.pid))
        took_s = time.monotonic() - began
    bench.close()
    warm = seen[len(seen) // 10 :]
    at = np.linspace(0.1, 1.0, len(warm)) * frames / FRAMES_AN_HOUR
    slope = float(np.polyfit(at, [mib for mib, _, _ in warm], 1)[0])
    return {
        "frames": frames,
        "unanswered": unanswered,
        "frames a second": round(frames / took_s),
        "resident, after warm-up and at the end [MiB]": [
            round(warm[0][0], 1),
            round(warm[-1][0], 1),
        ],
        f"slope [MiB / {FRAMES_AN_HOUR} frames]": round(slope, 2),
        "threads, least and most": [min(t for _, t, _ in warm), max(t for _, t, _ in warm)],
        "open files, least and most": [min(f for _, _, f in warm), max(f for _, _, f in warm)],
    }


def _footprint(pid: int) -> tuple[float, int, int]:
    """Resident MiB, threads and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    threads, files = (len(list(Path(f"/proc/{pid}/{kind}").iterdir())) for kind in ("task", "fd"))
    return pages * os.sysconf("SC_PAGESIZE") / 2**20, threads, files


BENCHMARKS: dict[str, tuple[Callable[[Path, int], Figures], int]] = {
    "relay": (relay, 300),
    "live": (live, 900),
    "driver": (driver, 300),
    "camera": (camera, 300),
    "cameras": (cameras, 60),
    "soak": (soak, FRAMES_AN_HOUR),
}
"""Each with its usual number of frames."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--frames", type=int, help="instead of the usual number")
    for_live = parser.add_argument_group("live")
    for_live.add_argument(
        "--networks", default="rainstream", metavar="NAMES", help="separated by commas"
    )
    for_live.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    for_live.add_argument("--size", default="640x480", metavar="WxH")
    for_live.add_argument("--rate", type=float, default=15.0, metavar="HZ")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    width, height = map(int, args.size.split("x"))
    asked = partial(
        live,
        names=args.networks.split(","),
        device=args.device,
        size=(height, width),
        rate=args.rate,
    )
    benchmarks = {**BENCHMARKS, "live": (asked, BENCHMARKS["live"][1])}
    rclpy.init()
    results: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or BENCHMARKS:
            benchmark, usual = benchmarks[name]
            results[name] = benchmark(Path(folder), args.frames or usual)
            print(name, flush=True)
            for what, figure in results[name].items():
                print(f"  {what}: {figure}", flush=True)
    rclpy.shutdown()
    if args.json:
        write_json(args.json, {"results": results, "manifest": manifest()})


if __name__ == "__main__":
    main()
