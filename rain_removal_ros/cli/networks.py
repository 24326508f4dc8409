"""Lists the networks: what each costs and does, and whether its weights are installed."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rain_removal_ros.cli._options import add_json

_WIDTH, _HEIGHT = 640, 480


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
    from rain_removal_ros import checkpoints, networks
    from rain_removal_ros.networks import _cost

    network = networks.create(name)
    return {
        "network": name,
        "parameters": _cost.parameters(network),
        "macs": _cost.macs(network, width=_WIDTH, height=_HEIGHT),
        "width": _WIDTH,
        "height": _HEIGHT,
        "stages": network.stages,
        "scale": network.scale,
        "recurrent": network.facts.recurrent,
        "weights": [str(path) for path in weights],
        "cautions": {path.stem: asdict(checkpoints.cautions_of(path)) for path in weights},
        "paper": network.facts.paper,
    }


def _print_table(results: list[dict[str, Any]]) -> None:
    head = ("network", "parameters", "GMACs", "stages", "scale", "recurrent", "weights", "paper")
    rows = [
        (
            row["network"],
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e9:.1f}",
            str(row["stages"]),
            str(row["scale"]),
            "yes" if row["recurrent"] else "no",
            ", ".join(Path(path).stem for path in row["weights"]) or "no",
            row["paper"],
        )
        for row in results
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    numbers = {"parameters", "GMACs", "stages", "scale"}
    for row in [head, *rows]:
        cells = (
            cell.rjust(width) if title in numbers else cell.ljust(width)
            for title, cell, width in zip(head, row, widths, strict=True)
        )
        print("  ".join(cells).rstrip())
    print(f"\nGMACs: 10^9 multiply-accumulates for a frame of {_WIDTH}x{_HEIGHT}, all stages.")
