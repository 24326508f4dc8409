"""Times networks on this machine: milliseconds a frame, work, weights and peak memory.

Every combination of the lists given is measured. All take turns, so that what else the machine
does hits them alike; memory is measured in a process of its own for each. Times are of one step,
which cleans a frame of every camera, from bytes to bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from rain_removal_ros.cli._options import add_json

if TYPE_CHECKING:
    from rain_removal_ros.benchmark import Case, Measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--networks", nargs="+", default=[], metavar="NAME", help="networks (default: all)"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_size,
        default=[(640, 480)],
        metavar="WxH",
        help="sizes of the frames (default: 640x480)",
    )
    for name, what in (
        ("engines", "what runs the network: auto, torch, onnxruntime, openvino"),
        ("devices", "auto, cpu, cuda or cuda:N"),
        ("precisions", "auto, float32, bfloat16, float16"),
    ):
        parser.add_argument(
            f"--{name}", nargs="+", default=["auto"], metavar="NAME", help=f"{what} (default: auto)"
        )
    parser.add_argument(
        "--stages",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="passes over each frame; 0, the default, is the network's own number",
    )
    parser.add_argument(
        "--cameras",
        nargs="+",
        type=_at_least_one,
        default=[1],
        metavar="N",
        help="cameras cleaned in one batch (default: 1)",
    )
    parser.add_argument(
        "--repeat",
        type=_at_least_one,
        default=20,
        metavar="N",
        help="times each is measured, at most (default: 20)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="what has run so long is measured no further, however often that was (default: 10)",
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="don't look for weights; without this, networks take those that ship, if any do",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import sys

    from rain_removal_ros import benchmark, networks
    from rain_removal_ros.manifest import manifest, write_json

    for name in args.networks:
        networks.module(name)  # a mistyped name is to fail before any work is done
    wanted = benchmark.cases(
        args.networks or networks.available(),
        engines=args.engines,
        devices=args.devices,
        precisions=args.precisions,
        stages=args.stages,
        sizes=args.sizes,
        cameras=args.cameras,
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


def _size(text: str) -> tuple[int, int]:
    """``640x480`` as width and height."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 640x480")
    return int(width), int(height)


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _shipped(name: str) -> str:
    from rain_removal_ros import checkpoints

    return str(checkpoints.find(name) or "")


def _no_weights(name: str) -> str:
    return ""


def _progress(line: str) -> None:
    """One line, written over and over."""
    import sys

    print(f"\r{line[:100]:<100}\r", end="", file=sys.stderr, flush=True)


def _nothing(line: str) -> None:
    """What is said where nobody watches."""


def _failure(case: Case, reason: str) -> dict[str, Any]:
    return {**dataclasses.asdict(case), "error": reason}


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


def _print_table(measured: list[Measured]) -> None:
    rows = [_TITLES, *map(_cells, measured)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if title in _TEXTS else cell.rjust(width)
            for title, cell, width in zip(_TITLES, row, widths, strict=True)
        )
        print("  ".join(cells).rstrip())


def _cells(row: Measured) -> tuple[str, ...]:
    return (
        row.network,
        row.engine,
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
