"""Measures networks on this machine: milliseconds per frame, computation, weights, peak memory.

  rain-removal bench --networks rainstream prenet:published.pth --engines all \\
      --sizes 640x480,1280x720 --cameras 1,4 --plot bench.svg

Every combination of the given lists (separated by blanks or commas) is measured. Those of one size
take turns, so that other load affects them alike. Memory is measured in a separate process for
each. A time is that of one step, which derains a frame of every camera, from bytes to bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros.cli._options import add_json

if TYPE_CHECKING:
    from rain_removal_ros.benchmark import Case, Measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_list(
        parser,
        "networks",
        str,
        [],
        "NAME",
        "networks, weight files, or NETWORK:FILE for weights published elsewhere (default: all "
        "networks)",
    )
    _add_list(parser, "sizes", _size, [(640, 480)], "WxH", "sizes of the frames (default: 640x480)")
    for name, what in (
        ("engines", "what runs the network: auto, torch, onnxruntime, openvino, or all of these"),
        ("devices", "auto, cpu, cuda or cuda:N"),
        ("precisions", "auto, float32, bfloat16, float16"),
    ):
        _add_list(parser, name, str, ["auto"], "NAME", f"{what} (default: auto)")
    _add_list(
        parser,
        "stages",
        _at_least(0),
        [0],
        "N",
        "passes over each frame; 0, the default, is the network's own number",
    )
    _add_list(
        parser, "cameras", _at_least(1), [1], "N", "cameras derained in one batch (default: 1)"
    )
    parser.add_argument(
        "--threads",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="CPU threads of every engine; 0, the default, for as many as cores",
    )
    parser.add_argument(
        "--repeat",
        type=_at_least(1),
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
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw times against pixels, as SVG"
    )


def _add_list(
    parser: argparse.ArgumentParser,
    name: str,
    kind: Callable[[str], Any],
    default: list[Any],
    metavar: str,
    help: str,
) -> None:
    """A flag that takes several values, with blanks or commas between them."""

    def items(text: str) -> list[Any]:
        return [kind(item) for item in text.split(",") if item]

    parser.add_argument(
        f"--{name}", nargs="+", type=items, default=[default], metavar=metavar, help=help
    )


def run(args: argparse.Namespace) -> int:
    import sys

    from rain_removal_ros import benchmark, engines, networks
    from rain_removal_ros.manifest import manifest
    from rain_removal_ros.runtime.files import write_json, write_whole

    names = _flat(args.engines)
    wanted = benchmark.cases(
        _flat(args.networks) or networks.available(),
        engines=engines.NAMES if names == ["all"] else names,
        devices=_flat(args.devices),
        precisions=_flat(args.precisions),
        stages=_flat(args.stages),
        sizes=_flat(args.sizes),
        cameras=_flat(args.cameras),
        threads=args.threads,
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


def _size(text: str) -> tuple[int, int]:
    """``640x480`` as width and height."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 640x480")
    return int(width), int(height)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} on")
        return int(text)

    return number


def _flat(lists: Iterable[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))


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


def _plot(measured: list[Measured]) -> str:
    """Times against the pixels of all cameras: what grows linearly with them rises like the
    diagonal."""
    from rain_removal_ros.report import line_drawing

    lines: dict[str, list[tuple[float, float]]] = {}
    for row in measured:
        name = f"{row.model}, {row.engine}, {row.precision}"
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
        row.model,
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
