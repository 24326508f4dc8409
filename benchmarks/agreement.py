"""How far lower precision, compiled code and other engines are from torch in float32, uncompiled.

    python benchmarks/agreement.py [--device cuda] [--json FILE]

A simulated drive in drawn rain, its state carried from the first frame to the last, so that small
errors have the time to grow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rain_removal_ros import engines
from rain_removal_ros.data.rain import render_frames, sample
from rain_removal_ros.errors import RainRemovalError
from rain_removal_ros.frames import Image
from rain_removal_ros.manifest import manifest
from rain_removal_ros.metrics import luma, psnr
from rain_removal_ros.runtime.allocator import keep_freed_memory
from rain_removal_ros.runtime.files import write_json
from rain_removal_ros.settings import EngineSettings, NetworkSettings
from rain_removal_ros.simulation.drive import Drive

FEWEST_DB = 50.0
"""Of a way's likeness to the reference. Bfloat16 on a CPU comes to about 60 on such clips."""
WAYS: dict[str, dict[str, Any]] = {
    "torch, float32": {"precision": "float32"},
    "torch, float32, on the CPU": {"precision": "float32", "device": "cpu"},
    "torch, float32, compiled": {"precision": "float32", "compile": True},
    "torch, float16": {"precision": "float16"},
    "torch, float16, compiled": {"precision": "float16", "compile": True},
    "torch, bfloat16": {"precision": "bfloat16"},
    "onnxruntime, float32": {"name": "onnxruntime", "precision": "float32"},
}
"""The first is what the others are held against."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="rainstream_s,rainstream,rainstream_l", metavar="NAMES")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--size", default="640x480", metavar="WxH")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    keep_freed_memory()
    width, height = map(int, args.size.split("x"))
    rainy, clean = drive(width, height, args.frames)
    rows = []
    for model in args.models.split(","):
        for row in compared(model, args.device, rainy, clean):
            rows.append(row)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if args.json:
        results = {"size": args.size, "frames": args.frames, "rows": rows}
        write_json(args.json, {"manifest": manifest(), "results": results})


def drive(width: int, height: int, frames: int) -> tuple[Image, Image]:
    """A clip in rain and without, T x H x W x 3."""
    street = Drive(1, width=width, height=height)
    clean = np.stack([street.frame(index).image for index in range(frames)])
    rain = sample(np.random.default_rng(1), severity=0.6)
    return render_frames(clean, rain), clean


def compared(
    model: str, device: str, rainy: Sequence[Image], clean: Sequence[Image]
) -> Iterator[Row]:
    """A line for every way; one that cannot be had says why."""
    reference: list[Image] = []
    for label, how in WAYS.items():
        settings = EngineSettings(**{"name": "torch", "device": device, **how})
        try:
            made, times = derained(model, settings, rainy)
        except RainRemovalError as error:
            yield {"model": model, "way": label, "error": " ".join(str(error).split())}
            continue
        reference = reference or made
        yield {"model": model, "way": label, **figures(made, reference, clean), **took(times)}


def derained(
    model: str, settings: EngineSettings, rainy: Sequence[Image]
) -> tuple[list[Image], list[float]]:
    """The clip, and the milliseconds that each frame took."""
    engine = engines.load(NetworkSettings(name=model), settings)
    engine.step([rainy[0]], [None])  # compiles, allocates
    state: Any = None
    made, times = [], []
    for frame in rainy:
        began = time.perf_counter()
        (result,) = engine.step([frame], [state])
        times.append(1000 * (time.perf_counter() - began))
        made.append(result.image)
        state = result.state
    return made, times


def figures(made: list[Image], reference: list[Image], clean: Sequence[Image]) -> Row:
    """Differences in grey levels; likeness to the reference, and what is lost against the truth."""
    off = np.abs(np.stack(made).astype(np.int16) - np.stack(reference))
    lost = likeness(reference, clean) - likeness(made, clean)
    alike = psnr(np.stack(made), np.stack(reference))
    return {
        "most": int(off.max()),
        "mean": round(float(off.mean()), 4),
        "alike_db": round(alike, 1),
        "lost_db": round(lost, 3),
        "agrees": alike >= FEWEST_DB,
    }


def likeness(made: Sequence[Image], clean: Sequence[Image]) -> float:
    """Mean PSNR of Y."""
    pairs = zip(made, clean, strict=True)
    return float(np.mean([psnr(luma(one), luma(other)) for one, other in pairs]))


def took(times: Sequence[float]) -> Row:
    return {"ms_median": round(statistics.median(times[len(times) > 1 :]), 3)}


if __name__ == "__main__":
    main()
