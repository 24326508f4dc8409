"""Plays a recording to ROS topics, where ros2 bag play is not installed.

Needs ROS's Python packages. The service ~/set_paused pauses and continues.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from rain_removal_ros.cli._options import add_settings, output_file, settings_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, metavar="IN")
    parser.add_argument("--rate", type=float, default=1.0, metavar="X", help="playback speed")
    parser.add_argument("--loop", action="store_true", help="repeat the recording")
    parser.add_argument(
        "--clock", type=float, nargs="?", const=40.0, default=0.0, metavar="HZ",
        help="publish the recording's time on /clock (default: 40 times a second)",
    )  # fmt: skip
    parser.add_argument(
        "--start-paused", action="store_true", help="start paused; ~/set_paused continues"
    )
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="play only these")
    parser.add_argument(
        "--restamp", action="store_true", help="set header stamps to the time of playing"
    )
    parser.add_argument(
        "--wait-for", nargs="+", default=[], metavar="TOPIC",
        help="do not start before these topics have subscribers",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=math.inf, metavar="S",
        help="start after S seconds without them (default: never)",
    )  # fmt: skip
    parser.add_argument(
        "--warm-up", default="", metavar="TOPIC",
        help="first repeat the first image until a message arrives on TOPIC",
    )  # fmt: skip
    parser.add_argument(
        "--schedule",
        type=output_file,
        metavar="FILE",
        help="write the old and new stamps of images to FILE",
    )
    add_settings(parser, "limits")


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros.errors import BagError, with_extra

    try:
        from rain_removal_ros.ros.tools import player
    except ModuleNotFoundError as error:
        raise BagError(
            f"bag-play needs ROS ({error.name} is not here): source its setup.bash, or without "
            f"ROS on this machine: {with_extra('ros', '-c constraints-kilted.txt')}"
        ) from error
    options = player.PlayOptions(
        rate=args.rate,
        loop=args.loop,
        clock_hz=args.clock,
        paused=args.start_paused,
        topics=tuple(args.topics),
        restamp=args.restamp,
        subscribers=tuple(args.wait_for),
        patience_s=args.patience,
        warm_up=args.warm_up,
        schedule=args.schedule,
        limits=settings_from(args).limits,
    )
    played = player.play(
        args.recording, options, began=lambda: print(f"playing {args.recording}", flush=True)
    )
    for topic, kind in played.unknown.items():
        print(f"left out: {topic}, as {kind} is not installed")
    print(f"{played.messages} messages played, at most {1e3 * played.late_s:.0f} ms late")
