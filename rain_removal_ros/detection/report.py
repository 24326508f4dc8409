"""The analysis as Markdown and as one HTML file with plots and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rain_removal_ros import report
from rain_removal_ros.detection.analysis import (
    FALSE_PER_PICTURE,
    Analysis,
    Example,
    Row,
    gated,
)
from rain_removal_ros.detection.bootstrap import Estimate
from rain_removal_ros.detection.boxes import Detections, Truths, overlaps
from rain_removal_ros.detection.candidates import INPUT, REFERENCE
from rain_removal_ros.detection.harness import DetectionResults
from rain_removal_ros.frames import Image

__all__ = ["ReportFacts", "html", "markdown", "page"]

_MARK = "<!-- tables -->"
_WHITE, _GREEN, _RED = (255, 255, 255), (60, 220, 90), (255, 70, 60)
_COUNTED = ("lost", "gained", "false alarms")
_VERDICTS = (
    "Differences are to the rainy input on the same pictures, with 95 % intervals from {rounds} "
    "paired draws of {groups}. The verdict is about the difference in AP50: helps or hurts only if "
    "the whole interval is on one side of zero. Recovered is the share of what rain costs. AP is "
    "COCO's, in points from 0 to 100."
)
_SCORES = (
    f"Recall is at {FALSE_PER_PICTURE:g} false alarms per picture. Lost and gained objects and "
    "added false alarms are averages per picture, at the score that is best (F1) on clear "
    "pictures. A gated network runs only on frames whose rain level, measured as in the node, is "
    "above a threshold chosen on the other half of the pictures."
)
_HOW = f"{_VERDICTS} {_SCORES}"


@dataclass(frozen=True)
class ReportFacts:
    """What a reader must know of the run."""

    rounds: int
    groups: str
    """What was resampled: pictures or sequences, and how many."""
    setting: Mapping[str, str]
    """Names and values: pictures, rain, machine."""


def page(path: Path, analyses: Sequence[Analysis], facts: ReportFacts) -> str:
    """One table of all detectors, below the existing text of the page."""
    above = f"# Does it help?\n\n{_MARK}\n"
    if path.is_file():
        text, mark, _ = path.read_text(encoding="utf-8").partition(_MARK)
        if mark:
            above = f"{text}{mark}\n"
    return "\n".join(
        [above, *_preamble(facts, _VERDICTS), *_markdown_table(*_overview(analyses)), ""]
    )


def markdown(analyses: Sequence[Analysis], facts: ReportFacts) -> str:
    """Every table, for a terminal."""
    parts = _preamble(facts, _HOW)
    for analysis in analyses:
        parts += [f"## {analysis.detector}{_pseudo(analysis)}", ""]
        parts += [f"{note}\n" for note in analysis.notes]
        parts += ["AP50, verdict, and the share recovered of what rain costs:", ""]
        parts += _markdown_table(*_glance(analysis))
        parts += ["", "When to derain, over all conditions together:", ""]
        parts += [*_markdown_table(*_gates(analysis)), ""]
        parts += _titled("With intervals", _table(analysis))
        parts += _titled("More scores, as differences to the input", _details(analysis))
        if len(analysis.labels) > 1:
            parts += _titled("By class, AP50", _shares(analysis, _classes))
        parts += _titled("By size of the object, AP50", _shares(analysis, _sizes))
    return "\n".join(parts).rstrip() + "\n"


def _preamble(facts: ReportFacts, how: str) -> list[str]:
    """What was compared, and how to read the tables."""
    settings = [f"- {name}: {value}" for name, value in facts.setting.items()]
    return [*settings, "", how.format(rounds=facts.rounds, groups=facts.groups), ""]


def _overview(analyses: Sequence[Analysis]) -> tuple[list[str], list[list[str]]]:
    """AP50, verdict and share recovered of every candidate except the gated ones."""
    head: list[str] = []
    lines = []
    for analysis in analyses:
        head, rows = _glance(analysis)
        without = {gated(gate.model) for gate in analysis.gates}
        name = f"{analysis.detector}{_pseudo(analysis)}"
        lines += [[name, *row] for row in rows if row[0] not in without]
    return ["detector", *head], lines


def html(analyses: Sequence[Analysis], run: DetectionResults, facts: ReportFacts) -> report.Page:
    """The report, with curves and pictures."""
    made = report.Page(
        "Does deraining help?",
        f"{run.source.name}, seen by {', '.join(each.detector for each in analyses)}.",
    )
    made.section("What was compared", report.facts(dict(facts.setting)))
    for analysis in analyses:
        heading = f"{analysis.detector}{_pseudo(analysis)}"
        made.section(
            heading,
            *analysis.notes,
            report.table(
                *_glance(analysis),
                caption="AP50, verdict, and the share recovered of what rain costs",
            ),
            report.fold("With intervals", report.table(*_table(analysis))),
            report.side_by_side(*_plots(analysis)),
            report.fold("More scores", report.table(*_details(analysis))),
            report.fold("By class", report.table(*_shares(analysis, _classes))),
            report.fold("By size of the object", report.table(*_shares(analysis, _sizes))),
        )
        made.section(
            f"{analysis.detector}: when to derain",
            report.table(*_gates(analysis), caption="All conditions taken together"),
            report.line_plot(
                {gate.model: [(max(0.0, x), y) for x, y in gate.curve] for gate in analysis.gates},
                title="AP50 over the gate's threshold",
                x="rain level above which frames are derained",
                y="AP50",
            ),
        )
        for name, examples in (("helped", analysis.helped), ("hurt", analysis.hurt)):
            made.section(
                f"{analysis.detector}: {name} most",
                _LEGEND if examples else f"No picture was {name}.",
                report.gallery(*(_example(run, analysis, each) for each in examples)),
            )
    made.section("How it was measured", _HOW.format(rounds=facts.rounds, groups=facts.groups))
    return made


_LEGEND = (
    "White: the truth. Green: found. Red: false alarms. Detections count if their score is above "
    "the one that is best on clear pictures."
)


def _pseudo(analysis: Analysis) -> str:
    return " (pseudo ground truth)" if analysis.is_pseudo else ""


def _glance(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """A line for each candidate, a column for each condition."""
    conditions = list(dict.fromkeys(row.condition for row in analysis.rows))
    cells = {(row.candidate, row.condition): row for row in analysis.rows}
    lines = []
    # The last condition has all candidates; the first, clear weather, has no reference.
    for candidate in dict.fromkeys(
        candidate for each in conditions[::-1] for candidate, at in cells if at == each
    ):
        rows = [cells.get((candidate, condition)) for condition in conditions]
        times = [row.milliseconds for row in rows if row is not None and row.milliseconds]
        shown = (
            _ms(float(np.median(times))) if times and candidate not in (INPUT, REFERENCE) else ""
        )
        lines.append([candidate, *("" if row is None else _brief(row) for row in rows), shown])
    return ["shown", *conditions, "ms"], lines


def _brief(row: Row) -> str:
    words = [f"{row.scores['AP50'].value:.1f}"]
    if row.candidate not in (INPUT, REFERENCE):
        words.append(row.verdict)
        if row.recovered is not None and math.isfinite(row.recovered.value):
            words.append(f"{_rounded(row.recovered.value, 0):.0f} %".replace("-", "−"))
    return ", ".join(word for word in words if word)


def _table(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    head = ["condition", "shown", "AP50", "difference", "verdict", "won back", "AP", "ms"]
    return head, [
        [
            row.condition,
            row.candidate,
            _interval(row.scores["AP50"]),
            "" if row.candidate == INPUT else _interval(row.differences["AP50"], sign="+"),
            row.verdict,
            "" if row.recovered is None else _interval(row.recovered, digits=0, unit=" %"),
            f"{row.scores['AP'].value:.1f}",
            ""
            if row.milliseconds is None or row.candidate in (INPUT, REFERENCE)
            else _ms(row.milliseconds),
        ]
        for row in analysis.rows
    ]


def _details(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    rows = [row for row in analysis.rows if row.candidate != INPUT]
    names = [name for name in rows[0].differences if name != "AP50"] if rows else []
    return ["condition", "shown", *names], [
        [
            row.condition,
            row.candidate,
            *(
                _interval(
                    row.differences[name],
                    digits=2 if name in _COUNTED else 1,
                    sign="" if name in ("lost", "gained") else "+",
                )
                for name in names
            ),
        ]
        for row in rows
    ]


def _classes(row: Row) -> Mapping[str, Any]:
    return row.classes


def _sizes(row: Row) -> Mapping[str, Any]:
    return row.sizes


def _shares(
    analysis: Analysis, of: Callable[[Row], Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    return ["condition", "shown", "of", "AP50", "difference", "verdict"], [
        [
            row.condition,
            row.candidate,
            name,
            f"{share.score.value:.1f}",
            _interval(share.difference, sign="+"),
            share.verdict,
        ]
        for row in analysis.rows
        if row.candidate != INPUT
        for name, share in of(row).items()
        if math.isfinite(share.score.value)
    ]


def _gates(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    return ["model", "advice", "gated against never", "gated against always"], [
        [
            gate.model,
            gate.advice,
            _interval(gate.over_never, sign="+"),
            _interval(gate.over_always, sign="+"),
        ]
        for gate in analysis.gates
    ]


def _plots(analysis: Analysis) -> Iterable[str]:
    conditions = list(dict.fromkeys(row.condition for row in analysis.rows))
    severity = {name: float(name.rpartition(" ")[2]) for name in conditions if name[-1].isdigit()}
    severity |= {"clear": 0.0}
    if len(conditions) > 1:
        lines: dict[str, list[tuple[float, ...]]] = {}
        for row in analysis.rows:
            point = (severity[row.condition], row.scores["AP50"].value)
            lines.setdefault(row.candidate, []).append(point)
        if REFERENCE in lines and INPUT in lines:
            lines[REFERENCE] = [lines[INPUT][0], *lines[REFERENCE]]
        yield report.line_plot(lines, title="AP50 over severity", x="severity of rain", y="AP50")
    hardest = [row for row in analysis.rows if row.condition == conditions[-1]]
    for label in analysis.labels[:4]:
        yield report.line_plot(
            {row.candidate: row.curves[label] for row in hardest},
            title=f"{label} under {conditions[-1]}",
            x="recall",
            y="precision",
        )
    yield report.scatter_plot(
        {
            row.candidate: [(row.milliseconds, row.scores["AP50"].value, row.candidate)]
            for row in hardest
            if row.milliseconds is not None and row.candidate != REFERENCE
        },
        title=f"What it costs, under {conditions[-1]}",
        x="ms a frame",
        y="AP50",
    )


def _example(run: DetectionResults, analysis: Analysis, example: Example) -> str:
    truth = analysis.truths[example.index]
    shown = []
    size = run.picture(example.condition, INPUT, example.index).shape[1::-1]
    for candidate in (INPUT, example.model):
        picture = run.picture(example.condition, candidate, example.index)
        if picture.shape[1::-1] != size:
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        found = run.found[example.condition, candidate, analysis.detector][example.index]
        shown.append(_drawn(picture, truth, found.above(analysis.score), analysis.labels))
    item = run.source.items[example.index]
    return report.slider(
        shown[0],
        shown[1],
        labels=(INPUT, example.model),
        caption=f"{item.name}, {example.condition}: {example.gain:+d}",
    )


def _drawn(picture: Image, truth: Truths, found: Detections, labels: Sequence[str]) -> Image:
    canvas = picture.copy()
    thickness = max(2, round(max(canvas.shape) / 300))
    for label, box in zip(truth.labels, truth.boxes, strict=True):
        if label in labels:
            _box(canvas, box, _WHITE, thickness)
    for label, box in zip(found.labels, found.boxes, strict=True):
        if label in labels:
            same = np.array([each == label for each in truth.labels], bool)
            hit = bool((overlaps(box[None], truth.boxes[same]) >= 0.5).any())
            _box(canvas, box, _GREEN if hit else _RED, thickness)
    return canvas


def _box(canvas: Image, box: Any, colour: tuple[int, int, int], thickness: int) -> None:
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), thickness + 2)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)


def _interval(estimate: Estimate, *, digits: int = 1, sign: str = "", unit: str = "") -> str:
    if not math.isfinite(estimate.value):
        return "–"
    value = f"{_rounded(estimate.value, digits):{sign}.{digits}f}{unit}"
    if not math.isfinite(estimate.low):
        return value
    low, high = (_rounded(end, digits) for end in (estimate.low, estimate.high))
    return f"{value} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]".replace("-", "−")


def _rounded(value: float, digits: int) -> float:
    """Rounded, and never minus zero."""
    return round(value, digits) + 0.0


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"


def _titled(title: str, table: tuple[Sequence[str], Sequence[Sequence[str]]]) -> list[str]:
    return [f"{title}:", "", *_markdown_table(*table), ""]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
