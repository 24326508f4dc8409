"""Measures a candidate model on the board, beside the one that ships, and says whether to ship it.

  rain-removal board runs/m/last.safetensors --data ../data --quick

The rules are in evaluation/board/rules.py. What the shipped model scored is remembered; intervals
are from paired draws. Ends with 1 if the candidate is not to be shipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rain_removal_ros.cli._options import add_json

if TYPE_CHECKING:
    from rain_removal_ros.settings import EngineSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "candidate", metavar="CANDIDATE", help="a weight file, or the name of weights that ship"
    )
    parser.add_argument(
        "--shipped",
        metavar="NAME",
        help="what to hold it against (default: what ships of the same network and size)",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the folder of the data sets"
    )
    parser.add_argument(
        "--only", default="", metavar="PARTS", help="parts with commas between them (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of it, to judge a training run by"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument(
        "--precision", default="bfloat16", help="bfloat16 (default), float32 or float16"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="what was measured before (default: user's cache)"
    )
    add_json(parser)
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write the table to FILE"
    )


def run(args: argparse.Namespace) -> int:
    import sys

    from rain_removal_ros.evaluation import board
    from rain_removal_ros.evaluation.board import rules, tables
    from rain_removal_ros.manifest import manifest
    from rain_removal_ros.runtime.files import cache_folder, write_json, write_whole

    setup = board.Setup(
        data=args.data,
        extent=board.QUICK if args.quick else board.FULL,
        cache=args.cache or cache_folder("board"),
    )
    parts = board.choose(args.only, setup.extent)

    def said(line: str) -> None:
        print(line, file=sys.stderr)

    rival = args.shipped or board.counterpart(args.candidate)
    candidate, shipped = board.compare(
        args.candidate, rival, setup, parts=parts, engine=_engine(args), said=said
    )
    readings = rules.read(candidate.marks, shipped.marks)
    verdict = rules.judge(readings)
    names = (candidate.model.model, shipped.model.model)
    shown = f"{tables.table(readings, *names)}\n\n{tables.verdict_line(verdict)}\n"
    print(shown, end="")
    if args.json:
        payload = {
            "manifest": manifest(),
            "extent": setup.extent.name,
            "parts": list(parts),
            "candidate": candidate.as_json(),
            "shipped": shipped.as_json(),
            "ships": verdict.ships,
            "reasons": list(verdict.reasons),
        }
        write_json(args.json, payload)
    if args.markdown:
        write_whole(args.markdown, shown)
    return 0 if verdict.ships else 1


def _engine(args: argparse.Namespace) -> EngineSettings:
    from rain_removal_ros.settings import EngineSettings, build

    # One thread: two that wait for each other are slower than one wherever the machine is shared.
    engine = {
        "name": "torch", "device": args.device, "precision": args.precision, "threads": 1,
    }  # fmt: skip
    return build(EngineSettings, engine)
