"""Makes pairs of rainy pictures and references out of pictures without rain.

Every picture is written once for each rain: rainy into OUT/input, the reference under the same name
into OUT/target. OUT/manifest.json says what rain fell on each. The result is a data set that
training and evaluation read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rain_removal_ros.cli._options import rename


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SRC", help="a picture or a folder of them")
    output = parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", required=True, help="folder for the pairs"
    )
    rename(parser, "--out", output)
    parser.add_argument(
        "--directions",
        type=int,
        default=1,
        metavar="N",
        help="rains for each picture, in evenly spread directions (default 1)",
    )
    parser.add_argument(
        "--severity", type=float, metavar="S", help="how hard it rains, 0 to 1 (default: varied)"
    )
    parser.add_argument("--style", metavar="NAME", help="one kind of rain (default: varied)")
    parser.add_argument(
        "--depth",
        type=Path,
        metavar="DIR",
        help="depth maps with the names of the pictures, .npy or 16-bit PNG, larger is farther "
        "(default: depth is guessed)",
    )
    parser.add_argument(
        "--textures", type=Path, metavar="DIR", help="streak textures, white on black"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same rain")


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros.data.synthesis import SynthesisOptions, synthesize

    options = SynthesisOptions(
        directions=args.directions, severity=args.severity, style=args.style, seed=args.seed
    )
    count = synthesize(args.source, args.output, options, depth=args.depth, textures=args.textures)
    print(f"{count} pairs are in {args.output}")
