"""Derains a simulated drive and shows it before and after, with the network's attention.

If ROS 2 is installed, a simulated camera and the node run as separate processes, and their topics
are recorded. Otherwise the frames are derained directly. DIR/still.png and DIR/demo.mp4 (demo.webm
where nothing writes H.264) show rainy and derained frames side by side, with the attention and the
reference. Exits with 1 if no derained
frame came through.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from rain_removal_ros.cli._options import add_shared, rename, size

if TYPE_CHECKING:
    from rain_removal_ros.demo import Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo_output"),
        metavar="DIR",
        help="folder for still and video (default demo_output)",
    )
    (model,) = add_shared(parser, "model")
    rename(parser, "--weights", model)
    parser.add_argument(
        "--way",
        choices=("auto", "ros", "direct"),
        default="auto",
        help="through the ROS node or directly; auto: through the node if ROS is installed",
    )
    parser.add_argument(
        "--seconds", type=_positive, default=5.0, metavar="S", help="length (default 5)"
    )
    parser.add_argument(
        "--size",
        type=size,
        default=(480, 360),
        metavar="WxH",
        help="of the frames (default 480x360)",
    )
    parser.add_argument(
        "--fps", type=_positive, default=15.0, help="frame rate (default 15)", metavar="HZ"
    )
    parser.add_argument(
        "--severity",
        type=float,
        default=0.3,
        metavar="S",
        help="how hard it rains, 0 to 1 (default 0.3)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same street")


def run(args: argparse.Namespace) -> int:
    from rain_removal_ros import demo

    width, height = args.size
    plan = demo.DemoPlan(
        output=args.output,
        weights=args.model,
        seconds=args.seconds,
        width=width,
        height=height,
        fps=args.fps,
        seed=args.seed,
        severity=args.severity,
    )
    summary = demo.show(plan, _recording(args.way), lambda line: print(line, flush=True))
    if summary is None:
        print("no derained frame came through")
        return 1
    gain = summary.derained_db - summary.rainy_db
    print(f"{summary.frames} frames, against the same frames without rain (PSNR):")
    print(
        f"  in the rain {summary.rainy_db:.2f} dB, derained {summary.derained_db:.2f} dB "
        f"({gain:+.2f} dB)"
    )
    print(f"look at {summary.still} and {summary.video}")
    return 0


def _recording(way: str) -> Recording:
    """How the frames get to the network; auto takes ROS where it is installed."""
    from rain_removal_ros import demo
    from rain_removal_ros.errors import DataError

    has_ros = importlib.util.find_spec("rclpy") is not None
    if way == "ros" and not has_ros:
        raise DataError("ROS is not installed here (there is no rclpy); leave --way out")
    if way == "direct" or not has_ros:
        return demo.record
    from rain_removal_ros.ros.tools import demo as over_ros

    return over_ros.record


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1000")
    return value
