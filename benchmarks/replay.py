"""What replay costs besides the network, for raw 640x480 images, compared with a rosbags copy.

python benchmarks/replay.py [FRAMES]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from rain_removal_ros import codec
from rain_removal_ros.bags import create
from rain_removal_ros.bags.messages import IMAGE, encoded, header, new, standard
from rain_removal_ros.bags.replaying import replay
from rain_removal_ros.engines import Derained, EngineInfo
from rain_removal_ros.runtime.allocator import keep_freed_memory
from rain_removal_ros.settings import Settings

WIDTH, HEIGHT, ROUNDS = 640, 480, 5


class HandsOn:
    """An engine that only copies."""

    info = EngineInfo("none", "none", "cpu", "uint8")
    seen = np.zeros((HEIGHT, WIDTH), np.uint8)

    def step(
        self,
        images: Sequence[np.ndarray],
        states: Sequence[Any],
        *,
        stages: int = 0,
        attention: bool = True,
        into: Sequence[np.ndarray | None] | None = None,
    ) -> list[Derained]:
        (image,), (target,) = images, into or (None,)
        assert target is not None
        target[...] = image
        return [Derained(target, self.seen, 0.5, None)]


def main() -> None:
    keep_freed_memory()
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = recorded(folder / "source", frames)
        works: dict[str, Callable[[Path], object]] = {
            "bare copy": lambda out: bare_copy(source, out),
            "replay": lambda out: replay(source, out, HandsOn(), Settings()),
        }
        rounds: dict[str, list[tuple[float, float]]] = {what: [] for what in works}
        for _ in range(ROUNDS):
            for what, work in works.items():
                out = folder / "out"
                rounds[what].append(timed(lambda work=work, out=out: work(out)))
                shutil.rmtree(out)
        walls = {}
        for what, times in rounds.items():
            wall, cpu = (1e3 * median(column) / frames for column in zip(*times, strict=True))
            walls[what] = wall
            print(f"{what}: {wall:.2f} ms a frame, {cpu:.2f} ms of the processor")
        print(f"replay takes {walls['replay'] / walls['bare copy']:.1f} times the copy")


def recorded(path: Path, frames: int) -> Path:
    """A recording of one camera."""
    channel = standard("/camera/image_raw", IMAGE)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(8)]
    with create(path) as output:
        output.add(channel)
        for index in range(frames):
            stamp_ns = (1 + index) * 33_333_333
            fields = codec.image_fields(pictures[index % 8], encoding="rgb8")
            message = new(IMAGE, header=header(stamp_ns, "camera"), **fields)
            output.write(channel, stamp_ns, encoded(message))
    return path


def bare_copy(source: Path, out: Path) -> None:
    """Reading and writing only, by rosbags."""
    writer = Writer(out, version=9, storage_plugin=StoragePlugin.MCAP)
    with Reader(source) as reader, writer:
        (connection,) = (
            writer.add_connection(c.topic, c.msgtype, msgdef=c.msgdef.data, rihs01=c.digest or "-")
            for c in reader.connections
        )
        for _, stamp_ns, data in reader.messages():
            writer.write(connection, stamp_ns, data)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
