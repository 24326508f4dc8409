"""Compares several settings: how fast each is, and how good."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros import manifest
from rain_removal_ros.errors import BagError
from rain_removal_ros.runtime import files
from rain_removal_ros.settings import flatten

if TYPE_CHECKING:
    from rain_removal_ros.bags.node_bench import Attempt


def offline(
    sources: Sequence[Path],
    attempt: Attempt,
    *,
    topic: str = "",
    reference: str = "",
    jobs: int = 1,
    ray: str | None = None,
) -> dict[str, Any]:
    """Derain and score every frame of some recordings; the frames themselves are not kept."""
    from rain_removal_ros.bags import fleet
    from rain_removal_ros.bags.frame_scores import combined
    from rain_removal_ros.bags.replaying import ReplayOptions

    options = ReplayOptions(topics=(topic,) if topic else (), reference=reference, ending="bench")
    order = fleet.FleetOptions(attempt.settings, options, scored=True)
    with tempfile.TemporaryDirectory(prefix="rain-removal-bench-") as folder:
        done = fleet.run(sources, Path(folder), order, jobs=jobs, ray=ray)
    if not done.results:
        raise BagError(f"{attempt.name}: " + "; ".join(done.failures.values()))
    results = done.results.values()
    parts = [part for result in results for part in result["scores"].values()]
    cameras = [camera for result in results for camera in result["cameras"]]
    counts = {kind: _total(camera[kind] for camera in cameras) for kind in _KINDS}
    if not parts:
        raise BagError(f"{attempt.name}: no frame came through; dropped: {counts['dropped']}")
    figures = combined(parts)
    derained = sum(camera["cleaned"] for camera in cameras)
    frames, dropped = figures["frames"], sum(counts["dropped"].values())
    network_seconds = sum(result["network_seconds"] for result in results)
    return {
        "name": attempt.name,
        "settings": flatten(attempt.settings),
        "sent": frames + dropped,
        "received": frames,
        "lost": dropped / (frames + dropped),
        "rate_hz": derained / network_seconds if derained else None,
        **{f"latency_ms_{name}": figures[f"network_ms_{name}"] for name in _SHARES},
        **counts,
        "failures": done.failures,
        "quality": {k: v for k, v in figures.items() if not k.startswith("network_ms")},
    }


def _total(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, parts), Counter()))


_KINDS = ("passed", "dropped", "resets")
_SHARES = ("median", "p95", "p99", "max")
_HEAD = ("setting", "frames", "lost", "rate", "median", "p95", "p99", "max", "CPU", "memory",
         "PSNR", "SSIM", "rain", "flicker", "untouched", "drops", "fresh starts")  # fmt: skip


_QUALITY = _HEAD.index("PSNR")
"""The column of a row where speed ends and quality begins."""


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The table as text, in columns."""
    cells = [_HEAD, *map(_cells, rows)]
    used = [column for column in range(len(_HEAD)) if any(row[column] for row in cells[1:])]
    widths = {column: max(len(row[column]) for row in cells) for column in used}
    lines = ["  ".join(row[c].ljust(widths[c]) for c in used).rstrip() for row in cells]
    return "\n".join(lines)


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all figures."""
    files.write_json(path, {"manifest": manifest.manifest(), "results": list(rows)})


def write_report(path: Path, rows: Sequence[dict[str, Any]], sources: Sequence[Path]) -> None:
    """Write the table, and a plot of speed against quality."""
    from rain_removal_ros.report import Page, facts, fold, scatter_plot, side_by_side, table

    names = ", ".join(source.name for source in sources)
    page = Page("Settings compared", f"Measured on {names}.")
    cells = [_cells(row) for row in rows]
    for title, columns in (("Speed", range(1, _QUALITY)), ("Quality", range(_QUALITY, len(_HEAD)))):
        used = [0, *(column for column in columns if any(row[column] for row in cells))]
        head = [_HEAD[column] for column in used]
        page.section(title, table(head, [[row[column] for column in used] for row in cells]))
    plots = []
    for key, name in (("psnr_after", "PSNR"), ("ssim_after", "SSIM"), ("rain_after", "Rain left")):
        points = {
            row["name"]: [(row["latency_ms_median"], row["quality"][key], row["name"])]
            for row in rows
            if row["quality"][key] is not None and row["latency_ms_median"] is not None
        }
        if points:
            plots.append(scatter_plot(points, title=f"{name} and latency", x="ms", y=name))
    page.section("Speed against quality", side_by_side(*plots))
    page.section(
        "How it was measured",
        facts(manifest.manifest()),
        *(fold(f"Settings: {row['name']}", facts(row["settings"])) for row in rows),
    )
    page.write(path)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    quality = row["quality"]
    return (
        row["name"],
        f"{row['received']}/{row['sent']}",
        f"{100 * row['lost']:.1f} %",
        _number(row["rate_hz"], "Hz"),
        *(_number(row[f"latency_ms_{name}"], "ms") for name in _SHARES),
        f"{row['cpu_percent']:.0f} %" if "cpu_percent" in row else "",
        f"{row['memory_mib']:.0f} MB" if "memory_mib" in row else "",
        _change(quality, "psnr", 2),
        _change(quality, "ssim", 3),
        _change(quality, "rain", 2),
        _change(quality, "flicker", 2),
        *(_reasons(row, kind) for kind in _KINDS),
    )


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.1f} {unit}"


def _reasons(row: dict[str, Any], kind: str) -> str:
    return ", ".join(f"{name} {count}" for name, count in row.get(kind, {}).items())


def _change(quality: dict[str, Any], name: str, digits: int) -> str:
    before, after = quality[f"{name}_before"], quality[f"{name}_after"]
    if before is None or after is None:
        return ""
    return f"{before:.{digits}f} → {after:.{digits}f}"
