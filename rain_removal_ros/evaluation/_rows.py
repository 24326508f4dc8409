"""Summarises the results: one row for each model and set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from rain_removal_ros.evaluation._clips import ClipResults, FrameTrace
from rain_removal_ros.evaluation._models import Runner
from rain_removal_ros.evaluation._pictures import PictureResults
from rain_removal_ros.metrics import Scores

Row: TypeAlias = dict[str, Any]

INPUT = "input"
"""The name of the untouched input among the models."""


def picture_rows(measured: PictureResults, runners: Sequence[Runner]) -> Iterator[Row]:
    """The input, then every model, on one set of pictures."""
    untouched = [scored.before[1] for scored in measured.scored]
    if measured.kind == "pairs":
        yield {
            **_head(measured, INPUT, len(untouched)),
            **_means(untouched),
            "gain_psnr_y": 0.0,
            "gain_ssim_y": 0.0,
            "harmed": 0,
        }
    for index, runner in enumerate(runners):
        after = [scored.after[index] for scored in measured.scored]
        before = [scored.before[runner.scale] for scored in measured.scored]
        row = {**_head(measured, runner.model, len(after)), **_means(after), **_setup(runner)}
        if measured.kind == "pairs":
            gains = [a.psnr_y - b.psnr_y for a, b in zip(after, before, strict=True)]
            row["gain_psnr_y"] = _mean(gains)
            row["gain_ssim_y"] = _mean(
                [a.ssim_y - b.ssim_y for a, b in zip(after, before, strict=True)]
            )
            row["gain_psnr_y_worst"] = min(gains)
            row["harmed"] = sum(gain < 0 for gain in gains)
        else:
            row["psnr_y_worst"] = min(scores.psnr_y for scores in after)
        yield row


def clip_rows(measured: ClipResults) -> Iterator[Row]:
    """The input, then every model with and without its state, on one set of clips."""
    for way, trace in zip(measured.ways, measured.traces, strict=True):
        runner = way.runner
        model = runner.model if runner else INPUT
        before = measured.before[runner.scale if runner else 1]
        row = {
            **_head(measured, model, len(trace.psnr_y)),
            "clips": len(measured.used),
            "state": "carried" if way.carried else "none",
            "psnr_y": _mean(trace.psnr_y),
            "ssim_y": _mean(trace.ssim_y),
            "psnr_rgb": _mean(trace.psnr_rgb),
            "gain_psnr_y": _mean(trace.psnr_y) - _mean(before.psnr_y),
            **_steadiness(measured, trace),
        }
        yield {**row, **(_setup(runner) if runner else {})}


def _steadiness(measured: ClipResults, trace: FrameTrace) -> Row:
    moved = _mean(measured.reference_change)
    shaken = _mean(trace.flicker)
    row = {"flicker": shaken, "flicker_relative": shaken / moved if moved > 0 else None}
    if trace.warping:
        row["warping_error"] = _mean(trace.warping)
        row["warping_error_clean"] = _mean(measured.reference_warping)
    return row


def _head(measured: PictureResults | ClipResults, model: str, images: int) -> Row:
    return {
        "kind": measured.kind,
        "model": model,
        "set": measured.name,
        "images": images,
        "skipped": len(measured.skipped),
    }


def _setup(runner: Runner) -> Row:
    return {
        "network": runner.network,
        "stages": runner.stages,
        "scale": runner.scale,
        "device": runner.engine.info.device,
        "precision": runner.engine.info.precision,
    }


def _means(scores: Sequence[Scores]) -> Row:
    return {name: _mean([getattr(each, name) for each in scores]) for name in Scores._fields}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
