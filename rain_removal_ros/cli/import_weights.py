"""Imports weights published elsewhere as a weight file of this package.

The published file is a PyTorch state dict (.pth, .pt). Only plain weights are read; no code in the
file is run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rain_removal_ros.cli._options import output_file

NAME = "import"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the published weights")
    parser.add_argument(
        "--network", required=True, metavar="NAME", help="the network of the weights"
    )
    parser.add_argument(
        "-o", "--output", type=output_file, required=True, metavar="OUT", help="a .safetensors file"
    )


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros import checkpoints

    network = checkpoints.import_published(args.file, args.network)
    checksum = checkpoints.save(args.output, network, {"imported_from": args.file.name})
    print(f"{args.output}: {args.network}, sha256 {checksum}")
