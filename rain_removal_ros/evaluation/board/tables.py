"""The board as a Markdown table that also reads well on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rain_removal_ros.evaluation.board.rules import Reading, Rule, Verdict

_HEAD = ("mark", "unit", "candidate", "shipped", "change", "95 %", "aimed at", "")


def table(readings: Sequence[Reading], candidate: str, shipped: str) -> str:
    """One row a mark."""
    head = list(_HEAD)
    head[2:4] = [candidate, shipped]
    rows = [_row(reading) for reading in readings]
    return markdown(head, rows)


def verdict_line(verdict: Verdict) -> str:
    word = "ship" if verdict.ships else "do not ship"
    return f"**{word}**: {'; '.join(verdict.reasons)}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * max(3, width) for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in lines
    )


def figure(rule: Rule, value: float, *, sign: str = "") -> str:
    """A value in the mark's own unit."""
    if rule.unit == "%":
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign}.{2 if rule.unit else 3}f}"


def _row(reading: Reading) -> list[str]:
    rule, change = reading.rule, reading.change
    goal = ""
    if rule.goal is not None:
        goal = f"{'at most ' if rule.less else ''}{rule.goal:g}{' ok' if reading.met else ''}"
    return [
        rule.title,
        rule.unit,
        figure(rule, reading.candidate.value),
        "" if reading.shipped is None else figure(rule, reading.shipped),
        "" if change is None else figure(rule, change.value, sign="+"),
        "" if change is None else
        f"{figure(rule, change.low, sign='+')} to {figure(rule, change.high, sign='+')}",
        goal,
        "below its floor" if reading.below_floor else reading.verdict,
    ]  # fmt: skip
