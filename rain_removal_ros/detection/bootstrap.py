"""How sure a difference is: pictures, or whole sequences, are drawn again and again.

Every score is worked out for all draws at once, as a row of values whose first is that of the
pictures as they are. Two scores from the same draws are paired by nothing more than subtraction.
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
"""Rounds + 1: a score of every draw, NaN where a draw has none."""

HELPS, HURTS, CANNOT_TELL = "helps", "hurts", "cannot tell"
_CONFIDENCE = 0.95
_FEWEST_GROUPS = 5
"""Fewer say next to nothing of how much chance there is."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the interval it lies in, nineteen times out of twenty."""

    value: float
    low: float
    high: float


def draws(groups: Sequence[Hashable], *, rounds: int, seed: int = 0) -> Weights:
    """Weights of pictures, those of one group (a sequence) being drawn together."""
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
    """What a difference, more being better, allows to be said."""
    if groups < _FEWEST_GROUPS or not np.isfinite([difference.low, difference.high]).all():
        return CANNOT_TELL
    if difference.low > 0:
        return HELPS
    return HURTS if difference.high < 0 else CANNOT_TELL
