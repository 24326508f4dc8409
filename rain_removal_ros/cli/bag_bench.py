"""Measures how well and how fast the node derains a recording, for one setting or several.

Player, node and recorder run as separate processes over DDS, at the recording's own rate. Measured
are latency from stamp to publication, drops, load, and the quality of the frames that came through.
With --offline there are no topics: every frame of any number of recordings is derained, and times
are those of the network. --try NAME:setting=value,... may be repeated:

  rain-removal bag-bench IN --try full: --try fast:network.stages=1,stream.strength=0.9
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rain_removal_ros.cli._options import add_json, add_report, add_settings, settings_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="recordings")
    parser.add_argument(
        "--try", dest="wanted", action="append", default=[], metavar="NAME:SETTINGS",
        help="a setting to measure, in addition to the flags",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="every frame, without ROS")
    parser.add_argument("--topic", default="", metavar="TOPIC", help="the images to derain")
    parser.add_argument(
        "--reference", default="", metavar="TOPIC", help="the same images without rain"
    )
    parser.add_argument("--rate", type=float, default=1.0, metavar="X", help="playback speed")
    add_report(parser, "also write an HTML report")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="offline: recordings at a time"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="offline: a Ray cluster, or 'local'")
    add_json(parser)
    groups = ("network", "engine", "stream", "output", "bypass", "input", "safety", "limits")
    add_settings(parser, *groups)


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros.bags import bench_report, find_recordings, node_bench, replaying
    from rain_removal_ros.errors import BagError

    found = [recording for path in args.inputs for recording in find_recordings(path) or [path]]
    attempts = node_bench.attempts(settings_from(args), args.wanted)
    for attempt in attempts:  # before the first recording takes its time
        (replaying.check if args.offline else node_bench.check)(attempt.settings)
    rows: list[dict[str, Any]]
    if args.offline:
        rows = [
            bench_report.offline(
                found, attempt, topic=args.topic, reference=args.reference,
                jobs=args.jobs, ray=args.ray,
            )
            for attempt in attempts
        ]  # fmt: skip
    elif len(found) == 1:
        rows = [
            node_bench.online(
                found[0], attempt, topic=args.topic, reference=args.reference, rate=args.rate
            )
            for attempt in attempts
        ]
    else:
        raise BagError(f"one recording is played at a time, not {len(found)}; or use --offline")
    print(bench_report.as_text(rows))
    if args.json:
        bench_report.write_json(args.json, rows)
    if args.report:
        bench_report.write_report(args.report, rows, found)
        print(f"report: {args.report}")
