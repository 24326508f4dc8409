"""A mark is one figure of the board, kept item by item so that its interval can be estimated.

Two models are compared on the items on which both were measured, resampled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rain_removal_ros.detection.bootstrap import Estimate, Values, draws, estimate

ROUNDS = 1000
MOST_DB = 60.0
"""What a picture that should not change gets at most: less than a quarter of a level is nothing."""


@dataclass(frozen=True)
class Mark:
    """The sum of ``amounts`` over the sum of ``of``; with ``least``, the least amount."""

    name: str
    items: tuple[str, ...]
    amounts: tuple[float, ...]
    of: tuple[float, ...]
    least: bool = False
    drawn: tuple[float, ...] = ()
    """Instead of amounts: the mark itself and its values for all draws, if it is not a sum over
    items."""

    @property
    def value(self) -> float:
        return float(self.values(self.items)[0])

    def values(self, items: Sequence[str]) -> Values:
        """The mark over these items, then over ``ROUNDS`` draws of them."""
        if self.drawn:
            return np.array(self.drawn)
        place = {item: index for index, item in enumerate(self.items)}
        chosen = [place[item] for item in items]
        amounts, of = np.array(self.amounts)[chosen], np.array(self.of)[chosen]
        weights = draws(items, rounds=ROUNDS).astype(np.float64)
        if self.least:
            return np.asarray(np.where(weights > 0, amounts, np.inf).min(1), np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ amounts) / (weights @ of), np.float64)

    def shares_items(self, other: Mark) -> list[str]:
        """Whether both have the same items; all or none if only draws are known."""
        if self.drawn or other.drawn:
            return list(self.items) if self.items == other.items else []
        known = set(other.items)
        return [item for item in self.items if item in known]

    def as_json(self) -> dict[str, Any]:
        found = estimate(self.values(self.items))
        return {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "least": self.least,
            "items": list(self.items),
            "amounts": list(self.amounts),
            "of": list(self.of),
        }

    def kept(self) -> dict[str, Any]:
        """Everything, for the cache."""
        return {**self.as_json(), "drawn": list(self.drawn)}

    @staticmethod
    def from_json(name: str, kept: Mapping[str, Any]) -> Mark:
        return Mark(
            name,
            tuple(kept["items"]),
            tuple(kept["amounts"]),
            tuple(kept["of"]),
            kept["least"],
            tuple(kept["drawn"]),
        )


def mean(name: str, by_item: Mapping[str, float]) -> Mark:
    """The mean over items."""
    return Mark(name, tuple(by_item), tuple(by_item.values()), (1.0,) * len(by_item))


def least(name: str, by_item: Mapping[str, float]) -> Mark:
    """The worst item, for figures where more is better."""
    return Mark(name, tuple(by_item), tuple(by_item.values()), (1.0,) * len(by_item), least=True)


def share(name: str, by_item: Mapping[str, tuple[float, float]]) -> Mark:
    """One sum over items as a share of another."""
    amounts, of = zip(*by_item.values(), strict=True)
    return Mark(name, tuple(by_item), amounts, of)


def of_draws(name: str, items: Sequence[str], values: Values) -> Mark:
    """A mark that was computed for every draw by itself."""
    return Mark(name, tuple(items), (), (), drawn=tuple(values.tolist()))


def difference(candidate: Mark, rival: Mark) -> Estimate:
    """The candidate minus the shipped model, on the items on which both were measured."""
    common = candidate.shares_items(rival)
    if not common:
        return Estimate(float("nan"), float("nan"), float("nan"))
    return estimate(candidate.values(common) - rival.values(common))
