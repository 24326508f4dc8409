"""Every error a user can cause, as one tree.

A ``RainRemovalError`` carries one line that says what is wrong, where, and what would help. The
command line prints that line and ends with ``exit_code``; anything else is a defect of ours and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

WITH_TORCH = "pip install 'rain_removal_ros[torch]'"
"""What brings torch, for errors of those who do without."""


class RainRemovalError(Exception):
    """Something the user can put right."""

    exit_code = 2


class SettingsError(RainRemovalError):
    """A setting has an unknown name or a value it cannot have."""


class FrameError(RainRemovalError):
    """An image, or an image message, that cannot be understood."""


class CheckpointError(RainRemovalError):
    """A weight file is missing, damaged, or belongs to another network."""


class DataError(RainRemovalError):
    """A data set, picture or video on disk cannot be used as asked."""


class BagError(RainRemovalError):
    """A recording cannot be read or written as asked."""


class EngineError(RainRemovalError):
    """A device or an engine is not there, or cannot run the network."""


class TrainingError(RainRemovalError):
    """A training run came to where it cannot go on."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, without the pages that some add."""
    return str(error).strip().split("\n", 1)[0]


def near(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known, or else all that are."""
    names = list(known)
    return ", ".join(difflib.get_close_matches(name, names, n=3) or names)
