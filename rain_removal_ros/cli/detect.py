"""Measures whether deraining helps an object detector: helps, hurts, or cannot tell.

PICTURES is a folder of clear photos, on which synthetic rain of several severities falls, or with
--recorded a folder of rainy photos. --drive uses simulated streets instead, --bag a recording.
--truth has the labels (COCO, Pascal VOC, PASCAL 1.00, KITTI, YOLO). Without labels, what the
detector finds in the reference pictures counts as pseudo ground truth.

Every score is compared with that of the rainy input on the same pictures, with intervals. Results
are cached, so that with another model only that model is run.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros.cli._options import (
    add_json,
    add_report,
    add_shared,
    engine_settings,
    output_file,
    rename,
)

if TYPE_CHECKING:
    from rain_removal_ros.detection.analysis import Analysis, Row
    from rain_removal_ros.detection.candidates import Candidate
    from rain_removal_ros.detection.report import ReportFacts
    from rain_removal_ros.detection.sources import FrameSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="?", type=Path, metavar="PICTURES", help="a folder")
    _add_compared(parser)
    _add_truth(parser)
    _add_weather(parser.add_argument_group("weather"))
    _add_sequences(parser.add_argument_group("sequences"))
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pictures only")
    parser.add_argument(
        "--rounds",
        type=int,
        default=1000,
        metavar="N",
        help="rounds of the bootstrap (default 1000)",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="earlier results (default: user's cache)"
    )
    _add_outputs(parser)


def _add_compared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="network to compare, may be given again; all is every one that ships (default: the "
        "best of them)",
    )
    add_shared(parser, "stages", "device")
    parser.add_argument(
        "--detector",
        action="append",
        default=[],
        metavar="NAME",
        help="hog, an .onnx file of the YOLO family, torchvision:NAME=WEIGHTS, hf:FOLDER, "
        "or ros:IMAGES=DETECTIONS, topics of a running one; may be given again (default: hog)",
    )
    parser.add_argument(
        "--provider", default="cpu", help="what runs ONNX detectors: cpu, cuda or tensorrt"
    )


def _add_truth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--truth", type=Path, metavar="PATH", help="labels of the pictures")
    parser.add_argument(
        "--truth-format",
        default="auto",
        metavar="NAME",
        help="auto, coco, voc, pascal, kitti, yolo",
    )
    parser.add_argument(
        "--classes", default="", metavar="A,B", help="score these classes only (default: all)"
    )


def _add_weather(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--rain",
        default="0.3,0.6,1",
        metavar="S,S,...",
        help="severities of the synthetic rain, from 0 to 1 (default 0.3,0.6,1)",
    )
    group.add_argument("--style", default="heavy", help="kind of rain (default heavy)")
    group.add_argument("--seed", type=int, default=0, help="the same seed, the same rain")
    group.add_argument(
        "--recorded", action="store_true", help="PICTURES are rainy already; no rain is added"
    )
    group.add_argument(
        "--clean", type=Path, metavar="DIR", help="with --recorded: reference pictures, same names"
    )


def _add_sequences(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--fps",
        type=float,
        metavar="F",
        help="PICTURES are consecutive frames at this rate (default: single photos)",
    )
    group.add_argument(
        "--drive", type=int, metavar="N", help="simulated drives in place of PICTURES"
    )
    group.add_argument(
        "--drive-frames", type=int, default=30, metavar="N", help="frames of a drive"
    )
    group.add_argument("--bag", type=Path, metavar="BAG", help="a recording in place of PICTURES")
    group.add_argument(
        "--topic", default="", metavar="NAME", help="with --bag: the rainy images (default: found)"
    )
    group.add_argument(
        "--online",
        action="append",
        default=[],
        metavar="NAME",
        help="with --bag: a topic with images that were derained online, one more candidate",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    rename(parser, "--html", add_report(parser, "write the report to FILE"))
    parser.add_argument(
        "--csv",
        type=output_file,
        metavar="FILE",
        help="write every score, with its interval, to FILE",
    )
    parser.add_argument(
        "--markdown",
        type=output_file,
        metavar="FILE",
        help="write one table to FILE, below its line <!-- tables -->",
    )


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros.detection import analysis, csv_export, detectors, harness, report
    from rain_removal_ros.errors import DataError
    from rain_removal_ros.manifest import manifest
    from rain_removal_ros.runtime.files import cache_folder, write_json, write_whole

    if args.rounds < 100:
        raise DataError(f"--rounds {args.rounds} is too few for an interval; give 100 or more")
    watching = [detectors.create(name, provider=args.provider) for name in args.detector or ["hog"]]
    _refuse_twins("detectors", [each.name for each in watching])
    source = _source(args)
    classes = [name.strip() for name in args.classes.split(",") if name.strip()]
    for each in watching:
        analysis.check_classes(source, each, classes)
    compared, models = _candidates(args, source)
    if not args.detector:
        print(f"rain-removal detect: {detectors.BUILT_IN}", file=sys.stderr)
    seen = harness.run(source, compared, watching, cache=args.cache or cache_folder("detect"))
    results = [
        analysis.conclude(seen, each, models, classes=classes, rounds=args.rounds)
        for each in watching
    ]
    facts = _facts(args, source)
    print(report.markdown(results, facts), end="")
    if args.json:
        write_json(args.json, _payload(manifest(), results, facts))
    if args.csv:
        write_whole(args.csv, csv_export.as_csv(results))
    if args.markdown:
        write_whole(args.markdown, report.page(args.markdown, results, facts))
    if args.report:
        report.html(results, seen, facts).write(args.report)


def _source(args: argparse.Namespace) -> FrameSource:
    from rain_removal_ros.detection import sources
    from rain_removal_ros.detection.recordings import Bag
    from rain_removal_ros.errors import DataError

    given = [value for value in (args.pictures, args.drive, args.bag) if value is not None]
    if len(given) != 1:
        raise DataError("give one of PICTURES, --drive and --bag")
    if args.limit is not None and args.limit < 1:
        raise DataError(f"--limit is a number of pictures, not {args.limit}")
    if args.bag is not None:
        return Bag(args.bag, topic=args.topic, online=args.online, limit=args.limit)
    if args.online:
        raise DataError("--online names topics of a recording; give --bag")
    falling = sources.Falling(severities=_severities(args.rain), style=args.style, seed=args.seed)
    if args.drive is not None:
        return sources.Drives(falling, sequences=args.drive, frames=args.drive_frames)
    if args.clean and not args.recorded:
        raise DataError("--clean goes with --recorded; else the pictures are the references")
    if args.recorded:
        return sources.Recorded(
            args.pictures, args.clean, labels=args.truth, form=args.truth_format,
            video_fps=args.fps, limit=args.limit,
        )  # fmt: skip
    return sources.Photos(
        args.pictures, falling, labels=args.truth, form=args.truth_format,
        video_fps=args.fps, limit=args.limit,
    )  # fmt: skip


def _severities(text: str) -> tuple[float, ...]:
    from rain_removal_ros.errors import DataError

    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise DataError(f"--rain is severities from 0 to 1 as in 0.3,0.6,1, not {text!r}") from None


def _candidates(args: argparse.Namespace, source: FrameSource) -> tuple[list[Candidate], list[str]]:
    """The candidates, and which of them are networks, in the order in which they were named."""
    from rain_removal_ros import checkpoints
    from rain_removal_ros.detection import candidates

    engine = engine_settings(args)
    names = args.model or ["auto"]
    if "all" in names:
        names = [path.stem for path in checkpoints.shipped()] or ["auto"]
    derain = [candidates.Derain(name, engine, stages=args.stages) for name in names]
    models = [each.name for each in derain]
    _refuse_twins("models", models)
    every: list[Candidate] = [candidates.Input()]
    if source.has_reference:
        every.append(candidates.Reference())
    every.append(candidates.SpatialMedian())
    if source.frame_s is not None:
        every.append(candidates.TemporalMedian())
    every += [candidates.Online(topic) for topic in args.online]
    return [*every, *derain], models


def _refuse_twins(what: str, names: list[str]) -> None:
    from rain_removal_ros.errors import DataError

    if len(set(names)) < len(names):
        raise DataError(f"two {what} have one name: {', '.join(names)}; rename a file")


def _facts(args: argparse.Namespace, source: FrameSource) -> ReportFacts:
    from rain_removal_ros.detection.report import ReportFacts
    from rain_removal_ros.manifest import manifest

    groups = len({item.group for item in source.items})
    frames = len(source.items)
    of = "pictures" if groups == frames else "sequences or blocks of one"
    made = manifest()
    setting = {
        "pictures": f"{frames} of {source.name}"
        + (f" in {groups} sequences or blocks" if groups < frames else ""),
        "weather": ", ".join(condition.name for condition in source.conditions)
        + ("" if args.recorded or args.bag else f"; synthetic, {args.style}, seed {args.seed}"),
        "labels": _labels(args, source),
        "measured on": f"{made['cpu']}, {made['cores']} cores, {made['threads']} threads, "
        f"torch {made['torch']}; times are medians of a frame",
    }
    if source.notes:
        setting["left out"] = "; ".join(source.notes)
    return ReportFacts(args.rounds, f"{groups} {of}", setting)


def _labels(args: argparse.Namespace, source: FrameSource) -> str:
    if args.truth:
        return str(args.truth.resolve().name)
    return "known exactly" if any(item.truth for item in source.items) else "none"


def _as_json(row: Row) -> dict[str, Any]:
    """The row with the keys that readers of older files know."""
    return {"arm" if key == "candidate" else key: value for key, value in asdict(row).items()}


def _payload(made: dict[str, Any], results: list[Analysis], facts: ReportFacts) -> dict[str, Any]:
    return {
        "manifest": made,
        "facts": asdict(facts),
        "results": [
            {
                "detector": each.detector,
                "pseudo_ground_truth": each.is_pseudo,
                "classes": each.labels,
                "score": each.score,
                "notes": each.notes,
                "rows": [_as_json(row) for row in each.rows],
                "gates": [asdict(gate) | {"advice": gate.advice} for gate in each.gates],
                "helped": [asdict(example) for example in each.helped],
                "hurt": [asdict(example) for example in each.hurt],
            }
            for each in results
        ],
    }
