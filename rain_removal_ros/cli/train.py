"""Trains a network as a recipe says, or continues where it was stopped.

The run writes weights, log and validation pictures into one folder, and the same command goes on
with it. Under torchrun it trains on several processes or machines.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="a recipe that ships, by name, or a YAML file"
    )
    parser.add_argument("--config", metavar="FILE", help="the same as RECIPE, always a file")
    parser.add_argument("--run", dest="folder", metavar="DIR", help="folder of the run")
    parser.add_argument("--data-root", metavar="DIR", help="folder that data paths are relative to")
    parser.add_argument("--steps", type=int, help="total number of steps")
    parser.add_argument(
        "--max-minutes", type=float, help="stop after this time; the same command continues"
    )
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any setting of the recipe by its dotted name, optimiser.rate=0.0005 or "
        "network.stages=3; may be given again",
    )


def run(args: argparse.Namespace) -> None:
    from rain_removal_ros.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    from rain_removal_ros.training import load_recipe, train
    from rain_removal_ros.training.recipe import parse_override

    recipe = _recipe(args)

    flags = {
        "run": args.folder,
        "data.root": args.data_root,
        "steps": args.steps,
        "max_minutes": args.max_minutes,
        "device": args.device,
    }
    overrides = dict(parse_override(text) for text in args.overrides)
    overrides |= {name: value for name, value in flags.items() if value is not None}
    done = train(load_recipe(recipe, overrides))
    if done.rank == 0:
        state = "done" if done.finished else "stopped; the same command continues"
        print(f"step {done.step} of {done.recipe.steps}, {state}; all is in {done.folder}")
    if done.processes > 1:
        # DistributedDataParallel leaves Gloo's threads behind, and now and then one of them aborts
        # the process while Python ends. All is written, so it need not end in the usual way.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _recipe(args: argparse.Namespace) -> Path:
    """The recipe's file, which may have been named in either way, but once."""
    from rain_removal_ros.errors import SettingsError
    from rain_removal_ros.training.recipe import find_recipe

    given = [text for text in (args.recipe, args.config) if text is not None]
    if len(given) != 1:
        raise SettingsError("name one recipe: train RECIPE, or train --config FILE")
    return find_recipe(args.recipe) if args.config is None else Path(args.config)
