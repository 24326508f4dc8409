"""Compares a candidate model with the one that ships, on the board, and says whether to ship it.

  rain-removal board runs/m/last.safetensors --data ../data --quick

docs/evaluation.md describes what is measured; the rules are in evaluation/board/rules.py. The
shipped model's figures are cached; intervals are from paired draws. A model that ships already is
measured alone. Exits with 1 if the candidate should not ship.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rain_removal_ros.cli._options import add_json, add_shared, engine_settings, output_file

if TYPE_CHECKING:
    from rain_removal_ros.evaluation.board import Measured
    from rain_removal_ros.evaluation.board.rules import Reading, Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "candidate", metavar="CANDIDATE", help="a weight file, or the name of weights that ship"
    )
    parser.add_argument(
        "--shipped",
        metavar="NAME",
        help="what to compare it with (default: what ships of the same network and size)",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of the data sets"
    )
    parser.add_argument(
        "--only", default="", metavar="PARTS", help="parts, separated by commas (default: all)"
    )
    less = parser.add_mutually_exclusive_group()
    less.add_argument(
        "--quick",
        dest="extent",
        action="store_const",
        const="quick",
        help="measure a quarter, to check on a training run",
    )
    less.add_argument(
        "--brief",
        dest="extent",
        action="store_const",
        const="brief",
        help="measure an eighth, for networks that take seconds per frame",
    )
    add_shared(parser, "device", "precision", device="cpu", precision="bfloat16")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="earlier measurements (default: user's cache)"
    )
    add_json(parser)
    parser.add_argument(
        "--markdown", type=output_file, metavar="FILE", help="also write the table to FILE"
    )
    parser.add_argument(
        "--sheet",
        type=output_file,
        metavar="FILE",
        help="also draw some strokes, before and after, as JPEG",
    )
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="CHECKOUT",
        help="write the candidate's marks to this checkout: benchmarks/results/board, "
        "docs/results.md and its card",
    )


def run(args: argparse.Namespace) -> int:
    import sys

    from rain_removal_ros.evaluation import board
    from rain_removal_ros.evaluation.board import rules
    from rain_removal_ros.evaluation.board.publishing import publish
    from rain_removal_ros.evaluation.board.sheet import stroke_sheet
    from rain_removal_ros.runtime.files import cache_folder, write_json, write_whole

    def said(line: str) -> None:
        print(line, file=sys.stderr)

    extents = {extent.name: extent for extent in (board.FULL, board.QUICK, board.BRIEF)}
    extent = extents[args.extent or "full"]
    setup = board.Setup(data=args.data, extent=extent, cache=args.cache or cache_folder("board"))
    parts = board.choose(args.only, extent)
    rival = args.shipped or board.counterpart(args.candidate)
    # One thread: two that wait for each other are slower than one on a shared machine.
    candidate, shipped = board.compare(
        args.candidate,
        rival,
        setup,
        parts=parts,
        engine=engine_settings(args, name="torch", threads=1),
        said=said,
    )
    readings = rules.read(candidate.marks, shipped.marks)
    verdict = rules.judge(readings, complete=extent is board.FULL and parts == extent.parts)
    shown = _shown(candidate, shipped, readings, verdict)
    print(shown, end="")
    if args.json:
        write_json(args.json, board.as_json(candidate, shipped, extent, verdict))
    if args.markdown:
        write_whole(args.markdown, shown)
    if args.sheet:
        models = dict.fromkeys((shipped.model, candidate.model))
        stroke_sheet(list(models), args.sheet)
    if args.publish:
        for path in publish(candidate, extent, args.publish):
            said(f"written: {path}")
    return 0 if verdict.ships or candidate is shipped else 1


def _shown(
    candidate: Measured, shipped: Measured, readings: list[Reading], verdict: Verdict
) -> str:
    from rain_removal_ros.evaluation.board import tables

    if candidate is shipped:
        known = {name: mark.as_json() for name, mark in candidate.marks.items()}
        return f"{tables.single(candidate.model.model, known)}\n"
    names = (candidate.model.model, shipped.model.model)
    return f"{tables.table(readings, *names)}\n\n{tables.verdict_line(verdict)}\n"
