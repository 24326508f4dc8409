"""The rows as tables, in Markdown that also reads well on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rain_removal_ros.evaluation._rows import Row


class Column(NamedTuple):
    """One column of a table."""

    title: str
    key: str
    show: Callable[[Any], str] = str


class Table(NamedTuple):
    """The rows of one kind."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        rule = ["-" * width for width in widths]
        lines = [_line(row, widths) for row in (self.head, rule, *self.rows)]
        return f"### {self.title}\n\n{self.note}\n\n" + "\n".join(lines)


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table for each kind of set."""
    found = []
    for kind, (title, note, columns) in _KINDS.items():
        chosen = [row for row in rows if row["kind"] == kind]
        if chosen:
            used = [column for column in columns if any(column.key in row for row in chosen)]
            body = [[_shown(column, row) for column in used] for row in chosen]
            found.append(Table(title, note, [column.title for column in used], body))
    return found


def _db(value: float) -> str:
    return f"{value:.2f}"


def _gain(value: float) -> str:
    return f"{value:+.2f}"


def _index(value: float) -> str:
    return f"{value:.4f}"


_WHO = (Column("set", "set"), Column("model", "model"), Column("stages", "stages"))
_STEADY = (
    Column("flicker", "flicker", _db),
    Column("relative", "flicker_relative", _db),
    Column("warping", "warping_error", _db),
    Column("of reference", "warping_error_clean", _db),
)
_CLIP = (
    *_WHO,
    Column("state", "state"),
    Column("frames", "images"),
    Column("PSNR-Y", "psnr_y", _db),
    Column("gain", "gain_psnr_y", _gain),
    Column("SSIM-Y", "ssim_y", _index),
    *_STEADY,
)
_STEADY_NOTE = (
    "Flicker is how differently from the reference one frame follows another, in grey levels, and "
    "relative to how the reference itself changes."
)
_KINDS: dict[str, tuple[str, str, tuple[Column, ...]]] = {
    "pairs": (
        "Rainy pictures",
        "Likeness to the references. Gain is over the untouched input, harmed is how many lost.",
        (
            *_WHO,
            Column("images", "images"),
            Column("PSNR-Y", "psnr_y", _db),
            Column("SSIM-Y", "ssim_y", _index),
            Column("gain", "gain_psnr_y", _gain),
            Column("PSNR-RGB", "psnr_rgb", _db),
            Column("SSIM-RGB", "ssim_rgb", _index),
            Column("MS-SSIM", "ms_ssim", _index),
            Column("harmed", "harmed"),
        ),
    ),
    "clean": (
        "Dry pictures",
        "Likeness of the output to the input, which should have stayed as it was.",
        (
            *_WHO,
            Column("images", "images"),
            Column("PSNR-Y", "psnr_y", _db),
            Column("worst", "psnr_y_worst", _db),
            Column("SSIM-Y", "ssim_y", _index),
            Column("PSNR-RGB", "psnr_rgb", _db),
        ),
    ),
    "clips": ("Clips in drawn rain", _STEADY_NOTE, _CLIP),
    "drive": (
        "Simulated drives in drawn rain",
        f"{_STEADY_NOTE} Warping is how far a frame differs from the one before moved along the "
        "known motion, and what the reference itself comes to.",
        _CLIP,
    ),
}


def _shown(column: Column, row: Row) -> str:
    value = row.get(column.key)
    return "-" if value is None else column.show(value)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"
