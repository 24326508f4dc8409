"""How much of the board is measured: all of it, or what tells enough of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """What is left out is left out whole items at a time: what remains compares with the whole."""

    name: str
    every: int
    """Every how many of the pictures and scenes."""
    still_frames: int
    """Frames that the clear still camera looks on for."""
    strokes: tuple[str, ...] | None
    """Fields of the stroke board; None for all."""


FULL = Extent("full", every=1, still_frames=300, strokes=None)
QUICK = Extent(
    "quick",
    every=4,
    still_frames=60,
    strokes=("count_3", "count_20", "count_120", "width_5", "width_8", "angle_60", "opacity_0.3"),
)
