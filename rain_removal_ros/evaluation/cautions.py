"""What an evaluation found that speaks against weights, for their file and their card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rain_removal_ros.evaluation._rows import INPUT, Row
from rain_removal_ros.networks._cautions import Cautions

_COSTS_DB = 0.1
"""What state may cost in the mean over all sets of clips, for what it gives in steadiness."""


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
    """What is lost where state is carried; nothing if it gains in the mean."""
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
    """The sets of pairs whose pictures are further from the truth in the mean than they were."""
    gains = {row["set"]: row["gain_psnr_y"] for row in rows if row["kind"] == "pairs"}
    return ", ".join(f"{gain:+.2f} dB on {name}" for name, gain in gains.items() if gain < 0)
