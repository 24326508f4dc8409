"""Runs the attacks, for hours if asked to, and writes down what they measured.

    make soak
    make soak SOAK="messages storm --seed 7 --scale 0.1"

The attacks are those of the fast tests, with larger numbers. At scale 1 all of them together take
some two hours. The exit code is 1 if one of them succeeded.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import tempfile
import time
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from fuzz.effort import Effort, Figures

ATTACKS = ("messages", "storm", "signals", "kills", "disk", "files", "respawn", "steady")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--seed", type=int, default=1, help="the same one attacks the same way")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual numbers")
    parser.add_argument("--domain", type=int, default=1, help="the first attack's ROS_DOMAIN_ID")
    parser.add_argument("--output", type=Path, default=Path("soak.md"), help="for the figures")
    options = parser.parse_args()
    if unknown := set(options.attacks) - set(ATTACKS):
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    parts, failed = [_heading(options.seed, options.scale)], False
    for number, name in enumerate(options.attacks or ATTACKS):
        figures, error = _attack(name, options.seed, options.scale, domain=options.domain + number)
        parts.append(_section(name, figures, error))
        print(parts[-1], flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("\n".join(parts))  # after each attack: the next may take an hour
        failed = failed or bool(error)
    return int(failed)


def _attack(name: str, seed: int, scale: float, *, domain: int) -> tuple[Figures, str]:
    module = importlib.import_module(f"fuzz.{name}")
    count = max(1, round(module.LONG * scale))
    began = time.monotonic()
    figures: Figures = {}
    error = ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            figures = module.attack(Effort(seed, count, Path(folder), domain))
        except Exception:  # noqa: BLE001 - the other attacks still run
            error = traceback.format_exc()
    return {**figures, "took [s]": round(time.monotonic() - began)}, error


def _heading(seed: int, scale: float) -> str:
    now = datetime.now(timezone.utc).date().isoformat()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    return (
        f"# Soak of {now}\n\nSeed {seed}, scale {scale:g}, {platform.machine()} with {cores} "
        f"cores, load {load:.1f} at the start.\n"
    )


def _section(name: str, figures: Mapping[str, object], error: str) -> str:
    rows = [f"| {key} | {value} |" for key, value in figures.items()]
    failure = f"\nFAILED\n\n```\n{error}```\n" if error else ""
    return "\n".join([f"## {name}", "", "| | |", "|---|---|", *rows, ""]) + failure


if __name__ == "__main__":
    raise SystemExit(main())
