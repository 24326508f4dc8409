"""Writes the measurements of the models that ship.

``benchmarks/results/board/NAME.json`` has a model's marks. Its card, ``models/NAME.md``, and the
tables of ``docs/results.md`` are made from these files alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rain_removal_ros import checkpoints
from rain_removal_ros.errors import DataError
from rain_removal_ros.evaluation.board import Measured
from rain_removal_ros.evaluation.board.rules import SECTIONS, Rule
from rain_removal_ros.evaluation.board.setup import Extent
from rain_removal_ros.evaluation.board.tables import figure, markdown, single
from rain_removal_ros.manifest import manifest
from rain_removal_ros.runtime.files import write_json, write_whole

BEGIN, END = "<!-- board -->\n", "<!-- end of board -->\n"
GROUPS = {
    "The streaming network": ("rainstream_s", "rainstream", "rainstream_l"),
    "Networks of papers, and PReNet as its authors published it": (
        "deform_resnet",
        "frequency_gan",
        "joint_derain_sr",
        "prenet",
        "rranet",
        "semi_multiscale",
        "prenet_rain100l",
        "prenet_rain100h",
    ),
}
"""The tables of docs/results.md, and their columns."""


@dataclass(frozen=True)
class Sheet:
    """One model's marks as stored in the repository."""

    name: str
    extent: str
    sha256: str
    time: str
    precision: str
    facts: dict[str, str]
    """Facts of the weight file for the card; empty for weights published elsewhere."""
    marks: dict[str, dict[str, float]]


def publish(measured: Measured, extent: Extent, root: Path) -> list[Path]:
    """Write a model's marks and every page that shows them; returns what was written.

    Parts that were not measured this time are kept, if the weights are the same.
    """
    name = measured.model.model
    page, card = root / "docs/results.md", root / "models" / f"{name}.md"
    if not page.is_file():
        raise DataError(f"{root} is not a checkout of this project: it has no docs/results.md")
    file = root / "benchmarks/results/board" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, _compact(measured, extent, _kept(file)))
    sheets = {path.stem: read(path) for path in sorted(file.parent.glob("*.json"))}
    written = [file, page]
    write_whole(page, _replaced(page, "\n".join(_groups(sheets))))
    if card.is_file():
        write_whole(card, _replaced(card, _card(sheets[name])))
        written.append(card)
    return written


def read(path: Path) -> Sheet:
    """The file that ``publish`` wrote."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Sheet(
        kept["model"],
        kept["extent"],
        kept["sha256"],
        kept["manifest"]["time"],
        kept["precision"],
        kept["facts"],
        kept["marks"],
    )


def _compact(measured: Measured, extent: Extent, before: dict[str, Any]) -> dict[str, Any]:
    same = before.get("sha256") == measured.model.checksum and before.get("extent") == extent.name
    marks = dict(before["marks"]) if same else {}
    for name, mark in measured.marks.items():
        whole = mark.as_json()
        marks[name] = {key: whole[key] for key in ("value", "low", "high")}
        marks[name]["items"] = len(mark.items)
    about = {key: value for key, value in manifest().items() if key != "command"}
    # The path on this machine does not belong in the repository.
    model = {key: value for key, value in measured.model.as_manifest().items() if key != "weights"}
    facts = _facts(Path(measured.model.weights))
    return {"manifest": about, **model, "extent": extent.name, "facts": facts, "marks": marks}


def _facts(weights: Path) -> dict[str, str]:
    if weights.suffix != ".safetensors":
        return {}
    checkpoint = checkpoints.load(weights)
    config = json.dumps(dataclasses.asdict(checkpoint.network.config))
    return {
        "network": checkpoint.name,
        "parameters": f"{sum(each.numel() for each in checkpoint.network.parameters()):,}",
        "config": f"`{config}`",
        "checksum of the weights": f"`{checkpoint.checksum}`",
        "SHA-256 of the file": f"`{hashlib.sha256(weights.read_bytes()).hexdigest()}`",
    }


def _kept(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return kept


def _groups(sheets: dict[str, Sheet]) -> list[str]:
    lines = []
    for title, names in GROUPS.items():
        shown = [sheets[name] for name in names if name in sheets]
        if shown:
            lines += [f"## {title}", "", _side_by_side(shown), "", _how(shown), ""]
    return lines


def _side_by_side(sheets: Sequence[Sheet]) -> str:
    head = ["", "unit", *(sheet.name for sheet in sheets), "aimed at, M"]
    rows = []
    for title, rules in SECTIONS.items():
        own = [rule for rule in rules if any(rule.mark in sheet.marks for sheet in sheets)]
        if own:
            rows.append([f"**{title}**", *[""] * (len(head) - 1)])
        rows += [
            [rule.title, rule.unit, *(_value(rule, sheet) for sheet in sheets), _goal(rule)]
            for rule in own
        ]
    return markdown(head, rows)


def _card(sheet: Sheet) -> str:
    facts = markdown(["", ""], [[name, value] for name, value in sheet.facts.items()])
    return f"{facts}\n\n{single(sheet.name, sheet.marks)}\n\n{_how([sheet])}"


def _how(sheets: Sequence[Sheet]) -> str:
    """When, with which weights and how completely the figures were measured."""
    lines = []
    for sheet in sheets:
        part = (
            "whole sets" if sheet.extent == "full" else f"a part of each set (`--{sheet.extent}`)"
        )
        day = sheet.time.partition("T")[0]
        lines.append(
            f"- {sheet.name}: {part}, {sheet.precision}, {day}, weights `{sheet.sha256[:16]}`"
        )
    return "\n".join(lines)


def _value(rule: Rule, sheet: Sheet) -> str:
    return figure(rule, sheet.marks[rule.mark]["value"]) if rule.mark in sheet.marks else "-"


def _goal(rule: Rule) -> str:
    if rule.goal is None:
        return ""
    return f"{'at most ' if rule.less else ''}{rule.goal:g}"


def _replaced(page: Path, made: str) -> str:
    """A page with the part between the two marks replaced."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{page} has no lines {BEGIN.strip()} and {END.strip()} to write between")
    return f"{before}{BEGIN}\n{made.strip()}\n\n{END}{after}"
