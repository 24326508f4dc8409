"""Checks of what was typed after ``ros2 launch``, which itself goes on whatever it was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

from rain_removal_ros.errors import SettingsError

_NEAR = 0.8
"""Less alike are, for example, two arguments of launch files that include each other."""


def parameter_files(given: str) -> list[str]:
    """The parameters of a node: those in the file, if one was given."""
    if not given:
        return []
    if not Path(given).is_file():
        raise SettingsError(f"there is no parameter file {given}")
    return [given]


def misspelt(names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """A line for each name that is nearly a known one; others may be of an outer launch file."""
    arguments = list(known)
    for name in names:
        if name not in arguments and (
            near := difflib.get_close_matches(name, arguments, n=1, cutoff=_NEAR)
        ):
            yield f"there is no launch argument {name}; near: {near[0]}"
