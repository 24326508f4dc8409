"""Removes rain from pictures, videos and recordings; trains and measures the networks.

Each subcommand is one file here, found by itself: the module's docstring is its help,
``add_arguments(parser)`` declares its flags, and ``run(args)`` does the work and may return an exit
code. The file's name is the command's name unless the module sets ``NAME``. At its top a module
imports nothing heavy, so that ``--help`` is instant: torch, OpenCV and what needs them are imported
inside ``run``.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from rain_removal_ros import __version__
from rain_removal_ros.errors import WITH_TORCH, RainRemovalError, near
from rain_removal_ros.runtime.allocator import keep_freed_memory

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["commands", "main"]

_INTERRUPTED = 130
_READER_GONE = 141
_OF_TORCH = ("torch", "onnx")
"""The packages of the extra named torch."""


def commands() -> dict[str, ModuleType]:
    """The subcommands by name, sorted."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{info.name}")
            found[getattr(module, "NAME", info.name.replace("_", "-"))] = module
    return dict(sorted(found.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    try:
        try:
            return _run(_parser().parse_args(argv))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of the output, such as `head`, has enough. Python flushes once more at exit,
        # which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE


def _run(args: argparse.Namespace) -> int:
    keep_freed_memory()
    # Decoders' own messages about a damaged file would appear beside our one line.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        code: int | None = args.run(args)
    except RainRemovalError as error:
        line = " ".join(str(error).split())
        print(f"rain-removal {args.command}: {line}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in _OF_TORCH:
            raise
        what = f"this needs {error.name}: {WITH_TORCH}"
        print(f"rain-removal {args.command}: {what}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        # The machine's fault: a full disk, a folder without permission, a name too long.
        if error.strerror is None:
            raise
        about = f"{error.filename}: " if error.filename else ""
        print(f"rain-removal {args.command}: {about}{error.strerror}", file=sys.stderr)
        return RainRemovalError.exit_code
    return code or 0


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, with what may have been meant."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse an unknown flag here, where the flags of its command are known."""
        given = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:
            self._refuse_unknown(itertools.takewhile(lambda word: word != "--", given))
        return super().parse_known_args(given, namespace)

    def _refuse_unknown(self, words: Iterable[str]) -> None:
        known = self._option_string_actions
        for word in words:
            flag = word.partition("=")[0]
            if flag.startswith("--") and " " not in word and flag not in known:
                shown = {name for name, act in known.items() if act.help is not argparse.SUPPRESS}
                names = sorted(name for name in shown if name.startswith("--"))
                self.error(f"there is no {flag}; near: {near(flag, names)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = near(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"there is no {value!r}; near: {names}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rain-removal", description=_summary(sys.modules[__name__]), allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"rain-removal {__version__}")
    choices = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    choices.required = True
    for name, module in commands().items():
        command = choices.add_parser(
            name,
            help=_summary(module),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _summary(module: ModuleType) -> str:
    """The first paragraph of a module's docstring, on one line."""
    return " ".join((module.__doc__ or "").split("\n\n")[0].split())
