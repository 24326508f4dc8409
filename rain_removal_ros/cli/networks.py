"""Lists the networks: what each costs and does, and whether its weights are installed."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rain_removal_ros.cli._options import add_json

_COLUMNS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros import checkpoints, networks
    from rain_removal_ros.manifest import manifest
    from rain_removal_ros.runtime import native
    from rain_removal_ros.runtime.files import write_json

    weights = {path: checkpoints.name_of(path) for path in checkpoints.shipped()}
    results = [
        _describe(name, [path for path, network in weights.items() if network == name])
        for name in networks.available()
    ]
    _print_table(results)
    for path in weights:
        for line in checkpoints.cautions_of(path).lines(path.stem):
            print(line)
    if advice := native.advice():
        print(f"\nThis package was {advice}.")
    if args.json:
        write_json(args.json, {"manifest": manifest(), "results": results})


def _describe(name: str, weights: list[Path]) -> dict[str, Any]:
    from rain_removal_ros import checkpoints
    from rain_removal_ros.networks import _described

    return {
        "network": name,
        **_described.describe(name),
        "weights": [str(path) for path in weights],
        "cautions": {path.stem: asdict(checkpoints.cautions_of(path)) for path in weights},
    }


def _print_table(results: list[dict[str, Any]]) -> None:
    head = ("network", "parameters", "GMACs", "stages", "scale", "recurrent", "weights")
    rows: list[tuple[str, ...]] = [
        (
            row["network"],
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e9:.1f}",
            str(row["stages"]),
            str(row["scale"]),
            "yes" if row["recurrent"] else "no",
            ", ".join(Path(path).stem for path in row["weights"]) or "no",
        )
        for row in results
    ]
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    numbers = {"parameters", "GMACs", "stages", "scale"}
    for line in lines:
        cells = [
            cell.rjust(width) if title in numbers else cell.ljust(width)
            for title, cell, width in zip(head[:-1], line[:-1], widths, strict=True)
        ]
        print(_folded("  ".join(cells) + "  ", line[-1]))
    size = {(row["width"], row["height"]) for row in results}
    sizes = ", ".join(f"{width}x{height}" for width, height in sorted(size))
    print(f"\nGMACs: 10^9 multiply-accumulates for a frame of {sizes}, all stages.\n")
    for row in results:
        print(_folded(f"{row['network']:<{widths[0]}}  ", row["paper"]))


def _folded(start: str, text: str) -> str:
    """A line, and below the end of its start what does not fit into it."""
    below = " " * len(start)
    return textwrap.fill(text, _COLUMNS, initial_indent=start, subsequent_indent=below)
