"""Intervals of differences, by resampling pictures or whole sequences.

Every score is computed for all draws at once, as an array whose first value is that of the original
pictures. Subtracting two scores from the same draws gives paired differences.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Weights: TypeAlias = NDArray[np.float32]
"""Rounds + 1 x pictures: how often each picture was drawn. The first row is all ones."""
Values: TypeAlias = NDArray[np.float64]
"""Rounds + 1: the score of every draw, NaN if it has none."""

HELPS, HURTS, CANNOT_TELL = "helps", "hurts", "cannot tell"
_CONFIDENCE = 0.95
_FEWEST_GROUPS = 5
"""With fewer groups, the interval would mean little."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def draws(groups: Sequence[Hashable], *, rounds: int, seed: int = 0) -> Weights:
    """Weights of pictures; those of one group (a sequence) are drawn together."""
    names = list(dict.fromkeys(groups))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), [1 / len(names)] * len(names), rounds)
    where = {name: index for index, name in enumerate(names)}
    drawn = counts[:, [where[group] for group in groups]]
    return np.vstack([np.ones((1, len(groups))), drawn]).astype(np.float32)


def estimate(values: Values) -> Estimate:
    usable = values[1:][np.isfinite(values[1:])]
    if not len(usable):
        return Estimate(float(values[0]), float("nan"), float("nan"))
    outside = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(usable, [outside, 100 - outside])
    return Estimate(float(values[0]), float(low), float(high))


def verdict(difference: Estimate, *, groups: int) -> str:
    """The verdict on a difference, where more is better."""
    if groups < _FEWEST_GROUPS or not np.isfinite([difference.low, difference.high]).all():
        return CANNOT_TELL
    if difference.low > 0:
        return HELPS
    return HURTS if difference.high < 0 else CANNOT_TELL
