"""Measures networks on this machine: milliseconds per frame, computation, weights, peak memory.

  rain-removal bench --model rainstream prenet:published.pth --engine all \\
      --size 640x480,1280x720 --cameras 1,4 --plot bench.svg

Every combination of the given lists (separated by blanks or commas) is measured. Those of one size
take turns, so that other load affects them alike. Memory is measured in a separate process for
each. A time is that of one step, which derains a frame of every camera, from bytes to bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from rain_removal_ros.cli._options import (
    add_json,
    add_several,
    add_shared,
    at_least,
    output_file,
    rename,
    size,
)

if TYPE_CHECKING:
    from rain_removal_ros.benchmark import Case, Measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models = add_several(
        parser,
        "--model",
        str,
        "NAME_OR_FILE",
        "networks, weights by name or file, or NETWORK:FILE for weights published elsewhere "
        "(default: all networks)",
    )
    sizes = add_several(
        parser, "--size", size, "WxH", "of the frames (default: 640x480)", default=(640, 480)
    )
    engines, devices, precisions, _ = add_shared(
        parser, "engine", "device", "precision", "stages", several=True
    )
    for old, now in (
        ("--networks", models),
        ("--sizes", sizes),
        ("--engines", engines),
        ("--devices", devices),
        ("--precisions", precisions),
    ):
        rename(parser, old, now)
    add_several(
        parser,
        "--cameras",
        at_least(1),
        "N",
        "cameras in one batch (default: 1)",
        default=1,
    )
    add_shared(parser, "threads")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="let torch compile the networks: a minute or more for each size and number of cameras",
    )
    parser.add_argument(
        "--repeat",
        type=at_least(1),
        default=20,
        metavar="N",
        help="most rounds for each configuration (default: 20)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="no more rounds for a configuration after this time (default: 10)",
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="networks without weights (default: with the weights that ship, if there are any)",
    )
    add_json(parser)
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="also draw times against pixels, as SVG"
    )


def run(args: argparse.Namespace) -> int:
    import sys

    from rain_removal_ros import benchmark, engines, networks
    from rain_removal_ros.manifest import manifest
    from rain_removal_ros.runtime.files import write_json, write_whole

    _check_engines(args)
    names = list(args.engine)
    wanted = benchmark.cases(
        args.model or networks.available(),
        engines=engines.NAMES if names == ["all"] else names,
        devices=args.device,
        precisions=args.precision,
        stages=args.stages,
        sizes=args.size,
        cameras=args.cameras,
        threads=args.threads,
        compile=args.compile,
        weights=_no_weights if args.untrained else _shipped,
    )
    said = _progress if sys.stderr.isatty() else _nothing
    measured, failures = benchmark.measure(
        wanted, benchmark.Effort(args.repeat, args.seconds), said=said
    )
    if measured:
        _print_table(measured)
    for case, reason in failures:
        print(f"rain-removal bench: {case}: {' '.join(reason.split())}", file=sys.stderr)
    if args.plot and measured:
        write_whole(args.plot, _plot(measured))
    if args.json:
        write_json(
            args.json,
            {
                "manifest": manifest(),
                "results": [dataclasses.asdict(row) for row in measured],
                "failures": [_failure(case, reason) for case, reason in failures],
            },
        )
    return 1 if failures else 0


def _check_engines(args: argparse.Namespace) -> None:
    """Refuse what no engine can be, before the first has taken its time."""
    from rain_removal_ros.settings import EngineSettings, build

    for flag, values in (
        ("name", [name for name in args.engine if name != "all"]),
        ("device", args.device),
        ("precision", args.precision),
    ):
        for value in values:
            build(EngineSettings, {flag: value}, where=f"--{'engine' if flag == 'name' else flag}")


def _shipped(name: str) -> str:
    from rain_removal_ros import checkpoints

    return str(checkpoints.find(name) or "")


def _no_weights(name: str) -> str:
    return ""


def _progress(line: str) -> None:
    """One line, overwritten again and again."""
    import sys

    print(f"\r{line[:100]:<100}\r", end="", file=sys.stderr, flush=True)


def _nothing(line: str) -> None:
    """No progress, if nobody watches."""


def _failure(case: Case, reason: str) -> dict[str, Any]:
    return {**dataclasses.asdict(case), "error": reason}


def _plot(measured: list[Measurement]) -> str:
    """Time against the pixels of all cameras; linear growth rises like the diagonal."""
    from rain_removal_ros.report import line_drawing

    lines: dict[str, list[tuple[float, float]]] = {}
    for row in measured:
        name = f"{row.model}, {row.engine}, {row.precision}"
        if row.compile:
            name += ", compiled"
        if row.stages > 1:
            name += f", {row.stages} stages"
        megapixels = row.width * row.height * row.cameras / 1e6
        lines.setdefault(name, []).append((megapixels, row.ms_median))
    return line_drawing(
        {name: sorted(points) for name, points in lines.items()},
        title="Time of a step",
        x="megapixels of all cameras",
        y="ms",
    )


_TITLES = (
    "network",
    "engine",
    "device",
    "precision",
    "stages",
    "size",
    "cameras",
    "ms",
    "ms p95",
    "GMACs",
    "parameters",
    "peak MiB",
)
_TEXTS = frozenset({"network", "engine", "device", "precision"})


def _print_table(measured: list[Measurement]) -> None:
    rows = [_TITLES, *map(_cells, measured)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if title in _TEXTS else cell.rjust(width)
            for title, cell, width in zip(_TITLES, row, widths, strict=True)
        )
        print("  ".join(cells).rstrip())


def _cells(row: Measurement) -> tuple[str, ...]:
    return (
        row.model,
        f"{row.engine}, compiled" if row.compile else row.engine,
        row.device,
        row.precision,
        str(row.stages),
        f"{row.width}x{row.height}",
        str(row.cameras),
        f"{row.ms_median:.1f}",
        f"{row.ms_p95:.1f}",
        f"{row.gmacs:.1f}",
        f"{row.parameters:,}",
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
    )
