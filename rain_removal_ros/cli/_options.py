"""Flags that have the same meaning in every subcommand."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine
    from rain_removal_ros.settings import EngineSettings, NetworkSettings, Settings


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json FILE``: the results for programs; ``files.write_json`` writes them."""
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="also write the results to FILE as JSON, with a manifest of how they came about",
    )


def say_cautions(command: str, engine: Engine) -> None:
    """Print the cautions of the weights in use."""
    for line in engine.info.cautions.lines(engine.info.name):
        print(f"rain-removal {command}: {line}", file=sys.stderr)


_FLAGS = {
    "model": ("network.weights", "NAME_OR_FILE"),
    "stages": ("network.stages", "N"),
    "engine": ("engine.name", "NAME"),
    "device": ("engine.device", "DEVICE"),
    "precision": ("engine.precision", "FORMAT"),
    "threads": ("engine.threads", "N"),
}
"""Flags that all commands share, with the setting of each and its metavar."""


def add_shared(
    parser: argparse.ArgumentParser, *flags: str, several: bool = False, **defaults: object
) -> list[argparse.Action]:
    """Flags that are settings, with the settings' help and default unless another is given.

    Those in ``several`` take values separated by blanks or commas, and can be repeated.
    """
    from rain_removal_ros.settings import Settings, entries

    known = {entry.name: entry for entry in entries(Settings)}
    added = []
    for flag in flags:
        name, metavar = _FLAGS[flag]
        entry, default = known[name], defaults.get(flag, known[name].default)
        choices = ", ".join(map(str, entry.described.choices))
        text = f"{entry.described.help}{f': {choices}' if choices else ''}"
        if default not in ("", 0):
            text += f" (default: {default})"
        kind: type = entry.kind
        if several:
            action = add_several(parser, f"--{flag}", kind, metavar, text, default)
        else:
            action = parser.add_argument(
                f"--{flag}", type=kind, default=default, metavar=metavar, help=text
            )
        added.append(action)
    return added


def add_several(
    parser: argparse.ArgumentParser,
    flag: str,
    kind: Callable[[str], Any],
    metavar: str,
    help: str,
    default: object = None,
) -> argparse.Action:
    """A flag that takes values separated by blanks or commas, and can be repeated."""

    def items(text: str) -> list[Any]:
        return [kind(item) for item in text.split(",") if item]

    start = () if default is None else (default,)
    return parser.add_argument(
        flag, action=_Several, nargs="+", type=items, default=start, metavar=metavar, help=help
    )


class _Several(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = getattr(namespace, self.dest)
        before = [] if given is self.default else given
        setattr(namespace, self.dest, [*before, *itertools.chain.from_iterable(values)])


def add_report(parser: argparse.ArgumentParser, help: str) -> argparse.Action:
    """``--report FILE``: an HTML report."""
    return parser.add_argument("--report", type=output_file, metavar="FILE", help=help)


def rename(parser: argparse.ArgumentParser, old: str, now: argparse.Action) -> None:
    """Accept the flag ``old``, with a line that names its successor."""
    parser.add_argument(old, action=_Renamed, now=now)


class _Renamed(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, now: argparse.Action) -> None:
        super().__init__(
            option_strings,
            now.dest,
            nargs=now.nargs,
            default=now.default,
            type=now.type,  # type: ignore[arg-type]  # an Action's is what it may take
            choices=now.choices,
            help=argparse.SUPPRESS,
        )
        self._now = now

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        new = self._now.option_strings[-1]
        print(f"{parser.prog}: {option_string} is deprecated, use {new}", file=sys.stderr)
        self._now(parser, namespace, values, option_string)
        self._now.required = False  # the flag was given


def network_settings(args: argparse.Namespace) -> NetworkSettings:
    """The network settings from ``--model`` and ``--stages``."""
    from rain_removal_ros.settings import NetworkSettings, build

    return build(NetworkSettings, {"weights": args.model, **_given(args, ("stages",))})


def engine_settings(args: argparse.Namespace, **more: object) -> EngineSettings:
    """The engine settings from ``--engine``, ``--device``, ``--precision`` and ``--threads``, and
    ``more``.
    """
    from rain_removal_ros.settings import EngineSettings, build

    given = _given(args, ("engine", "device", "precision", "threads"))
    if "engine" in given:
        given["name"] = given.pop("engine")
    return build(EngineSettings, {**given, **more})


def _given(args: argparse.Namespace, flags: Sequence[str]) -> dict[str, object]:
    return {flag: getattr(args, flag) for flag in flags if hasattr(args, flag)}


def output_file(text: str) -> Path:
    """A file to be written once the work is done; what stands in its way is said before it."""
    path = Path(text)
    try:
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"{path} is a folder, not a file")
        there = next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {error.strerror}") from error
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {path}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"cannot write {path}: no permission to write to {there}")
    return path


def size(text: str) -> tuple[int, int]:
    """``640x480`` as width and height."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 640x480")
    return int(width), int(height)


def at_least(least: int) -> Callable[[str], int]:
    """A type for integers from ``least`` on."""

    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} on")
        return int(text)

    return number


def add_settings(parser: argparse.ArgumentParser, *groups: str) -> None:
    """``--config FILE``, and a flag for every setting of some groups: ``--stream.max-gap-s``."""
    from rain_removal_ros.settings import Settings, entries

    short = {name: (f"--{flag}", metavar) for flag, (name, metavar) in _FLAGS.items()}
    flags = parser.add_argument_group("settings")
    flags.add_argument(
        "--config", type=Path, metavar="FILE", help="settings as YAML, as the node reads them"
    )
    for entry in entries(Settings):
        if entry.name.partition(".")[0] not in groups:
            continue
        flag, kind = short.get(entry.name, ("", "VALUE"))
        names = [*filter(None, [flag]), f"--{entry.name.replace('_', '-')}"]
        help = entry.described.help.replace("%", "%%")
        flags.add_argument(*names, dest=f"set:{entry.name}", metavar=kind, help=help)


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings from the flags of ``add_settings``."""
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
