"""Derains the cameras in a recording (rosbag2 or ROS 1) and writes a new recording.

The new recording is MCAP. It has everything of the old one, byte for byte, and beside each
camera's image_raw: image_derained, attention, rain_level and camera_info_derained. OUT is a
folder, or a single file if its name ends in .mcap. Damaged recordings are read as far as possible.
With --report, every frame is scored, against the topic image_clean (the same scene without rain)
if there is one.

IN may be several recordings, or a folder of them. OUT is then a folder with one recording for
each, local processes or a Ray cluster share the work, and the same command continues after an
interruption. Exits with 1 if some of several recordings failed; the others are done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros.cli._options import (
    add_json,
    add_settings,
    output_file,
    say_cautions,
    settings_from,
)

if TYPE_CHECKING:
    from rain_removal_ros.bags.replaying import Replayed, ReplayOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="recordings")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--force", action="store_true", help="replace a recording at OUT")
    parser.add_argument(
        "--topics",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="image topics to derain (default: every camera's)",
    )
    parser.add_argument(
        "--in-place-of",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="image topics whose derained images take their place and name",
    )
    parser.add_argument(
        "--ending",
        default="derained",
        metavar="NAME",
        help="ending of the new topics (default: derained)",
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="seconds to skip")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds to process")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="derain every N-th frame only"
    )
    parser.add_argument(
        "--compression",
        choices=("none", "zstd"),
        default="none",
        help="of the chunks of the new recording",
    )
    parser.add_argument(
        "--report",
        type=output_file,
        metavar="FILE",
        help="score every frame and write an HTML report",
    )
    parser.add_argument(
        "--reference", default="", metavar="TOPIC", help="the same images without rain"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="recordings at a time, each in its own process",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="share several recordings over a Ray cluster (or 'local')"
    )
    add_json(parser)
    add_settings(parser, "network", "engine", "stream", "bypass", "output", "safety", "limits")


def run(args: argparse.Namespace) -> int:
    from rain_removal_ros.bags import find_recordings
    from rain_removal_ros.errors import BagError

    found = [recording for path in args.inputs for recording in find_recordings(path) or [path]]
    if not found:
        raise BagError("there are no recordings at " + ", ".join(map(str, args.inputs)))
    if len(found) == 1 and args.inputs == found:
        _run_one(args, found[0])
        return 0
    return _run_many(args, found)


def _run_one(args: argparse.Namespace, source: Path) -> None:
    from tqdm import tqdm

    from rain_removal_ros.bags import frame_scores, replay_report
    from rain_removal_ros.bags.replaying import replay
    from rain_removal_ros.engines import load

    settings = settings_from(args)
    engine = load(settings.network, settings.engine)
    say_cautions("replay", engine)
    scorer = frame_scores.FrameScorer() if args.report else None
    with tqdm(disable=None, unit="frame") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        done = replay(
            source,
            args.output,
            engine,
            settings,
            _options(args),
            observer=scorer,
            progress=progress,
        )
    _print(done)
    payload = replay_report.payload(done, engine, settings, scorer)
    if scorer is not None:
        replay_report.write_report(args.report, payload, scorer)
        print(f"report: {args.report}")
    if args.json:
        replay_report.write(args.json, payload)


def _run_many(args: argparse.Namespace, sources: list[Path]) -> int:
    from tqdm import tqdm

    from rain_removal_ros.bags import fleet

    order = fleet.FleetOptions(
        settings=settings_from(args), options=_options(args), scored=args.report is not None
    )
    with tqdm(disable=None, unit="recording") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        done = fleet.run(
            sources, args.output, order, jobs=args.jobs, ray=args.ray, progress=progress
        )
    for name, failure in done.failures.items():
        print(f"rain-removal replay: {name}: {failure}", file=sys.stderr)
    print(done.summary())
    fleet.write(done, report=args.report, json=args.json)
    return 1 if done.failures else 0


def _options(args: argparse.Namespace) -> ReplayOptions:
    from rain_removal_ros.bags.replaying import ReplayOptions

    return ReplayOptions(
        topics=tuple(args.topics),
        in_place_of=tuple(args.in_place_of),
        ending=args.ending,
        start_s=args.start,
        duration_s=args.duration,
        every=args.every,
        reference=args.reference,
        compression=args.compression,
        force=args.force,
    )


def _print(done: Replayed) -> None:
    for loss in done.losses:
        print(f"rain-removal replay: lost: {loss}", file=sys.stderr)
    for camera in done.cameras:
        notes: list[Any] = [f"{camera.frames} frames"]
        notes += [f"{count} of them unchanged ({why})" for why, count in camera.passed.items()]
        notes += [f"{count} dropped ({why})" for why, count in camera.dropped.items()]
        notes += [f"{camera.unreadable} unreadable"] if camera.unreadable else []
        notes += [f"{camera.skipped} left out"] if camera.skipped else []
        notes += [f"{sum(camera.resets.values())} fresh starts"] if len(camera.resets) > 1 else []
        if camera.last_fault:
            said = f"{camera.topic}: last fault: {camera.last_fault}"
            print(f"rain-removal replay: {said}", file=sys.stderr)
        print(f"{camera.topic} -> {camera.clean_topic}: {', '.join(notes)}")
    print(
        f"{done.output}: {done.copied} messages copied unchanged, "
        f"{done.overhead_ms:.1f} ms a frame beside the network"
    )
