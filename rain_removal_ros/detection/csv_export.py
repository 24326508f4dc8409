"""The analysis as CSV: one line per detector, condition and candidate, with every score.

An estimate takes three columns: its value, and the ends of its 95 % interval. For a gated network,
the condition ``all`` has the gain of the gate over all conditions together.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from rain_removal_ros.detection.analysis import Analysis, Gate, Row, Share, gated
from rain_removal_ros.detection.bootstrap import Estimate

__all__ = ["ALL_CONDITIONS", "as_csv"]

ALL_CONDITIONS = "all"
_DIGITS = 3


def as_csv(analyses: Sequence[Analysis]) -> str:
    """A header of all columns that occur, then the lines."""
    lines = [
        line
        for analysis in analyses
        for line in (
            *(_row(row) for row in analysis.rows),
            *(_gate(gate) for gate in analysis.gates),
        )
    ]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _row(row: Row) -> dict[str, str]:
    line = {"detector": row.detector, "condition": row.condition, "shown": row.candidate}
    line["verdict"] = row.verdict
    if row.milliseconds is not None:
        line["ms"] = _number(row.milliseconds)
    if row.recovered is not None:
        line |= _estimate("won back", row.recovered)
    for name, score in row.scores.items():
        line |= _estimate(name, score)
    for name, difference in row.differences.items():
        line |= _estimate(f"{name} difference", difference)
    for name, share in {**row.classes, **row.sizes}.items():
        line |= _share(name, share)
    return line


def _share(name: str, share: Share) -> dict[str, str]:
    return {
        f"AP50 {name}": _number(share.score.value),
        **_estimate(f"AP50 {name} difference", share.difference),
        f"AP50 {name} verdict": share.verdict,
    }


def _gate(gate: Gate) -> dict[str, str]:
    return {
        "detector": gate.detector,
        "condition": ALL_CONDITIONS,
        "shown": gated(gate.model),
        "advice": gate.advice,
        **_estimate("gated against never", gate.over_never),
        **_estimate("gated against always", gate.over_always),
    }


def _estimate(name: str, estimate: Estimate) -> dict[str, str]:
    return {
        name: _number(estimate.value),
        f"{name} low": _number(estimate.low),
        f"{name} high": _number(estimate.high),
    }


def _number(value: float) -> str:
    return f"{round(value, _DIGITS) + 0.0:g}" if math.isfinite(value) else ""
