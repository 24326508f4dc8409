"""Trains rainstream (M) from nothing for some minutes, as a campaign, and says how fast that went.

    python benchmarks/training.py [--minutes 5] [--json FILE]

It trains on streets that it draws, so it needs no data and is the same work everywhere. The same
command goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import yaml

from rain_removal_ros.manifest import manifest
from rain_removal_ros.runtime.files import write_json
from rain_removal_ros.simulation.drive import Drive
from rain_removal_ros.training import campaign

RECIPE: dict[str, Any] = {
    "network": {"name": "rainstream"},
    "precision": "bfloat16",
    "clip_norm": 1.0,
    "ema": 0.99,
    "optimiser": {"rate": 0.001},
    "schedule": {"name": "constant", "warmup_steps": 100},
    "log_every": 5,
    "validate_every": 500,
    "save_every": 250,
    "data": {
        "frames": 6,
        "still_share": 0.5,
        "sources": [{"path": "streets", "kind": "clean", "skip_every": 8}],
    },
    "validation": [{"name": "held_out", "path": "streets", "kind": "clean", "only_every": 8}],
}
WIDTH, HEIGHT = 640, 360


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=10_000_000, help="after which it is done")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument("--batch", type=int, default=8, help="clips of a step")
    parser.add_argument("--streets", type=int, default=24, help="each is drawn twice")
    parser.add_argument("--folder", type=Path, default=Path("runs/training_benchmark"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    args = parser.parse_args()
    folder = args.folder.absolute()
    draw(folder / "streets", args.streets)
    recipe = settings(args)
    write_campaign(folder, recipe)
    before = campaign.progress(folder / "runs/recipe")
    program = [sys.executable, "-m", "rain_removal_ros", "campaign", "run"]
    where = [str(folder / "campaign.yaml"), "--runs", str(folder / "runs")]
    subprocess.run([*program, *where, "--max-minutes", str(args.minutes)], check=True)
    results = figures(folder / "runs/recipe", before, recipe)
    for name, value in results.items():
        print(f"  {name}: {value}")
    if args.json:
        write_json(args.json, {"manifest": manifest(), "results": results})


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The recipe, at the size asked for."""
    data = {
        **RECIPE["data"],
        "crop": args.crop,
        "batch": args.batch,
        # One process computes; the others draw rain.
        "workers": max(1, (os.cpu_count() or 2) - 1),
    }
    return {**RECIPE, "steps": args.steps, "device": args.device, "data": data}


def draw(folder: Path, streets: int) -> None:
    """Two pictures of each street, those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(streets):
        missing = [at for at in (60, 180) if not (folder / name(seed, at)).exists()]
        street = Drive(seed, width=WIDTH, height=HEIGHT) if missing else None
        for at in missing:
            assert street is not None
            picture = cv2.cvtColor(street.frame(at).image, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / name(seed, at)), picture)


def name(seed: int, at: int) -> str:
    return f"{seed:03d}_{at:03d}.png"


def write_campaign(folder: Path, recipe: dict[str, Any]) -> None:
    lanes = [[{"recipe": "recipe.yaml", "hours": 1000}]]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "campaign.yaml").write_text(
        yaml.safe_dump({"data_root": str(folder), "lanes": lanes})
    )


def figures(run: Path, before: campaign.Progress, recipe: dict[str, Any]) -> dict[str, Any]:
    """How far and how fast this call came, and where the run is."""
    after = campaign.progress(run)
    steps, seconds = after.step - before.step, 3600 * (after.hours - before.hours)
    if steps <= 0:
        raise SystemExit(f"no step was logged: {campaign.last_line(run / 'output.log')}")
    data = recipe["data"]
    pixels = data["crop"] ** 2 * data["frames"] * data["batch"]
    losses = [line["log_l1"] for line in logged(run) if "log_l1" in line]
    found = {
        "steps": steps,
        "steps in all": after.step,
        "steps a second": round(steps / seconds, 2),
        "megapixels a second": round(pixels * steps / seconds / 1e6, 2),
        "log_l1, at first and at last": [losses[0], losses[-1]],
    }
    for key, value in after.values.items():
        if key in ("held_out/psnr", "held_out/gain"):
            found[f"{key} [dB]"] = value
    return found


def logged(run: Path) -> Iterator[dict[str, Any]]:
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


if __name__ == "__main__":
    main()
