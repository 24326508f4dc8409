"""Cautions for a weight file and its card, from the results of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rain_removal_ros.evaluation._rows import INPUT, Row
from rain_removal_ros.networks._cautions import Cautions

_COSTS_DB = 0.1
"""State may cost this much in the mean over all sets of clips, because it makes them steadier."""


def cautions(rows: Sequence[Row]) -> dict[str, Cautions]:
    """By model, for all models in the rows of one or of several evaluations."""
    models = dict.fromkeys(row["model"] for row in rows if row["model"] != INPUT)
    return {
        model: Cautions(
            state=_cost_of_state([row for row in rows if row["model"] == model]),
            harm=_harm(row for row in rows if row["model"] == model),
        )
        for model in models
    }


def _cost_of_state(rows: Sequence[Row]) -> str:
    """PSNR-Y with and without state on each set; empty if state does not cost anything."""
    by_state = {
        state: {row["set"]: row["psnr_y"] for row in rows if row.get("state") == state}
        for state in ("none", "carried")
    }
    changes = {
        name: (alone, by_state["carried"][name])
        for name, alone in by_state["none"].items()
        if name in by_state["carried"]
    }
    if not changes:
        return ""
    mean = sum(carried - alone for alone, carried in changes.values()) / len(changes)
    if mean >= -_COSTS_DB:
        return ""
    return ", ".join(
        f"{carried:.1f} dB instead of {alone:.1f} on {name}"
        for name, (alone, carried) in changes.items()
    )


def _harm(rows: Iterable[Row]) -> str:
    """The sets of pairs on which the mean gain is negative."""
    gains = {row["set"]: row["gain_psnr_y"] for row in rows if row["kind"] == "pairs"}
    return ", ".join(f"{gain:+.2f} dB on {name}" for name, gain in gains.items() if gain < 0)
