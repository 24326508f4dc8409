"""Flags that mean the same in every subcommand that has them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine
    from rain_removal_ros.settings import Settings


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json FILE``: the results once more, for programs; ``files.write_json`` writes them."""
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the results to FILE as JSON, with a manifest of how they came about",
    )


def say_cautions(command: str, engine: Engine) -> None:
    """Print the cautions of the weights in use."""
    for line in engine.info.cautions.lines(engine.info.network):
        print(f"rain-removal {command}: {line}", file=sys.stderr)


_SHORT = {
    "network.weights": ("--model", "NAME_OR_FILE"),
    "network.stages": ("--stages", "N"),
    "engine.device": ("--device", "DEVICE"),
    "engine.precision": ("--precision", "FORMAT"),
}


def add_settings(parser: argparse.ArgumentParser, *groups: str) -> None:
    """``--config FILE``, and a flag for every setting of some groups: ``--stream.max-gap-s``."""
    from rain_removal_ros.settings import Settings, entries

    flags = parser.add_argument_group("settings")
    flags.add_argument(
        "--config", type=Path, metavar="FILE", help="settings as YAML, as the node reads them"
    )
    for entry in entries(Settings):
        if entry.name.partition(".")[0] not in groups:
            continue
        short, kind = _SHORT.get(entry.name, ("", "VALUE"))
        names = [*filter(None, [short]), f"--{entry.name.replace('_', '-')}"]
        help = entry.described.help.replace("%", "%%")
        flags.add_argument(*names, dest=f"set:{entry.name}", metavar=kind, help=help)


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings that the flags of ``add_settings`` ask for."""
    from rain_removal_ros.parsing import from_yaml
    from rain_removal_ros.settings import Settings, build, load

    changes = {}
    for name, text in vars(args).items():
        if name.startswith("set:") and text is not None:
            try:
                value = from_yaml(text)
            except ValueError:
                value = text
            plain = value is None or isinstance(value, dict)
            changes[name.removeprefix("set:")] = text if plain else value
    return load(Settings, args.config, changes) if args.config else build(Settings, changes)
