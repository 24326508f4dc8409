"""Writes a network as an ONNX file, which runs without torch.

State tensors are named inputs and outputs; batch and size are free. The file's metadata has
network, scale, stride, checksum, names, and how to start fresh. Before the graph is written, it is
run and compared with torch.
"""

from __future__ import annotations

import argparse

from rain_removal_ros.cli._options import add_shared, output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a weight file, or a network that ships with weights, or auto",
    )
    parser.add_argument(
        "-o", "--output", type=output_file, required=True, metavar="FILE", help="an .onnx file"
    )
    add_shared(parser, "stages")


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros import checkpoints
    from rain_removal_ros.engines.export import export
    from rain_removal_ros.errors import EngineError, SettingsError
    from rain_removal_ros.runtime.files import write_whole

    if args.stages < 0:
        raise SettingsError(f"--stages {args.stages}: it must be 0 or more")
    checkpoint = checkpoints.load(checkpoints.resolve(args.model))
    graph, facts = export(checkpoint.network, stages=args.stages)
    write_whole(args.output, graph, raises=EngineError)
    print(f"{args.output}: {facts.network}, opset {facts.opset}, weights {facts.checksum[:12]}")
    print(f"in: {', '.join(facts.input_names)}; out: {', '.join(facts.output_names)}")
    for part in facts.state:
        print(f"fresh {part.input}: {part.fresh}")
    print(f"differs from torch by at most {facts.difference:.1g} ({facts.tolerance:g} is allowed)")
