"""The board as a Markdown table that also reads well on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rain_removal_ros.evaluation.board.rules import SECTIONS, Reading, Rule, Verdict

_HEAD = ("mark", "unit", "candidate", "shipped", "change", "95 %", "aimed at", "")


_INTERVAL = ("value", "low", "high")


def table(readings: Sequence[Reading], candidate: str, shipped: str) -> str:
    """One row per mark, section by section."""
    head = [*_HEAD[:2], candidate, shipped, *_HEAD[4:]]
    rows = []
    for title, rules in SECTIONS.items():
        own = [_row(reading) for reading in readings if reading.rule in rules]
        rows += [[f"**{title}**", *[""] * (len(head) - 1)], *own] if own else []
    return markdown(head, rows)


def single(name: str, marks: Mapping[str, Mapping[str, float]]) -> str:
    """One model by itself; each mark has ``value``, ``low`` and ``high``."""
    rows = []
    for title, rules in SECTIONS.items():
        own = [rule for rule in rules if rule.mark in marks]
        rows += [[f"**{title}**", "", "", ""]] if own else []
        for rule in own:
            value, low, high = (figure(rule, marks[rule.mark][key]) for key in _INTERVAL)
            rows.append([rule.title, rule.unit, value, f"{low} to {high}"])
    return markdown(["mark", "unit", name, "95 %"], rows)


def verdict_line(verdict: Verdict) -> str:
    word = "ship" if verdict.ships else "do not ship"
    if not verdict.complete:
        word = "not all was measured; so far"
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
    moved = interval = ""
    if change is not None:
        moved, low, high = (
            figure(rule, value, sign="+") for value in (change.value, change.low, change.high)
        )
        interval = f"{low} to {high}"
    return [
        rule.title,
        rule.unit,
        figure(rule, reading.candidate.value),
        "" if reading.shipped is None else figure(rule, reading.shipped),
        moved,
        interval,
        goal,
        "below its floor" if reading.below_floor else reading.verdict,
    ]
