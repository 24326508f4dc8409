"""The page and its text: sections, tables, facts."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rain_removal_ros.report._style import CSS, SCRIPT
from rain_removal_ros.runtime.files import write_whole

_NUMBER = re.compile(r"[-+−±]?\d[\d,. ]*\s?(?:%|dB|ms|s|Hz|px|MB|fps)?|[–-]?")


class Html(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


class Page:
    """A report in one file. Sections appear in the order in which they were added."""

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self.lead = lead
        self._sections: list[str] = []

    def section(self, title: str, *parts: str) -> None:
        """Add a section; parts that are not ``Html`` become paragraphs."""
        self._sections.append(f"<section><h2>{text(title)}</h2>{_joined(parts)}</section>")

    def html(self) -> str:
        lead = f'<p class="lead">{text(self.lead)}</p>' if self.lead else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{text(self.title)}</title>\n<style>{CSS}</style></head>\n<body><main>"
            f"<header><h1>{text(self.title)}</h1>{lead}</header>\n"
            + "\n".join(self._sections)
            + f"\n</main>\n<script>{SCRIPT}</script></body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page to ``path``, whole or not at all."""
        write_whole(path, self.html())


def text(value: object) -> Html:
    """Anything as HTML: escaped, unless it is ``Html``."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def heading(title: str) -> Html:
    """A heading within a section."""
    return Html(f"<h3>{text(title)}</h3>")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> Html:
    """A table that scrolls sideways where it is too wide; columns of numbers are right-aligned."""
    cells = [[text(cell) for cell in row] for row in rows]
    columns = range(len(head))
    right = [
        bool(cells) and all(_NUMBER.fullmatch(row[column]) for row in cells) for column in columns
    ]
    kinds = [' class="number"' if aligned else "" for aligned in right]
    titles = "".join(
        f'<th scope="col"{kind}>{text(title)}</th>' for kind, title in zip(kinds, head, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in cells
    )
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    # Focusable, so that the arrow keys can scroll it.
    return Html(
        f'<div class="scroll" tabindex="0"><table>{said}<thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def tiles(values: Mapping[str, object]) -> Html:
    """The most important figures, large, by name."""
    inner = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values.items()
    )
    return Html(f'<dl class="tiles">{inner}</dl>')


def facts(values: Mapping[str, object]) -> Html:
    """Names and their values, one per line."""
    inner = "".join(
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in values.items()
    )
    return Html(f'<dl class="facts">{inner}</dl>')


def fold(summary: str, *parts: str) -> Html:
    """Parts that are folded on screen and open on paper."""
    return Html(f"<details><summary>{text(summary)}</summary>{_joined(parts)}</details>")


def side_by_side(*parts: str) -> Html:
    """Parts next to each other where there is room, as plots are."""
    return Html(f'<div class="beside">{_joined(parts)}</div>')


def gallery(*pictures: str) -> Html:
    """Pictures and sliders in as many columns as fit."""
    return Html(f'<div class="gallery">{_joined(pictures)}</div>')


def _joined(parts: Sequence[str]) -> str:
    return "".join(part if isinstance(part, Html) else f"<p>{text(part)}</p>" for part in parts)
