"""Removes rain from pictures and videos: a file, several, or whole folders.

Without -o, derained files appear beside the rainy ones: street.png becomes street_derained.png, and
the folder drive becomes drive_derained. Pictures keep their format, bit depth and transparency.
Videos become H.264 with their sound (Motion JPEG in .avi) if ffmpeg is installed, else MPEG-4
without sound. The network's state is carried through a video, never from one picture to the next.
What does not fit into memory is derained in overlapping tiles.

Exits with 1 if some files could not be derained; the others are.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros.cli._options import (
    add_json,
    add_shared,
    engine_settings,
    network_settings,
    say_cautions,
)

if TYPE_CHECKING:
    from rain_removal_ros.media.deraining import DerainedFile, FailedFile, FileDerainer, FileOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="IN", help="pictures, videos, folders of them"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="folder for the derained files, which keep their names; for one input also a file",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="show where the network saw rain: a file NAME_attention beside each derained one, or "
        "with --side-by-side a third panel",
    )
    parser.add_argument(
        "--side-by-side", action="store_true", help="show before and after in one picture"
    )
    add_shared(parser, "model", "stages", "device", "precision")
    parser.add_argument(
        "--tile",
        type=int,
        default=0,
        metavar="PIXELS",
        help="side of the tiles for larger frames (default: what fits into memory)",
    )
    parser.add_argument(
        "--memory-gb",
        type=float,
        default=0.0,
        metavar="GB",
        help="most memory to use, in GiB (default: most of what is free)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=100.0,
        metavar="N",
        help="refuse files that announce larger pictures (default: 100)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from rain_removal_ros.media import deraining

    options = _options(args)
    jobs, failures = deraining.plan(args.inputs, args.output, options)
    derainer = _derainer(args, options)
    say_cautions("image", derainer.engine)
    for failure in failures:
        _say_failure(failure)
    done: list[DerainedFile] = []
    with tqdm(total=len(jobs), disable=None, unit="file") as bar:
        for result in deraining.derain_files(derainer, jobs):
            bar.update()
            if isinstance(result, deraining.FailedFile):
                failures.append(result)
                _say_failure(result)
            else:
                done.append(result)
                _say_done(result)
    _summarise(done, failures)
    if args.json:
        _write_json(args.json, derainer, done, failures)
    return 1 if failures else 0


def _options(args: argparse.Namespace) -> FileOptions:
    from rain_removal_ros.errors import SettingsError
    from rain_removal_ros.media.deraining import FileOptions

    if args.memory_gb < 0 or args.tile < 0:
        raise SettingsError("--memory-gb and --tile are 0, which is automatic, or more")
    if not 0 < args.max_megapixels <= 1000:
        raise SettingsError("--max-megapixels is above 0, and at most 1000")
    most_pixels = round(args.max_megapixels * 1e6)
    return FileOptions(args.attention, args.side_by_side, args.tile, args.memory_gb, most_pixels)


def _derainer(args: argparse.Namespace, options: FileOptions) -> FileDerainer:
    from rain_removal_ros.media.deraining import FileDerainer

    return FileDerainer(
        network_settings(args),
        engine_settings(args),
        options,
    )


def _say_failure(failure: FailedFile) -> None:
    from tqdm import tqdm

    line = " ".join(failure.reason.split())
    tqdm.write(f"rain-removal image: {line}", file=sys.stderr)


def _say_done(done: DerainedFile) -> None:
    from tqdm import tqdm

    for remark in done.remarks:
        tqdm.write(f"rain-removal image: {done.source} {remark}", file=sys.stderr)
    tqdm.write(f"{done.targets[0]}")


def _summarise(done: list[DerainedFile], failures: list[FailedFile]) -> None:
    if len(done) + len(failures) > 1:
        failed = f", {len(failures)} failed" if failures else ""
        print(f"{len(done)} derained{failed}")


def _write_json(
    path: Path, derainer: FileDerainer, done: list[DerainedFile], failures: list[FailedFile]
) -> None:
    from rain_removal_ros.manifest import manifest
    from rain_removal_ros.runtime.files import write_json

    info = derainer.engine.info
    how: dict[str, Any] = {
        "weights": derainer.weights,
        "network": info.network,
        "engine": info.engine,
        "device": info.device,
        "precision": info.precision,
        "stages": info.stages,
    }
    write_json(
        path,
        {
            "manifest": manifest(),
            **how,
            "results": [dataclasses.asdict(result) for result in done],
            "failures": [dataclasses.asdict(failure) for failure in failures],
        },
    )
