"""Measures models on pictures and clips, against the reference and the untouched input.

  rain-removal eval --model all --data rain100l/test rain800/test --report report.html

The layout of pairs is recognised from their files, or given as DIR:LAYOUT. The tables are Markdown.
What cannot be used is named, left out for all models, and counted; the command then exits with 1.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from rain_removal_ros.cli._options import (
    add_json,
    add_report,
    add_several,
    add_shared,
    engine_settings,
    rename,
)

if TYPE_CHECKING:
    from rain_removal_ros.evaluation import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_subjects(parser)
    parser.add_argument(
        "--protocol",
        choices=("default", "published"),
        default="default",
        help="how output becomes 8 bit: rounded, as the node does, or truncated, as papers' "
        "figures are made",
    )
    add_shared(parser, "stages", several=True)
    add_shared(parser, "engine", "device", "precision", engine="torch", precision="float32")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th picture")
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="at most N pictures of each set"
    )
    add_json(parser)
    report = add_report(parser, "also write a page with plots and the worst cases to look at")
    rename(parser, "--html", report)


def _add_subjects(parser: argparse.ArgumentParser) -> None:
    models = add_several(
        parser,
        "--model",
        str,
        "NAME_OR_FILE",
        "names of weights that ship, auto for the best or all, weight files, or NETWORK:FILE for "
        "weights published elsewhere (default: auto)",
        default="auto",
    )
    rename(parser, "--models", models)
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="DIR",
        help="rainy pictures and their references, as DIR or DIR:LAYOUT",
    )
    parser.add_argument(
        "--clean",
        nargs="+",
        default=[],
        metavar="DIR",
        help="pictures without rain, which should not change",
    )
    parser.add_argument(
        "--clips",
        nargs="+",
        default=[],
        metavar="DIR",
        help="videos or folders of frames without rain; rain is drawn over them, and models are "
        "measured with and without their state",
    )
    parser.add_argument(
        "--drive",
        nargs="?",
        type=int,
        default=0,
        const=1,
        metavar="N",
        help="N simulated drives in drawn rain, whose motion is known (1 if no N is given)",
    )
    parser.add_argument(
        "--frames", type=int, default=16, metavar="N", help="frames of a clip (default 16)"
    )
    parser.add_argument(
        "--rains",
        type=int,
        default=2,
        metavar="N",
        help="rains for each clip, each over another part of it (default 2)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same rain")


def run(args: argparse.Namespace) -> int:
    from rain_removal_ros.evaluation import evaluate
    from rain_removal_ros.evaluation.report import page
    from rain_removal_ros.evaluation.tables import tables
    from rain_removal_ros.runtime.files import write_json

    evaluation = evaluate(_plan(args))
    print("\n\n".join(table.markdown() for table in tables(evaluation.rows)))
    if args.json:
        write_json(args.json, evaluation.as_json())
    if args.report:
        page(evaluation).write(args.report)
    if evaluation.skipped:
        print(f"\nleft out: {len(evaluation.skipped)}", file=sys.stderr)
    return 1 if evaluation.skipped else 0


def _plan(args: argparse.Namespace) -> Plan:
    from rain_removal_ros.evaluation import Plan

    return Plan(
        models=tuple(args.model),
        pairs=tuple(args.data),
        clean=tuple(args.clean),
        clips=tuple(args.clips),
        drives=args.drive,
        protocol=args.protocol,
        stages=tuple(args.stages),
        engine=engine_settings(args),
        every=args.every,
        limit=args.limit,
        frames=args.frames,
        rains=args.rains,
        seed=args.seed,
    )
