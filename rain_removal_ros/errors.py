"""All errors that a user can cause.

A ``RainRemovalError`` has one line that says what is wrong, where, and what would help. The command
line prints that line and exits with ``exit_code``. Any other exception is a bug and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def with_extra(extra: str, *options: str) -> str:
    """The command that installs an extra of this package, for error messages."""
    command = " ".join(["pip install", f"'.[{extra}]'", *options])
    return f"{command} (in the folder of this package's source)"


WITH_TORCH = with_extra("torch")


class RainRemovalError(Exception):
    """Something that the user can fix."""

    exit_code = 2


class SettingsError(RainRemovalError):
    """A setting has an unknown name or a value it cannot have."""


class FrameError(RainRemovalError):
    """An image or an image message cannot be decoded."""


class CheckpointError(RainRemovalError):
    """A weight file is missing, damaged, or belongs to another network."""


class DataError(RainRemovalError):
    """A data set, picture or video on disk cannot be used as asked."""


class BagError(RainRemovalError):
    """A recording cannot be read or written as asked."""


class EngineError(RainRemovalError):
    """A device or an engine is missing, or cannot run the network."""


class TrainingError(RainRemovalError):
    """A training run cannot continue."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error message; some add pages."""
    return str(error).strip().split("\n", 1)[0]


def near(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known, or else all that are."""
    names = list(known)
    return ", ".join(difflib.get_close_matches(name, names, n=3) or names)
